"""Moments whose pictures can't be read are replaced, named and counted; too many stop the training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemvlm.data.actions.dataset import EpisodeDataset
from gemvlm.data.actions.item import RobotItem
from gemvlm.data.collate import keyed
from gemvlm.data.quarantine import QuarantineError
from gemvlm.runtime import get_log

REASONS = "bad_moments.jsonl"
TRIES = 20


class ReadableMoments(Sequence[Any]):  # of RobotItem: a type checker at run time would draw one
    """The moments of a dataset. In the place of a damaged one stands another, drawn by its number alone.

    So every process puts the same one there, whatever it has read before. Numbers are read before any training
    (`episode_statistics`); pictures are too many for that, and a video may be damaged in the middle. Each process that
    meets a bad moment adds a line {moment, reason} to `folder/bad_moments.jsonl`. QuarantineError once it has met more
    than `max_bad_share` (0..1) of all moments, and more than the longest episode has, or none of `TRIES` is readable.
    """

    def __init__(self, moments: EpisodeDataset, folder: Path, max_bad_share: float) -> None:
        self.moments, self._reasons = moments, folder / REASONS
        longest = max(episode.length for episode in moments.episodes)
        self._most = max(longest, int(max_bad_share * len(moments)))
        self._bad: set[int] = set()

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: Any) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"moment {index} of {len(self)}")
        index %= len(self)
        for attempt in range(TRIES):
            found = self._read(keyed("in place of", index, attempt) % len(self) if attempt else index)
            if found is not None:
                return found
        raise QuarantineError(
            f"{TRIES} moments in a row can't be read; {self._reasons} says why: repair their episodes"
        )

    def _read(self, index: int) -> RobotItem | None:
        if index in self._bad:
            return None
        try:
            item: RobotItem = self.moments[index]
        except ValueError as error:
            self._set_aside(index, str(error))
            return None
        return item

    def _set_aside(self, index: int, reason: str) -> None:
        number, time = self.moments.moment(index)
        moment = f"{self.moments.episodes[number].id}@{time}"
        if not self._bad:
            get_log().warning("%s can't be read (%s); another stands in its place: %s", moment, reason, self._reasons)
        self._bad.add(index)
        self._reasons.parent.mkdir(parents=True, exist_ok=True)
        with self._reasons.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"moment": moment, "reason": reason}) + "\n")
        if len(self._bad) > self._most:
            raise QuarantineError(
                f"{len(self._bad)} moments of {len(self)} can't be read, such as {moment} ({reason}); {self._reasons} "
                "names all: repair or remove their episodes"
            )
