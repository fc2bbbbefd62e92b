"""Two policies at a real robot, blind: a sheet for the people beside it, a sealed assignment, a rule to stop by.

    sheet.csv     two trials of each pair, same task and same places of the things: success, progress, notes to fill in
    sheet.html    the same to read and print, with what to do
    trial.json    the plan without the assignment, and the sealed file's SHA-256
    sealed.json   which policy plays which trial: for the program that starts them, not for eyes

Each pair is played by both policies, in an order drawn at random; each is first equally often on every task. After each
pair `trial_status` says whether to stop, by the test of `sequential_test`: equal policies are told apart with a
probability of at most 5 %, however often one looks. Progress (0 to 1) is reported beside it and decides nothing.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemvlm.evaluation.answer_files import put
from gemvlm.evaluation.sequential_test import LEVEL, decides, evidence, false_alarm, lasting_interval, power
from gemvlm.evaluation.table import to_markdown
from gemvlm.figure import Report
from gemvlm.statistics import paired_difference

SHEET, PLAN, SEALED = "sheet.csv", "trial.json", "sealed.json"
COLUMNS = ("trial", "pair", "task", "placement", "success", "progress", "notes")
YES, NO = ("1", "yes", "y", "true"), ("0", "no", "n", "false")
LARGEST_SHEET = 4 * 2**20
EXAMPLES = ((0.8, 0.5), (0.8, 0.65), (0.6, 0.4))
"""Success rates for which a plan says how often it tells them apart."""


@dataclass(frozen=True)
class Played:
    """A filled row of the sheet."""

    trial: int
    pair: int
    task: str
    success: bool
    progress: float


@dataclass(frozen=True)
class TrialResult:
    """An opened trial. `outcomes` of each whole pair in order: 1 if A alone succeeded, -1 if B alone, else 0."""

    policies: tuple[str, str]
    pairs: Sequence[tuple[Played, Played]]
    planned: int
    level: float

    @property
    def outcomes(self) -> list[int]:
        return [int(a.success) - int(b.success) for a, b in self.pairs]

    @property
    def stopped_after(self) -> int | None:
        return decides(self.outcomes, self.level)

    @property
    def better(self) -> str | None:
        """Who was ahead when the rule stopped, None if it has not."""
        count = self.stopped_after
        return None if count is None else self.policies[0 if sum(self.outcomes[:count]) > 0 else 1]


def plan_trial(
    policies: tuple[str, str], tasks: Sequence[str], pairs: int, seed: int, out: Path, level: float = LEVEL
) -> Path:
    """Writes the four files; returns the sheet. The seed decides everything, so it is sealed too.

    ValueError for two policies of one name, no tasks, too few pairs, or a folder that holds a trial.
    """
    if policies[0] == policies[1]:
        raise ValueError(f"a trial compares two policies, both are {policies[0]!r}: give two names")
    if not tasks or len(set(tasks)) < len(tasks):
        raise ValueError(
            f"a trial needs tasks, each once, not {list(tasks)}: say what the robot is asked to do (--tasks)"
        )
    if pairs < len(tasks):
        raise ValueError(f"{pairs} pairs for {len(tasks)} tasks: give at least a pair for each")
    if (out / PLAN).exists():
        raise ValueError(f"{out}: holds a trial already; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, zlib.crc32("\n".join([*policies, *tasks]).encode())))
    order = [tasks[i] for block in range(-(-pairs // len(tasks))) for i in rng.permutation(len(tasks))][:pairs]
    first = {task: _balanced(order.count(task), rng) for task in tasks}
    assignment: list[str] = []
    for task in order:
        ahead = first[task].pop()
        assignment += [policies[ahead], policies[1 - ahead]]
    packed = zlib.compress(json.dumps({"seed": seed, "policies": policies, "trials": assignment}).encode())
    sealed = json.dumps({"sealed": base64.b64encode(packed).decode()}) + "\n"
    plan = {
        "policies": sorted(policies), "tasks": list(tasks), "pairs": pairs, "level": level,
        "sealed_sha256": hashlib.sha256(sealed.encode()).hexdigest(),
    }  # fmt: skip
    rows = [(2 * pair + turn + 1, pair + 1, task, pair + 1, "", "", "") for pair, task in enumerate(order)
            for turn in (0, 1)]  # fmt: skip
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *rows])
    put(out / SEALED, sealed)
    put(out / SHEET, buffer.getvalue())
    _page(plan, rows, out)
    put(out / PLAN, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    return out / SHEET


def policy_of(folder: Path, trial: int) -> str:
    """Which policy plays trial number `trial`: for the program that starts it, and shows nobody."""
    names = _unsealed(folder)["trials"]
    if not 1 <= trial <= len(names):
        raise ValueError(f"{folder}: there is no trial {trial}; they count from 1 to {len(names)}")
    return str(names[trial - 1])


def trial_status(folder: Path) -> str:
    """Whether to go on, without telling who is ahead."""
    result = _result(folder)
    whole = f"{len(result.pairs)} of {result.planned} pairs are complete"
    if result.stopped_after is not None:
        return f"Stop: the policies differ ({whole})."
    return f"Stop: all pairs are played ({whole})." if len(result.pairs) == result.planned else f"Go on: {whole}."


def read_trial(folder: Path, unblind: bool = False) -> TrialResult:
    """The filled sheet with the seal broken. ValueError naming row and column for what can't be read.

    Also if the rule says to go on, unless `unblind`: who knows the names is no longer blind.
    """
    result = _result(folder)
    if not unblind and result.stopped_after is None and len(result.pairs) < result.planned:
        raise ValueError(
            f"{folder}: {len(result.pairs)} of {result.planned} pairs are complete and the rule says go on; play them, "
            "or end the trial for good by opening it as it is"
        )
    return result


def trial_report(result: TrialResult) -> str:
    """Markdown: rates with intervals that hold whenever one stopped, the verdict, progress, and each task."""
    a, b = result.policies
    played = {a: [one for one, _ in result.pairs], b: [other for _, other in result.pairs]}
    if not result.pairs:
        return "# Trial\n\nNo pair is complete.\n"
    wins, losses = result.outcomes.count(1), result.outcomes.count(-1)
    rows = []
    for name, trials in played.items():
        rate = lasting_interval(sum(one.success for one in trials), len(trials), result.level)
        progress = float(np.mean([one.progress for one in trials]))
        told = f"{100 * rate.mean:.0f} [{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
        rows.append([name, str(len(trials)), told, f"{progress:.2f}"])
    apart = paired_difference([one.progress for one in played[a]], [one.progress for one in played[b]])
    verdict = (
        f"**{result.better} is better**: the rule stopped after {result.stopped_after} pairs."
        if result.better
        else "No difference seen: the rule did not stop. A smaller one than this many pairs can show may exist."
    )
    by_task = [
        [task, *(f"{sum(one.success for one in of)}/{len(of)}" for of in (
            [one for one in played[name] if one.task == task] for name in (a, b)))]
        for task in dict.fromkeys(one.task for one in played[a])
    ]  # fmt: skip
    confidence = f"{100 * (1 - result.level):g} %"
    lines = [
        f"# {a} and {b}, blind, on the same placements", "",
        *to_markdown((["policy", "trials", f"success, % [{confidence}]", "progress"], rows)), "",
        f"{verdict} {a} alone succeeded in {wins} pairs, {b} alone in {losses}; evidence {evidence(wins, losses):.1f}, "
        f"stops at {1 / result.level:.0f}. Equal policies reach that with a probability of at most "
        f"{100 * result.level:g} % ({100 * false_alarm(result.planned, result.level):.1f} % in {result.planned} pairs "
        "that differ).", "",
        f"Progress of {a} minus {b}: {apart.interval.mean:+.2f} [{apart.interval.low:+.2f}, "
        f"{apart.interval.high:+.2f}], a bootstrap of pairs that takes no account of stopping early.", "",
        *to_markdown((["task", a, b], by_task)), "",
        f"{result.planned - len(result.pairs)} of {result.planned} pairs were not played or are not complete.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _result(folder: Path) -> TrialResult:
    plan, sealed = _plan(folder), _unsealed(folder)
    filled = {row.trial: row for row in _rows(folder, plan, len(sealed["trials"]))}
    a, b = sealed["policies"]
    pairs = []
    for trial in range(1, len(sealed["trials"]), 2):
        if trial in filled and trial + 1 in filled:
            turned = sealed["trials"][trial - 1] == b
            pairs.append((filled[trial + turned], filled[trial + 1 - turned]))
    return TrialResult((a, b), pairs, int(plan["pairs"]), float(plan["level"]))


def _rows(folder: Path, plan: Mapping[str, Any], trials: int) -> list[Played]:
    """Filled rows. What identifies a row must stand as it was printed."""
    path = folder / SHEET
    try:
        if path.stat().st_size > LARGEST_SHEET:
            raise ValueError(f"more than {LARGEST_SHEET} bytes; this is no sheet of ours")
        text = path.read_text(encoding="utf-8-sig")
        separator = ";" if text.partition("\n")[0].count(";") >= len(COLUMNS) - 1 else ","
        rows = list(csv.DictReader(io.StringIO(text), delimiter=separator, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: can't be read ({error})") from error
    if len(rows) != trials or any(set(row) != set(COLUMNS) for row in rows):
        raise ValueError(
            f"{path}: {len(rows)} rows; it must have the {trials} that were printed, with columns {', '.join(COLUMNS)}"
        )
    found = []
    for number, row in enumerate(rows, start=1):
        if row["trial"].strip() != str(number) or row["pair"].strip() != str((number + 1) // 2):
            raise ValueError(
                f"{path}, trial {number}: is numbered {row['trial']} of pair {row['pair']}; keep the order"
            )
        if row["task"] not in plan["tasks"]:
            raise ValueError(f"{path}, trial {number}, task: {row['task']!r} is not of this trial")
        told = row["success"].strip().lower()
        if not told and not row["progress"].strip():
            continue
        if told not in (*YES, *NO):
            raise ValueError(
                f"{path}, trial {number}, success: {row['success']!r}; write 1 or 0, nothing if not played"
            )
        success = told in YES
        progress = _progress(row["progress"], success, f"{path}, trial {number}, progress")
        found.append(Played(number, (number + 1) // 2, row["task"], success, progress))
    return found


def _progress(text: str, success: bool, where: str) -> float:
    told = text.strip().replace(",", ".")
    if not told and success:
        return 1.0
    try:
        value = float(told)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1 or (success and value < 1):
        raise ValueError(
            f"{where}: {text!r}; write how much of the task was done, 0 to 1 (1 or nothing after a success)"
        )
    return value


def _plan(folder: Path) -> dict[str, Any]:
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        if not {"policies", "tasks", "pairs", "level", "sealed_sha256"} <= set(plan):
            raise ValueError("something is missing in it")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder}: no trial here ({PLAN}: {error})") from error
    return dict(plan)


def _unsealed(folder: Path) -> dict[str, Any]:
    """ValueError if the file is not the one that the plan was printed with."""
    try:
        data = (folder / SEALED).read_bytes()
    except OSError as error:
        raise ValueError(f"{folder}: the assignment is missing ({error})") from error
    if hashlib.sha256(data).hexdigest() != _plan(folder)["sealed_sha256"]:
        raise ValueError(f"{folder / SEALED}: was changed after the trial was planned; plan a new one")
    return dict(json.loads(zlib.decompress(base64.b64decode(json.loads(data)["sealed"]))))


def _balanced(count: int, rng: np.random.Generator) -> list[int]:
    """Who goes first: each equally often, an odd one by lot, in random order."""
    ones = [0, 1] * (count // 2) + ([int(rng.integers(2))] if count % 2 else [])
    return [ones[i] for i in rng.permutation(count)]


def _page(plan: Mapping[str, Any], rows: Sequence[Sequence[object]], out: Path) -> None:
    pairs, level = int(plan["pairs"]), float(plan["level"])
    report = Report("Blind trial of two policies", f"{pairs} pairs on {len(plan['tasks'])} tasks")
    report.text(
        "- Play the trials in this order. Both of a pair have the same task and the same places of the things: mark "
        "the places, or take a photograph.\n"
        "- Start trial N by its number; who plays it is sealed. Do not look for it, and do not change a judgement.\n"
        "- success: 1 or 0, by a rule that was written down before. progress: the share of the task that was done, 0 "
        "to 1, after a failure.\n"
        "- If something outside of the policies went wrong, leave both rows of the pair empty and say why in the "
        "notes; such pairs are counted as not played.\n"
        f"- After each pair ask for the status: it says stop or go on. Equal policies are told apart with a "
        f"probability of at most {100 * level:g} %."
    )
    expected = [(better, worse, power(better, worse, pairs, level)) for better, worse in EXAMPLES]
    report.table(
        ["success rates", "told apart", "typically after"],
        [[f"{100 * a:.0f} % and {100 * b:.0f} %", f"{100 * found.decided:.0f} %",
          f"{found.typical_pairs:.0f} pairs"] for a, b, found in expected],
        "What this many pairs can show, by simulation.",
    )  # fmt: skip
    report.heading("Sheet")
    report.table(COLUMNS, rows, f"Fill in {SHEET}, or write here and copy.")
    report.details("Plan", json.dumps(dict(plan), indent=1, ensure_ascii=False))
    report.write(out / "sheet.html")
