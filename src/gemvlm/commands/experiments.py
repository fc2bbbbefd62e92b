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
    out: Path,
    plan: bool = False,
    jobs: int = 1,
    minutes: float | None = None,
    task: Names = (),
    report: bool = False,
    device: Device = None,
) -> None:
    """Train the arms of an experiment on several seeds, compare them, and say what can be said.

    Interrupted, the same command goes on; several machines may share OUT and take a --task each.

    Args:
        name: An experiment of gemvlm.experiments: verdict_nano, verdict_debug.
        out: Folder for all of it.
        plan: Say what it would take, and do nothing.
        jobs: Trainings at once, each a process.
        minutes: Stop after so many, resumable.
        task: Carry out only this one, in this process (again for more).
        report: Write the page of what is finished, and train nothing.
        device: cpu, cuda or mps; the best there is by default.
    """
    from gemvlm.experiments import get
    from gemvlm.experiments.execute import carry_all_out, carry_out, cost, is_done, prepare
    from gemvlm.experiments.report import write_report

    chosen = get(name)
    tasks = {found.name: found for found in chosen.tasks()}
    unknown = sorted(set(task) - set(tasks))
    if unknown:
        raise ValueError(f"--task {', '.join(unknown)}: no such training; there are {', '.join(tasks)}")
    if plan or not (task or report):
        print(cost(chosen, out))
    if plan:
        return
    if task:
        prepare(chosen, out)
        for name in task:
            if not carry_out(tasks[name], chosen, out, device, minutes):
                print(f"{name}: not finished; the same command goes on")
        return
    if not report:
        carry_all_out(chosen, out, jobs=jobs, minutes=minutes, device=device)
    left = [found for found in tasks.values() if not is_done(found, chosen, out)]
    print(f"{write_report(chosen, out)}: {len(left)} of {len(tasks)} trainings are still to do")
