"""What a recipe's stages are fed with, however many processes prepare it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gemvlm.data.packing import LEFT_OUT, measure
from gemvlm.data.tokenizer import train_tokenizer
from gemvlm.recipes.data import target_makers
from gemvlm.recipes.feed import Feed
from gemvlm.recipes.gem_2b import GEM_2B
from gemvlm.runtime import Runtime
from gemvlm.shards import ShardReader
from gemvlm.training.checkpoint import ALONE
from gemvlm.training.parallel import Processes


class Threads(Processes):
    """Two processes that are threads, which wait for each other as processes do."""

    meeting = threading.Barrier(2)

    def barrier(self) -> None:
        self.meeting.wait(timeout=60)

    def sum(self, values: Sequence[float]) -> list[float]:
        self.barrier()
        return [2 * value for value in values]


def make_feed(learned_set: Path, folder: Path, rank: int = 0, world: int = 1) -> Feed:
    reader = ShardReader(learned_set)
    texts = [turn.question + turn.answer for sample in reader for turn in sample.turns]
    tokenizer = train_tokenizer(texts, 600, range(101))
    runtime = Runtime(rank, world, torch.device("cpu"), "float32")
    return Feed(GEM_2B, reader, tokenizer, target_makers(GEM_2B), runtime, folder, reader.manifest.hash)


def test_every_stage_that_packs_is_measured_once(learned_set: Path, tmp_path: Path) -> None:
    feed = make_feed(learned_set, tmp_path)
    feed.measure(ALONE)
    found = sorted(tmp_path.iterdir())
    assert len(found) == 2  # stages 1 and 2 show the same
    for stage in GEM_2B.stages:
        assert np.array_equal(feed.costs(stage), measure(feed.reader, feed.collator(stage)))
    times = [path.stat().st_mtime_ns for path in found]
    feed.measure(ALONE)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == times
    assert feed.stages()[-1].steps == 1


def test_processes_share_the_measuring(learned_set: Path, tmp_path: Path) -> None:
    alone = make_feed(learned_set, tmp_path / "alone")
    alone.measure(ALONE)
    feeds = [make_feed(learned_set, tmp_path / "shared", rank, 2) for rank in (0, 1)]
    threads = [threading.Thread(target=feed.measure, args=(Threads(feed.runtime),)) for feed in feeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("alone", "shared")]
    assert names[0] == names[1]
    for stage in GEM_2B.stages:
        assert np.array_equal(feeds[1].costs(stage), alone.costs(stage))


def test_samples_that_fit_no_pack_are_left_out_and_many_are_refused(
    learned_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, last = make_feed(learned_set, tmp_path), GEM_2B.stages[-1]
    patches = measure(feed.reader, feed.collator(last))[:, 1]
    assert last.budget is not None and len(set(patches)) == 2
    smaller = replace(last, budget=replace(last.budget, patches=int(patches.min())))
    feed = replace(feed, recipe=replace(GEM_2B, stages=(smaller,)))
    told = (
        rf"stage '3-everything': {(patches > patches.min()).sum()} of 12 samples fit no pack \(s\d+, .*give them fewer"
    )
    with pytest.raises(ValueError, match=told):
        feed.measure(ALONE)
    monkeypatch.setattr("gemvlm.recipes.feed.MAX_LEFT_OUT", 0.9)
    feed.measure(ALONE)
    stream = feed.stream(smaller)
    seen = {name for _ in range(12) for name in next(stream).sample_ids}
    assert seen == {feed.reader[int(index)].id for index in np.flatnonzero(patches == patches.min())}
    tight = replace(feed, recipe=replace(GEM_2B, max_tokens=10))
    assert (measure(feed.reader, tight.collator(last)) == LEFT_OUT).all()
