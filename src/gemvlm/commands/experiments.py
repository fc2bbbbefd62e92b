"""Commands that compare trainings: experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from gemvlm.commands import Device

if TYPE_CHECKING:
    from gemvlm.experiments.actions import ActionExperiment
    from gemvlm.experiments.experiment import Experiment
    from gemvlm.experiments.processes import Work
    from gemvlm.experiments.shared import Given

Names = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TASK")]


def experiment(
    name: Annotated[Positional[str], arg(metavar="NAME")],
    *,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    plan: bool = False,
    gpu: Annotated[str | None, arg(metavar="NAME")] = None,
    detect: float = 2.0,
    jobs: int = 1,
    minutes: float | None = None,
    task: Names = (),
    report: bool = False,
    data: Annotated[Path | None, arg(metavar="DIR")] = None,
    start: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PART=PLACE")] = (),
    teacher: str | None = None,
    more_seeds: int = 0,
    device: Device = None,
) -> None:
    """Train the arms of an experiment on several seeds, compare them, and say what can be said.

    Interrupted, the same command goes on; several machines may share OUT and take a --task each. A signal to stop lets
    every training save first.

    Args:
        name: verdict_nano, ablation_nano (every other arm) and actions_nano (policies), both in its OUT, verdict_2b, or
            verdict_debug.
        out: Folder for all of it.
        plan: Say what it would take, and do nothing.
        gpu: The plan is in hours of a GPU of this name.
        detect: The difference, in points, for which the plan says how many seeds are needed.
        jobs: Trainings at once, each a process.
        minutes: Stop after so many, resumable.
        task: Carry out only this one, in this process (again for more).
        report: Write the page of what is finished, and train nothing.
        data: A set of `gemvlm curate` in place of the experiment's own scenes.
        start: Where published parts lie, as in `gemvlm train --start`; by default they are fetched from the hub.
        teacher: Who makes the depth of the arm "teacher": KIND:FOLDER, as in a plan of `gemvlm curate`; the shipped
            model by default.
        more_seeds: So many further seeds for the two arms of the primary gap alone.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.evaluation.answer_files import held
    from gemvlm.experiments import get
    from gemvlm.experiments.processes import carry_all_out, end_with_parent, log_of
    from gemvlm.experiments.shared import TEACHER, Given

    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: at least one training runs at once")
    if report and task:
        raise ValueError("--report trains nothing: leave --task out")
    chosen = _with_more_seeds(get(name), more_seeds)
    known = {found.name: found for found in chosen.tasks()}
    if unknown := sorted(set(task) - set(known)):
        raise ValueError(f"--task {', '.join(unknown)}: no such training; there are {', '.join(known)}")
    steps = _steps(chosen, out, Given(data, start, teacher or TEACHER), device, gpu, detect / 100)
    if plan:
        print(steps.plan())
        return
    if out is None:
        raise ValueError(f"experiment {name}: add --out DIR, the folder of all its runs, or --plan to look first")
    if not report:
        out.mkdir(parents=True, exist_ok=True)
        with held(out / "preparing", wait=True):
            steps.prepare()
    if task:
        end_with_parent()
        for each in task:
            if not steps.carry_out(known[each], minutes):
                print(f"{each}: not finished; the same command goes on")
        return
    failed = []
    if not report:
        print(steps.cost())
        failed = carry_all_out(name, steps.work, out, options=steps.options, jobs=jobs, minutes=minutes)
    print(f"{steps.report()}: {len(steps.work.left())} of {len(known)} trainings are still to do")
    if failed:
        logs = "; ".join(f"{found.name}: {log_of(found, out)}" for found in failed)
        raise ValueError(f"{len(failed)} of {len(known)} trainings failed, and say why in their logs: {logs}")


def _with_more_seeds(chosen: Experiment | ActionExperiment, count: int) -> Experiment | ActionExperiment:
    from gemvlm.experiments.experiment import Experiment

    if not count:
        return chosen
    if count < 0 or not isinstance(chosen, Experiment):
        raise ValueError(f"--more-seeds {count}: a verdict takes a number of them, {chosen.name} none")
    return chosen.with_more_seeds(count)


@dataclass(frozen=True)
class _Steps:
    """What an experiment does, whatever it compares."""

    plan: Callable[[], str]
    cost: Callable[[], str]
    prepare: Callable[[], None]
    carry_out: Callable[[Any, float | None], bool]
    report: Callable[[], Path]
    work: Work[Any]
    options: list[str]


def _steps(
    chosen: Experiment | ActionExperiment,
    out: Path | None,
    given: Given,
    device: str | None,
    gpu: str | None,
    detect: float,
) -> _Steps:
    from gemvlm.experiments.actions import ActionExperiment

    place = out or Path()
    options = given.words() + ([] if device is None else ["--device", device])
    if isinstance(chosen, ActionExperiment):
        from gemvlm.experiments import act, actions_report

        if given.words():
            raise ValueError(
                f"experiment {chosen.name} records its own demonstrations and begins with the arms in --out: leave "
                "--data, --start and --teacher out"
            )
        return _Steps(
            plan=lambda: actions_report.cost(chosen, out),
            cost=lambda: actions_report.cost(chosen, out),
            prepare=lambda: act.prepare(chosen, place),
            carry_out=lambda task, minutes: act.carry_out(task, chosen, place, device, minutes),
            report=lambda: actions_report.write_action_report(chosen, place),
            work=act.work_of(chosen, place),
            options=options,
        )
    from gemvlm.experiments import execute, shared
    from gemvlm.experiments.plan import budget_table, cost, seeds_advice
    from gemvlm.experiments.report import write_report

    def plan() -> str:
        told = [budget_table(chosen, gpu)]
        return "\n".join(told if out is None else [*told, cost(chosen, out), seeds_advice(chosen, out, detect)])

    return _Steps(
        plan=plan,
        cost=lambda: cost(chosen, place),
        prepare=lambda: shared.prepare(chosen, place, given),
        carry_out=lambda task, minutes: execute.carry_out(task, chosen, place, device, minutes, given),
        report=lambda: write_report(chosen, place),
        work=execute.work_of(chosen, place),
        options=options + (["--more-seeds", str(len(chosen.more_seeds))] if chosen.more_seeds else []),
    )
