"""Engines: results in order, bounded work ahead, dead workers named, errors of the work raised as they are."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gemvlm.curation.engine import AHEAD, Engine, engine_of

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Worker processes are given this process's path, so that they find the work by its name."""
    sys.path.insert(0, HERE)
    yield
    sys.path.remove(HERE)


@pytest.fixture(scope="module", params=[1, 2])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with engine_of("local", request.param) as opened:
        yield opened


def test_results_come_in_the_order_of_the_tasks(engine: Engine) -> None:
    from engine_work import work

    assert list(engine.run(work, range(40))) == list(range(40))
    assert list(engine.run(work, [])) == []


def test_a_reader_may_stop_early_and_ask_again(engine: Engine) -> None:
    from engine_work import work

    for first in engine.run(work, range(1000)):
        if first == 3:
            break
    assert list(engine.run(work, ["a", "b", "c"])) == ["a", "b", "c"]


def test_errors_of_the_work_are_raised_and_the_engine_lives_on(engine: Engine) -> None:
    from engine_work import work

    with pytest.raises(ValueError, match="bad thing"):
        list(engine.run(work, [1, 2, "bad", 4, 5]))
    assert list(engine.run(work, range(10))) == list(range(10))


def test_no_more_is_made_ahead_than_may_wait(tmp_path: Path) -> None:
    from engine_work import noted

    with engine_of("local", 2) as engine:
        results = engine.run(partial(noted, tmp_path), range(1000))
        assert next(results) == 0
        assert len(list(tmp_path.iterdir())) <= 2 * AHEAD + 1
        results.close()


def test_a_worker_that_dies_is_named_with_its_task() -> None:
    from engine_work import work

    with (
        engine_of("local", 2) as engine,
        pytest.raises(ChildProcessError, match=r"made die died \(killed by SIGKILL\)"),
    ):
        list(engine.run(work, [1, "die", 3]))


def test_engines_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValueError, match="0 processes"):
        engine_of("local", 0)
    with pytest.raises(ValueError, match="add --engine ray"):
        engine_of("local", 1, "ray://there")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra `curate`)")
def test_ray_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine_work import work

    monkeypatch.setenv("PYTHONPATH", HERE + ":" + str(Path(__file__).parents[2] / "src"))
    with engine_of("ray", 2) as engine:
        assert list(engine.run(work, range(20))) == list(range(20))
        with pytest.raises(ValueError, match="bad thing"):
            list(engine.run(work, [1, "bad", 3]))
        with pytest.raises(ChildProcessError, match="Ray gave up"):
            list(engine.run(work, [1, "die", 3]))
