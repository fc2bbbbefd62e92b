"""Commands that compare trainings: experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from gemvlm.commands import Device

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
    device: Device = None,
) -> None:
    """Train the arms of an experiment on several seeds, compare them, and say what can be said.

    Interrupted, the same command goes on; several machines may share OUT and take a --task each. A signal to stop lets
    every training save first.

    Args:
        name: An experiment of gemvlm.experiments: verdict_nano, verdict_2b, verdict_debug.
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
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.experiments import get
    from gemvlm.experiments.plan import budget_table, cost, seeds_advice

    chosen = get(name)
    tasks = {found.name: found for found in chosen.tasks()}
    unknown = sorted(set(task) - set(tasks))
    if unknown:
        raise ValueError(f"--task {', '.join(unknown)}: no such training; there are {', '.join(tasks)}")
    if plan:
        print(budget_table(chosen, gpu))
        if out is not None:
            print(cost(chosen, out))
            print(seeds_advice(chosen, out, detect / 100))
        return
    if out is None:
        raise ValueError(f"experiment {name}: add --out DIR, the folder of all its runs, or --plan to look first")
    from gemvlm.experiments.execute import Given, carry_out, is_finished, prepare
    from gemvlm.experiments.processes import carry_all_out, log_of
    from gemvlm.experiments.report import write_report

    given = Given(data, start)
    if task:
        prepare(chosen, out, given)
        for each in task:
            if not carry_out(tasks[each], chosen, out, device, minutes, given):
                print(f"{each}: not finished; the same command goes on")
        return
    failed = []
    if not report:
        print(cost(chosen, out))
        failed = carry_all_out(chosen, out, jobs=jobs, minutes=minutes, device=device, given=given)
    left = [found for found in tasks.values() if not is_finished(found, chosen, out)]
    print(f"{write_report(chosen, out)}: {len(left)} of {len(tasks)} trainings are still to do")
    if failed:
        logs = "; ".join(f"{found.name}: {log_of(found, out)}" for found in failed)
        raise ValueError(f"{len(failed)} of {len(tasks)} trainings failed, and say why in their logs: {logs}")
