"""Work that paints has turns, so that nobody waits for a whole batch of it."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")

from gemvlm.serving.engine import PASSES_A_TURN, _in_turns
from gemvlm.serving.queue import Job


@pytest.mark.parametrize(("steps", "ensemble", "guidance", "sizes"), [(30, 1, 1.0, [5]), (60, 1, 2.0, [2, 2, 1])])
def test_a_batch_is_painted_in_turns(steps: int, ensemble: int, guidance: float, sizes: list[int]) -> None:
    asked: list[list[str]] = []

    def method(payloads: list[str], **_: object) -> list[str]:
        asked.append(payloads)
        return [f"depth of {payload}" for payload in payloads]

    jobs = [Job("key", str(number)) for number in range(5)]
    settings = {"steps": steps, "ensemble": ensemble, "guidance": guidance}
    turns = list(_in_turns(method, jobs, settings))
    assert [len(part) for part in asked] == sizes and len(turns) == len(sizes)
    assert [job.future.result() for job in jobs] == [f"depth of {number}" for number in range(5)]


def test_who_has_gone_is_not_painted_for() -> None:
    asked: list[str] = []

    def method(payloads: list[str], **_: object) -> list[str]:
        asked.extend(payloads)
        return payloads

    jobs = [Job("key", name) for name in ("a", "b", "c")]
    turns = _in_turns(method, jobs, {"steps": PASSES_A_TURN})
    next(turns)
    jobs[1].future.cancel()
    list(turns)
    assert asked == ["a", "c"]
