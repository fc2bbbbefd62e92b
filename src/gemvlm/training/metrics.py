"""Named losses and rates of a run: JSON lines that anything can read, TensorBoard, and trackers that are asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gemvlm.batch import Batch
from gemvlm.training.checkpoint import RunState
from gemvlm.training.stage import Stage
from gemvlm.training.step import Outcome


@runtime_checkable
class Tracker(Protocol):
    """Where the numbers of a run are sent as well."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricsLog:
    """Appends one JSON line per logged step to `metrics.jsonl`, and the same numbers to TensorBoard and `trackers`.

    On resume, lines after the resumed step are dropped, so the file never holds a step twice. A tracker is one of
    `TRACKERS` by its name; ImportError says what to install. Nothing but numbers is sent to it: no paths, no keys.
    """

    def __init__(self, folder: Path, resumed_step: int = 0, trackers: Sequence[str] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._trackers = [open_tracker(name, folder) for name in trackers]
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= resumed_step]
        draft = self.path.with_suffix(".draft")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        draft.replace(self.path)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.write(step, values)

    def close(self) -> None:
        self._file.close()
        self._board.close()
        for tracker in self._trackers:
            tracker.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The logged lines in order; an incomplete last line (a killed run) is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


class Speedometer:
    """What one process gets through: samples, images and tokens per second, and how much of its device it uses.

    `operations` counts the useful ones of a batch, forward and backward (`budget.py`), `peak` is what the device could
    do in a second (`gpus.peak_of`).
    """

    def __init__(self, operations: Callable[[Batch], float] | None = None, peak: float = 0.0) -> None:
        self._operations, self._peak = operations, peak
        self._restart()

    def add(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._samples += len(batch.sample_ids)
            self._images += len(batch.image_grid_thw)
            self._tokens += len(batch.input_ids)
            self._work += self._operations(batch) if self._operations else 0.0

    def rates(self, processes: int = 1) -> dict[str, float]:
        """Since the last call, of as many processes alike; `utilisation` is a share of one device's peak."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        found = {
            "samples_per_s": processes * self._samples / seconds,
            "images_per_s": processes * self._images / seconds,
            "tokens_per_s": processes * self._tokens / seconds,
        }
        if self._operations:
            found["operations_per_sample"] = self._work / max(self._samples, 1)
        if self._operations and self._peak:
            found["utilisation"] = self._work / seconds / self._peak
        self._restart()
        return found

    def _restart(self) -> None:
        self._samples = self._images = self._tokens = 0
        self._work = 0.0
        self._since = time.perf_counter()


class _Wandb:
    """Weights & Biases; its own environment variables say which project and which key."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self._run: Any = wandb.init(project="gemvlm", name=folder.name, dir=str(folder), resume="allow", id=_id(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """Hugging Face's trackio, which keeps its numbers on this machine unless it is told otherwise."""

    def __init__(self, folder: Path) -> None:
        import trackio

        self._run: Any = trackio.init(project="gemvlm", name=folder.name, resume="allow")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"wandb": _Wandb, "trackio": _Trackio}


def open_tracker(name: str, folder: Path) -> Tracker:
    """ValueError for a name that is unknown, ImportError with the command that installs one that is missing."""
    if name not in TRACKERS:
        raise ValueError(f"unknown tracker {name!r}; there are {', '.join(TRACKERS)}")
    try:
        return TRACKERS[name](folder)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"tracker {name} is not installed; pip install {name}, or leave --track {name} out") from None


def _id(folder: Path) -> str:
    """The same for a run that goes on, so that its curve does."""
    from hashlib import blake2b

    return blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()


def rates(stage: Stage, state: RunState) -> dict[str, float]:
    """The learning rates of the step just done."""
    factor = stage.schedule.factor(state.stage_step - 1, stage.steps)
    each = {f"learning_rate/{group}": peak * factor for group, peak in stage.learning_rates.items()}
    return {"lr_factor": factor} | each


def named(outcome: Outcome) -> dict[str, float]:
    """The losses and norms of a step."""
    losses = {f"loss/{name}": value for name, value in outcome.losses.items()}
    return losses | {f"grad_norm/{name}": value for name, value in outcome.norms.items()}


class Meter:
    """Losses and norms since the last logged step."""

    def __init__(self, totals: Mapping[str, tuple[float, int]] | None = None) -> None:
        self._totals = dict(totals or {})

    def add(self, outcome: Outcome) -> None:
        for name, value in named(outcome).items():
            total, count = self._totals.get(name, (0.0, 0))
            self._totals[name] = (total + value, count + 1)

    def totals(self) -> dict[str, tuple[float, int]]:
        """(sum, count) of each number: what a resumed run begins with."""
        return dict(self._totals)

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self._totals.items()}


class StepBar:
    """A progress bar with the current losses, or nothing."""

    def __init__(self, stage: Stage, done: int, show: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            disable=not show,
        )
        self.task = self.bar.add_task(stage.name, total=stage.steps, completed=done, losses="")

    def __enter__(self) -> Callable[[int, Mapping[str, float]], None]:
        self.bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def _advance(self, step: int, values: Mapping[str, float]) -> None:
        losses = "  ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in values.items() if k.startswith("loss/"))
        self.bar.update(self.task, completed=step, losses=losses)
