"""A run, killed and gone on with, by one process or several, is the unbroken run; nothing is asked twice or lost."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_benchmark import ToyBenchmark

from gemvlm.evaluation.answer_files import read_answers, read_run
from gemvlm.evaluation.answerers import Baseline, Reply
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item, Score
from gemvlm.evaluation.headline import find_headline
from gemvlm.evaluation.runner import Share, batches, chosen, run_benchmark

HERE = Path(__file__).parent


class Counting:
    """Says A, fails where it is told to, and remembers what it was asked."""

    name, convention, batch_size = "counting", Convention(), 3

    def __init__(self, failing: Sequence[str] = (), stop_after: int | None = None) -> None:
        self.failing, self.stop_after = failing, stop_after
        self.asked: list[list[str]] = []

    def describe(self) -> Mapping[str, Any]:
        return {"kind": "counting"}

    def meet(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        pass

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked.append([item.id for item in items])
        return [Reply(failure="it is told to") if item.id in self.failing else Reply("A") for item in items]


def asked(*answerers: Counting) -> list[str]:
    return sorted(name for answerer in answerers for batch in answerer.asked for name in batch)


def plain(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "versions")}
        for line in read_answers(folder)
    ]


def test_every_item_has_one_line_in_order_with_all_that_is_needed(tmp_path: Path) -> None:
    benchmark, counting = ToyBenchmark(), Counting()
    items = benchmark.items()
    seen: list[tuple[int, int]] = []
    assert run_benchmark(benchmark, items, counting, tmp_path, progress=lambda *done: seen.append(done))
    lines = read_answers(tmp_path)
    assert [line["id"] for line in lines] == [item.id for item in items]
    assert [line["prompt"] for line in lines] == [item.prompt for item in items]
    first = lines[0]
    assert (first["reply"], first["parsed"], first["failure"], first["protocol"]) == ("A", "A", None, "official")
    assert first["score"] == float(items[0].truth == "A")
    assert {"seconds", "versions", "model", "benchmark", "truth", "counted", "outside", "scene"} <= set(first)
    assert seen[-1] == (12, 12)
    assert not list(tmp_path.glob("answers-*"))
    assert run_benchmark(benchmark, items, counting, tmp_path)
    assert len(counting.asked) == 4, "nothing is asked twice"


def test_a_run_that_stopped_goes_on(tmp_path: Path) -> None:
    benchmark = ToyBenchmark()
    items = benchmark.items()
    run_benchmark(benchmark, items, Counting(), tmp_path / "whole")
    broken = Counting(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, items, broken, tmp_path / "broken")
    with pytest.raises(ValueError, match="was not finished"):
        read_answers(tmp_path / "broken")
    again = Counting()
    assert run_benchmark(benchmark, items, again, tmp_path / "broken")
    assert plain(tmp_path / "broken") == plain(tmp_path / "whole")
    assert asked(broken, again) == sorted(item.id for item in items)


def test_a_batch_that_a_kill_tore_is_asked_again_whole(tmp_path: Path) -> None:
    benchmark = ToyBenchmark()
    items = benchmark.items()
    run_benchmark(benchmark, items, Counting(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, items, Counting(stop_after=2), tmp_path / "torn")
    part = tmp_path / "torn" / "answers-0-of-1.jsonl"
    content = part.read_bytes()
    part.write_bytes(content[: len(content) - 30])
    again = Counting()
    assert run_benchmark(benchmark, items, again, tmp_path / "torn")
    plan = [[item.id for item in batch] for batch in batches(items, 3)]
    assert again.asked == plan[1:]
    assert plain(tmp_path / "torn") == plain(tmp_path / "whole")


@pytest.mark.parametrize("world", [2, 3, 5])
def test_any_number_of_processes_makes_the_same_file(tmp_path: Path, world: int) -> None:
    benchmark = ToyBenchmark()
    items = benchmark.items()
    run_benchmark(benchmark, items, Counting(), tmp_path / "one")
    answerers = [Counting() for _ in range(world)]
    finished = [
        run_benchmark(benchmark, items, answerer, tmp_path / "many", share=Share(rank, world))
        for rank, answerer in enumerate(answerers)
    ]
    assert finished[-1]
    assert not any(finished[: min(world, 4) - 1])
    assert plain(tmp_path / "many") == plain(tmp_path / "one")
    assert asked(*answerers) == sorted(item.id for item in items)


def test_another_number_of_processes_may_finish_what_some_began(tmp_path: Path) -> None:
    benchmark = ToyBenchmark()
    items = benchmark.items()
    first, second = Counting(), Counting()
    assert not run_benchmark(benchmark, items, first, tmp_path, share=Share(1, 3))
    assert run_benchmark(benchmark, items, second, tmp_path)
    assert asked(first, second) == sorted(item.id for item in items)
    with pytest.raises(ValueError, match="count from 0"):
        Share(2, 2)


def test_failures_stay_in_the_denominator_and_can_be_tried_again(tmp_path: Path) -> None:
    benchmark = ToyBenchmark()
    items = benchmark.items()
    run_benchmark(benchmark, items, Counting(failing=["0-side", "1-point"]), tmp_path)
    lines = {line["id"]: line for line in read_answers(tmp_path)}
    assert len(lines) == 12
    failed = lines["0-side"]
    assert (failed["failure"], failed["score"], failed["parsed"], failed["counted"]) == (
        "it is told to",
        0.0,
        None,
        True,
    )
    again = Counting(failing=["1-point"])
    assert run_benchmark(benchmark, items, again, tmp_path, retry_failed=True)
    assert asked(again) == ["0-side", "1-point"]
    lines = {line["id"]: line for line in read_answers(tmp_path)}
    assert lines["0-side"]["failure"] is None
    assert lines["1-point"]["failure"] == "it is told to"


def test_a_rule_that_raises_costs_one_item(tmp_path: Path) -> None:
    class Broken(ToyBenchmark):
        def score(self, item: Item, reply: str, convention: Convention) -> Score:
            if item.id == "2-side":
                raise ZeroDivisionError("truth is 0")
            return super().score(item, reply, convention)

    benchmark = Broken()
    assert run_benchmark(benchmark, benchmark.items(), Counting(), tmp_path)
    (failed,) = (line for line in read_answers(tmp_path) if line["failure"])
    assert (failed["id"], failed["failure"]) == ("2-side", "the rule of toy raised ZeroDivisionError: truth is 0")


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    benchmark = ToyBenchmark()
    run_benchmark(benchmark, benchmark.items(), Counting(), tmp_path)
    assert read_run(tmp_path)["answerer"] == {"kind": "counting"}
    with pytest.raises(ValueError, match=r"another run.*items: 12 there, 14 now"):
        run_benchmark(ToyBenchmark(7), ToyBenchmark(7).items(), Counting(), tmp_path)
    with pytest.raises(ValueError, match=r"another run.*answerer"):
        run_benchmark(benchmark, benchmark.items(), Baseline("oracle"), tmp_path)
    with pytest.raises(ValueError, match=r"run\.json"):
        read_run(tmp_path / "elsewhere")


def test_two_processes_do_not_do_the_same_share(tmp_path: Path) -> None:
    benchmark = ToyBenchmark()

    class Nested(Counting):
        def answer(self, items: Sequence[Item]) -> list[Reply]:
            run_benchmark(benchmark, benchmark.items(), Counting(), tmp_path)
            return []

    with pytest.raises(ValueError, match="another process"):
        run_benchmark(benchmark, benchmark.items(), Nested(), tmp_path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    benchmark = ToyBenchmark()
    run_benchmark(benchmark, benchmark.items(), Counting(), tmp_path)
    path = tmp_path / "answers.jsonl"
    lines = path.read_text().splitlines()
    for damage in ("{", "[]", '{"id": "x"}'):
        path.write_text("\n".join([lines[0], damage, *lines[2:]]) + "\n")
        with pytest.raises(ValueError, match="line 2"):
            read_answers(tmp_path)


def test_a_few_of_the_items_are_spread_over_all() -> None:
    items = ToyBenchmark(10).items()
    assert [item.id for item in chosen(items, 4)] == ["0-side", "2-point", "5-side", "7-point"]
    assert chosen(items, 1000) == list(items)
    assert len(chosen(items, None)) == 20
    with pytest.raises(ValueError, match="id '0-side'"):
        chosen([*items, items[0]], None)
    for few, limit in ((items, 0), ([], None)):
        with pytest.raises(ValueError, match="has no score"):
            chosen(few, limit)


SLOW = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_runner import Counting
from toy_benchmark import ToyBenchmark
from gemvlm.evaluation.runner import run_benchmark
class Slow(Counting):
    def answer(self, items):
        time.sleep(0.05)
        return super().answer(items)
run_benchmark(ToyBenchmark(20), ToyBenchmark(20).items(), Slow(), Path(sys.argv[1]))
"""


def test_killed_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    benchmark = ToyBenchmark(20)
    run_benchmark(benchmark, benchmark.items(), Counting(), tmp_path / "whole")
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder), str(HERE)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    part = folder / "answers-0-of-1.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (part.exists() and part.read_bytes().count(b"\n") >= 9):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {json.loads(line)["id"] for line in part.read_text().split("\n")[:-1]}
    assert 9 <= len(before) < 40
    again = Counting()
    assert run_benchmark(benchmark, benchmark.items(), again, folder)
    assert plain(folder) == plain(tmp_path / "whole")
    assert not before & set(asked(again))


def test_a_headline_is_found_by_asking_for_it() -> None:
    benchmark = ToyBenchmark(4)
    items = benchmark.items()
    scores = [Score(0.0, None)] * len(items)
    headline = find_headline(benchmark, items, scores)
    assert headline is not None
    assert headline.weights.tolist() == [0.5, 0.5]

    class Uneven(ToyBenchmark):
        """The mean of scene 0 and of all others, whatever their category."""

        def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
            first = [score.value for item, score in zip(items, scores, strict=True) if item.scene == "s0"]
            others = [score.value for item, score in zip(items, scores, strict=True) if item.scene != "s0"]
            return {"overall": (sum(first) / len(first) + sum(others) / len(others)) / 2}

    headline = find_headline(Uneven(4), items, scores)
    assert headline is not None
    assert headline.weights == pytest.approx([1 / 4] * 2 + [1 / 12] * 6)

    class BySource(ToyBenchmark):
        """The mean of two sources, which are in no category's name."""

        def items(self) -> Sequence[Item]:
            return [dataclasses.replace(item, meta={"source": "01"[item.scene == "s0"]}) for item in super().items()]

        def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
            named = [dataclasses.replace(item, category=item.meta["source"]) for item in items]
            return super().summary(named, scores)

    headline = find_headline(BySource(4), BySource(4).items(), scores)
    assert headline is not None
    assert sorted(headline.weights) == pytest.approx([0.25] * 4), "by category and source, not item by item"

    class Best(ToyBenchmark):
        def summary(self, items: Sequence[Item], scores: Sequence[Score]) -> dict[str, float]:
            return {"overall": max(score.value for score in scores)}

    assert find_headline(Best(4), items, scores) is None
