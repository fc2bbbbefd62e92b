"""A benchmark and who answers it → a folder of replies with their scores; killed, it goes on where it stopped.

    run.json                 who answered what, by which protocol: a folder holds one such run only
    answers-RANK-of-N.jsonl  while it runs: lines of each process, written batch by batch
    answers.jsonl            when all is answered: one line per item, in the benchmark's order

Which items share a batch depends on the benchmark and the batch size alone, and process RANK of N takes every Nth
batch: any number of processes makes the same file. A batch that a kill cut short is asked again as a whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from gemvlm.evaluation.answer_files import ANSWERS, PARTS, RUN, Line, all_lines, held, mend, put, read_run
from gemvlm.evaluation.answerers.answerer import Answerer, Reply
from gemvlm.evaluation.benchmark import Benchmark, Item, Media, Score, WritesPlaces
from gemvlm.runtime import versions

LONGEST_KEPT = 100_000
"""Characters of a reply that are written: a model that never stops must not fill the disk."""


@dataclass(frozen=True)
class Share:
    """This process is number `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"process {self.rank} of {self.world}: ranks count from 0")


def run_benchmark(
    benchmark: Benchmark,
    items: Sequence[Item],
    answerer: Answerer,
    folder: Path,
    *,
    share: Share | None = None,
    retry_failed: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Asks those of `items` that are not answered yet. True when every one has its line in `answers.jsonl`.

    False if other processes still have items to answer: the last of them makes the file. `retry_failed` asks again
    what failed before. `progress(done, of)` counts this process's items. ValueError if the folder holds another run, or
    if another process does this share already.
    """
    share = share or Share()
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, identity(benchmark, items, answerer))
    part = folder / f"answers-{share.rank}-of-{share.world}.jsonl"
    if not retry_failed and _gather(folder, items):
        return True
    with held(part):
        plan = batches(items, answerer.batch_size)
        done = _done(folder, plan, retry_failed)
        own = [batch for index, batch in enumerate(plan) if index % share.world == share.rank]
        waiting = [[item for item in batch if item.id not in done] for batch in own]
        _ask(benchmark, answerer, [batch for batch in waiting if batch], items, part, progress)
    return _gather(folder, items)


def _ask(
    benchmark: Benchmark,
    answerer: Answerer,
    waiting: Sequence[Sequence[Item]],
    items: Sequence[Item],
    part: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    if not waiting:
        return
    answerer.meet(benchmark, items)
    about = {
        "benchmark": benchmark.name,
        "protocol": benchmark.protocol,
        "model": answerer.name,
        "versions": versions(),
    }
    count, total = 0, sum(map(len, waiting))
    mend(part)
    with part.open("a", encoding="utf-8") as file:
        for batch in waiting:
            start = time.perf_counter()
            replies = answerer.answer(batch)
            seconds = round((time.perf_counter() - start) / len(batch), 4)
            pairs = zip(batch, replies, strict=True)
            lines = [{**_line(benchmark, item, reply, answerer), "seconds": seconds, **about} for item, reply in pairs]
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
            count += len(batch)
            if progress:
                progress(count, total)


def _line(benchmark: Benchmark, item: Item, reply: Reply, answerer: Answerer) -> Line:
    """What is kept of one item. A rule that raises is a failure of that item, with the error's words."""
    text, failure = reply.text[:LONGEST_KEPT], reply.failure
    score = Score(0.0, None)
    if failure is None:
        try:
            score = benchmark.score(item, text, answerer.convention)
        except Exception as error:  # the contract forbids it, and hours of answers must not be lost to it
            failure = f"the rule of {benchmark.name} raised {type(error).__name__}: {error}"
    return {
        "id": item.id, "category": item.category, "scene": item.scene, "system": item.system, "prompt": item.prompt,
        "reply": text, "failure": failure, "parsed": score.parsed, "score": score.value, "counted": score.counted,
        "outside": score.outside, "truth": _short(item.truth), "frames": reply.frames,
    }  # fmt: skip


def batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Items of one reply limit together, as a batch takes as long as its longest reply; then those of one scene, whose
    video is decoded once; else in their order.
    """
    first: dict[str, int] = {}
    by_scene = sorted(items, key=lambda item: first.setdefault(item.scene, len(first)))
    plan = []
    for limit in dict.fromkeys(item.max_new_tokens for item in by_scene):
        members = [item for item in by_scene if item.max_new_tokens == limit]
        plan += [members[start : start + size] for start in range(0, len(members), size)]
    return plan


def chosen(items: Sequence[Item], limit: int | None) -> list[Item]:
    """All items, or `limit` of them at equal distances. ValueError if there are none, or if two have the same id."""
    seen: set[str] = set()
    if twice := next((item.id for item in items if item.id in seen or seen.add(item.id)), None):  # type: ignore[func-returns-value]
        raise ValueError(f"two items of the benchmark have the id {twice!r}; ids must be unique")
    if not items or (limit is not None and limit < 1):
        raise ValueError(f"a benchmark of {len(items)} items, of which {limit} are asked, has no score")
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def identity(benchmark: Benchmark, items: Sequence[Item], answerer: Answerer) -> dict[str, Any]:
    """What must be the same for lines to belong together. The code's version is in each line, not here.

    Runs of two models can be compared if their `questions` are the same; where the words hold coordinates, which each
    model is asked in its own convention, that is a digest of all but the words.
    """
    return {
        "benchmark": benchmark.name,
        "protocol": benchmark.protocol,
        "items": len(items),
        "digest": _digest(items, words=True),
        "questions": _digest(items, words=not isinstance(benchmark, WritesPlaces)),
        "model": answerer.name,
        "answerer": dict(answerer.describe()),
        "convention": asdict(answerer.convention),
        "batch_size": answerer.batch_size,
    }


def _digest(items: Sequence[Item], words: bool) -> str:
    digest = blake2b(digest_size=8)
    for item in items:
        facts = [item.id, item.category, item.scene, item.frames, item.max_new_tokens]
        facts += [[medium.kind, _content(medium)] for medium in item.media]
        facts += [item.prompt, item.system, item.truth, item.options] if words else []
        digest.update(json.dumps(facts, default=str).encode())
    return digest.hexdigest()


def _content(medium: Media) -> str:
    if isinstance(medium.content, bytes):
        return blake2b(medium.content, digest_size=8).hexdigest()
    return f"{medium.content.name} {medium.content.stat().st_size if medium.content.is_file() else 'missing'}"


def _short(truth: Any) -> Any:
    text = json.dumps(truth, ensure_ascii=False, default=str)
    return json.loads(text) if len(text) <= 2000 else text[:2000] + "…"


def _claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    path = folder / RUN
    if not path.exists():
        put(path, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    there = read_run(folder)
    if differ := [key for key in wanted if there.get(key) != wanted[key]]:
        told = "; ".join(f"{key}: {there.get(key)!r:.120} there, {wanted[key]!r:.120} now" for key in differ)
        raise ValueError(f"{folder}: holds the results of another run ({told}); give another --out, or remove it")


def _done(folder: Path, plan: Sequence[Sequence[Item]], retry_failed: bool) -> set[str]:
    """Items that need no asking: those of whole batches; with `retry_failed`, all that were answered."""
    there = all_lines(folder)
    if retry_failed:
        return {name for name, line in there.items() if line["failure"] is None}
    return {item.id for batch in plan if all(item.id in there for item in batch) for item in batch}


def _gather(folder: Path, items: Sequence[Item]) -> bool:
    """Makes `answers.jsonl` of all parts if nothing is missing, and then removes them."""
    parts = sorted(folder.glob(PARTS))
    there = all_lines(folder)
    if any(item.id not in there for item in items):
        return False
    if parts or not (folder / ANSWERS).exists():
        put(folder / ANSWERS, "".join(json.dumps(there[item.id], ensure_ascii=False) + "\n" for item in items))
    for part in parts:
        with suppress(ValueError), held(part):  # one that is still written to, as when failures are retried, stays
            part.unlink(missing_ok=True)
    return True
