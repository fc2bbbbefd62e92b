"""The process that looks after an experiment's trainings: a signal reaches them all, and a failure is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gemvlm.__main__ import main
from gemvlm.experiments import get, processes, shared
from gemvlm.experiments.execute import work_of
from gemvlm.experiments.experiment import Task
from gemvlm.experiments.shared import Given
from gemvlm.training.signals import Stopped, StopRequest

EXPERIMENT = get("verdict_debug")
TRAINS = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(number, frame):
    time.sleep(0.2)
    (folder / "saved").write_text(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, signal.SIG_IGN)
(folder / "draft").write_text(str(os.getpid()))
(folder / "draft").rename(folder / "pid")
time.sleep(60)
"""
FAILS = "import sys; print('no such weights'); sys.exit(3)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_every_training_save_and_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(processes, "PAUSE_S", 0.05)
    places = [Task(None, seed).folder(tmp_path) for seed in (0, 1)]

    def stop_when_both_run() -> None:
        for _ in range(600):
            if all((place / "pid").is_file() for place in places):
                break
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    with StopRequest() as stop:
        telling = threading.Thread(target=stop_when_both_run)
        telling.start()
        with pytest.raises(Stopped) as ended:
            processes.look_after(
                work_of(EXPERIMENT, tmp_path),
                tmp_path,
                lambda task, left: [sys.executable, "-c", TRAINS, str(task.folder(tmp_path))],
                jobs=2,
                minutes=None,
                stop=stop,
            )
        telling.join()
    assert ended.value.code == 128 + number
    for place in places:
        assert (place / "saved").read_text() == str(int(signal.SIGTERM))
        with pytest.raises(ProcessLookupError):
            os.kill(int((place / "pid").read_text()), 0)


PARENT = """
import pathlib, sys
from gemvlm.experiments import get, processes
from gemvlm.experiments.execute import work_of
from gemvlm.training.signals import StopRequest
out, child = pathlib.Path(sys.argv[1]), sys.argv[2]
with StopRequest() as stop:
    words = lambda task, left: [sys.executable, "-c", child, str(task.folder(out))]
    processes.look_after(work_of(get("verdict_debug"), out), out, words, 2, None, stop)
"""


def test_a_killed_parent_leaves_no_training_behind(tmp_path: Path) -> None:
    ends = "from gemvlm.experiments.processes import end_with_parent\nend_with_parent()\n"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), ends + TRAINS])
    places = [Task(None, seed).folder(tmp_path) for seed in (0, 1)]
    try:
        assert _within(60, lambda: all((place / "pid").is_file() for place in places))
    finally:
        parent.kill()
        parent.wait()
    assert _within(30, lambda: all((place / "saved").is_file() for place in places))
    assert _within(10, lambda: not any(_runs(int((place / "pid").read_text())) for place in places))


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_failed_task_is_returned_with_its_log_and_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PAUSE_S", 0.05)
    with StopRequest() as stop:
        failed = processes.look_after(
            work_of(EXPERIMENT, tmp_path),
            tmp_path,
            lambda task, left: [sys.executable, "-c", FAILS],
            jobs=1,
            minutes=None,
            stop=stop,
        )
    assert failed == [Task(None, 0), Task(None, 1)]  # what stands on them was never ready
    assert [processes.log_of(task, tmp_path).read_text() for task in failed] == ["no such weights\n"] * 2


def test_the_command_ends_with_the_logs_of_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []

    def pretend(name, work, out, *, options: list[str], **_):
        seen.append(options)
        return [Task("depth", 1)]

    monkeypatch.setattr(processes, "carry_all_out", pretend)
    monkeypatch.setattr(shared, "prepare", lambda *_: None)
    words = ["experiment", "verdict_debug", "--out", str(tmp_path), "--data", "sets/mine", "--more-seeds", "1"]
    assert main(words) == 2
    told = capsys.readouterr()
    assert "1 of 13 trainings failed" in told.err and str(tmp_path / "seed-1" / "depth" / "log.txt") in told.err
    assert (tmp_path / "report.html").is_file()
    assert seen == [["--data", "sets/mine", "--more-seeds", "1"]]
    assert Given(start=("qwen=a", "sana=b")).words() == ["--start", "qwen=a", "--start", "sana=b"]
    assert Given(teacher="gem:mine").words() == ["--teacher", "gem:mine"]
    assert main(["experiment", "actions_nano", "--more-seeds", "2", "--plan"]) == 2
    assert "--more-seeds 2: a verdict takes a number of them" in capsys.readouterr().err


def test_no_folder_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "verdict_debug"]) == 2
    assert "add --out DIR" in capsys.readouterr().err
