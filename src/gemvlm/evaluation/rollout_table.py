"""Finished rollouts as tables and a page: success with intervals, beside the blind policies, compared start by start.

Two intervals, since two things scatter: other starts of the same tasks, and other tasks. A rate of so many tries at one
task has Wilson's interval, the mean over tasks one made of those, and over other tasks a bootstrap of both. Players are
compared on the same starts, with the p-values corrected for all that were asked (Holm).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int64

from gemvlm.evaluation.answer_files import put
from gemvlm.evaluation.gaps import Gap, corrected
from gemvlm.evaluation.headline import OVERALL
from gemvlm.evaluation.rollout.episode import EPISODES, LOST, TIMEOUT, Episode, read_lines, read_run
from gemvlm.evaluation.table import Table, gap_table, to_markdown
from gemvlm.figure import Report
from gemvlm.figure.report import Score as Bar
from gemvlm.statistics import (
    Interval,
    grouped_difference,
    less_certain,
    mean_interval,
    minimum_detectable_difference,
    paired_difference,
    proportion_interval,
    sign_test,
)

FEWEST_TASKS = 5
"""Of fewer nothing can be said about other tasks."""
MOST_VIDEOS = 12
"""On a page, which carries them inside itself."""
SAME = ("protocol", "contract", "world", "libraries")
"""What two runs must share to be compared."""


@dataclass(frozen=True, eq=False)
class Rollouts:
    """A finished run: who played what, and how each episode went."""

    folder: Path
    run: Mapping[str, Any]
    episodes: Sequence[Episode]

    @classmethod
    def read(cls, folder: Path) -> Rollouts:
        """ValueError if the run is not finished, or if its lines are not those of its protocol."""
        run, episodes = read_run(folder), read_lines(folder / EPISODES)
        told = run["protocol"]
        planned = len(told["tasks"]) * len(told["starts"]) * len(told["seeds"])
        if len(episodes) != planned or len({one.id for one in episodes}) != planned:
            raise ValueError(
                f"{folder}: {len(episodes)} of {planned} episodes were played; start the run again to go on"
            )
        return cls(folder, run, episodes)

    @property
    def player(self) -> str:
        return str(self.run["player"])

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(one.task for one in self.episodes))

    @property
    def values(self) -> Float[np.ndarray, "N"]:
        """1 for a success."""
        return np.array([one.success for one in self.episodes], np.float64)

    @property
    def groups(self) -> Int64[np.ndarray, "N"]:
        """The number of each episode's task."""
        number = {name: index for index, name in enumerate(self.tasks)}
        return np.array([number[one.task] for one in self.episodes], np.int64)

    @property
    def weights(self) -> Float[np.ndarray, "G"]:
        """Of each task: tasks of a suite count alike, and so do suites."""
        suite = {task["name"]: task["group"] for task in self.run["protocol"]["tasks"]}
        size = Counter(suite[name] for name in self.tasks)
        return np.array([1 / size[suite[name]] / len(size) for name in self.tasks])

    @property
    def starts(self) -> list[str]:
        return [f"{one.task}/{one.start}" for one in self.episodes]

    def success(self, over: Literal["starts", "tasks"] = "starts") -> Interval:
        """The mean over tasks. Over other tasks it has no ends (NaN) where there are too few to tell.

        Over starts the distances to the ends of the tasks' own intervals add up as deviations do (Zou and Donner,
        2008), so that a task without any success, or failure, is not taken for certain as a bootstrap would.
        """
        rates, weights = [self.of_task(task) for task in self.tasks], self.weights
        mean, count = float(weights @ [rate.mean for rate in rates]), len(self.episodes)
        if over == "starts":
            below = math.hypot(*(weights * [rate.mean - rate.low for rate in rates]))
            above = math.hypot(*(weights * [rate.high - rate.mean for rate in rates]))
            return Interval(mean, mean - below, mean + above, count)
        if len(self.tasks) < FEWEST_TASKS:
            return Interval(mean, math.nan, math.nan, count)
        low, high = np.quantile(self._other_tasks(), [0.025, 0.975])
        return less_certain(Interval(mean, float(low), float(high), count), len(self.tasks))

    def _other_tasks(self, resamples: int = 2000, seed: int = 0) -> Float[np.ndarray, "R"]:
        """Means as other tasks of each suite, and other starts of those, would have given (a bootstrap of both)."""
        rng = np.random.default_rng(seed)
        starts, weights = len(self.run["protocol"]["starts"]), self.weights
        rates = self.values.reshape(len(self.tasks), starts, -1).mean(axis=2)
        suites = [task["group"] for task in self.run["protocol"]["tasks"]]
        found = np.zeros(resamples)
        for suite in dict.fromkeys(suites):
            members = np.array([index for index, name in enumerate(suites) if name == suite])
            for _ in members:
                drawn = rng.choice(members, resamples)
                of_starts = rates[drawn[:, None], rng.integers(0, starts, (resamples, starts))]
                found += weights[members[0]] * of_starts.mean(axis=1)
        return found

    def of_task(self, task: str) -> Interval:
        """Wilson's interval; where each start was played with several seeds, a bootstrap of starts."""
        played = [one for one in self.episodes if one.task == task]
        starts = [one.start for one in played]
        if len(set(starts)) == len(starts):
            return proportion_interval(sum(one.success for one in played), len(played))
        return less_certain(mean_interval([float(one.success) for one in played], starts), len(set(starts)))


def compare_rollouts(a: Rollouts, b: Rollouts, parts: bool = True) -> list[Gap]:
    """A minus B on the same starts: the mean over tasks, and each task. Not corrected yet for how many were asked.

    ValueError with every difference if they were not played alike.
    """
    differ = [f"{key}: {a.run.get(key)!r:.300} and {b.run.get(key)!r:.300}" for key in SAME
              if a.run.get(key) != b.run.get(key)]  # fmt: skip
    if differ or [one.id for one in a.episodes] != [one.id for one in b.episodes]:
        told = "; ".join(differ) or "other episodes"
        raise ValueError(f"{a.folder} and {b.folder} can't be compared ({told}); play both alike")
    name = str(a.run["protocol"]["name"])
    whole = grouped_difference(a.values, b.values, a.groups, a.weights, a.starts)
    means = a.success().mean, b.success().mean
    gaps = [Gap(name, OVERALL, *means, whole, sign_test(a.values, b.values), whole.p_value)]
    for task in a.tasks if parts and len(a.tasks) > 1 else []:
        of = [index for index, one in enumerate(a.episodes) if one.task == task]
        found = paired_difference(a.values[of], b.values[of], [a.starts[i] for i in of])
        ends = float(a.values[of].mean()), float(b.values[of].mean())
        gaps.append(Gap(name, task, *ends, found, sign_test(a.values[of], b.values[of]), found.p_value))
    return gaps


def overall_table(players: Sequence[Rollouts]) -> Table:
    """One row for each player."""
    headings = ["player", "success, 95 % over starts", "95 % over tasks", "episodes", "timeouts", "lost again",
                "errors", "steps of a success", "s an episode"]  # fmt: skip
    rows = []
    for played in players:
        reasons = Counter(one.failure if one.failure in (TIMEOUT, LOST) else "error" for one in played.episodes
                          if not one.success)  # fmt: skip
        steps = [one.first_success for one in played.episodes if one.success and one.first_success is not None]
        tasks = played.success("tasks")
        rows.append([
            played.player, percent(played.success()),
            "–" if math.isnan(tasks.low) else f"{100 * tasks.low:.1f}–{100 * tasks.high:.1f}",
            str(len(played.episodes)), *(str(reasons[name]) for name in (TIMEOUT, LOST, "error")),
            f"{np.median(steps):.0f}" if steps else "–", f"{np.mean([one.seconds for one in played.episodes]):.2f}",
        ])  # fmt: skip
    return headings, rows


def task_table(players: Sequence[Rollouts]) -> Table:
    """Tasks by row, players by column, then the best of the blind ones; the mean over tasks at the end."""
    headings = ["success, %", *(played.player for played in players)]
    rows = [[task, *(percent(played.of_task(task)) for played in players)] for task in players[0].tasks]
    rows.append(["mean over tasks", *(percent(played.success()) for played in players)])
    if blind := [played for played in players if played.run["about"].get("blind")]:
        headings.append("best blind")
        for row, task in zip(rows, players[0].tasks, strict=False):
            row.append(_best({played.player: played.of_task(task) for played in blind}))
        rows[-1].append(_best({played.player: played.success() for played in blind}))
    return headings, rows


def _best(rates: Mapping[str, Interval]) -> str:
    """The highest of some rates, and whose it is."""
    name = max(rates, key=lambda name: rates[name].mean)
    return f"{100 * rates[name].mean:.1f} ({name})"


def markdown(player: Rollouts, others: Sequence[Rollouts]) -> str:
    """The whole document: `player` beside `others`, the blind ones among them."""
    lines = [f"# {_title(player)}", ""]
    for heading, table, caption in _tables(player, others):
        lines += [f"## {heading}", "", *to_markdown(table), "", caption, ""]
    return "\n".join(lines).rstrip() + "\n"


def write_report(player: Rollouts, others: Sequence[Rollouts], out: Path) -> str:
    """`rollouts.md`, `.json` and `.html` (with videos) in `out`; returns the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    text = markdown(player, others)
    put(out / "rollouts.md", text)
    put(out / "rollouts.json", json.dumps([summary(played) for played in (player, *others)], indent=1) + "\n")
    report = Report(_title(player), _subtitle(player))
    report.scores([_bar(player, others), *(_bar(played, []) for played in others)], "Success; ticks are the others'.")
    for heading, table, caption in _tables(player, others):
        report.heading(heading)
        report.table(*table, caption)
    if filmed := _shown(player):
        report.heading("Episodes")
        report.videos(
            filmed, "What the policy saw: the frame is green while the task is done; the end tells the outcome."
        )
    report.heading("Protocol")
    report.details("run.json", json.dumps(dict(player.run), indent=1, ensure_ascii=False))
    report.write(out / "rollouts.html")
    return text


def summary(played: Rollouts) -> dict[str, Any]:
    """What programs read."""
    overall, tasks = played.success(), played.success("tasks")
    return {
        "player": played.player,
        "run": dict(played.run),
        "success": overall.mean,
        "over_starts": [overall.low, overall.high],
        "over_tasks": None if math.isnan(tasks.low) else [tasks.low, tasks.high],
        "episodes": len(played.episodes),
        "tasks": {task: vars(played.of_task(task)) for task in played.tasks},
        "failures": dict(Counter(_reason(one) for one in played.episodes if not one.success)),
        "code": sorted({one.code for one in played.episodes}),
    }


def percent(rate: Interval) -> str:
    return f"{100 * rate.mean:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _tables(player: Rollouts, others: Sequence[Rollouts]) -> list[tuple[str, Table, str]]:
    everybody = [player, *others]
    count = len({*player.starts})
    reach = minimum_detectable_difference(math.sqrt(0.5), count)
    found = [
        ("Success", overall_table(everybody),
         f"{len(player.tasks)} tasks, {count} starts. An error of policy or world counts as a failure. Two runs of "
         f"other starts, both near 50 %, could be told apart from {100 * reach:.0f} points on."),
    ]  # fmt: skip
    if len(player.tasks) > 1:
        found.append(("Each task", task_table(everybody), "Wilson's 95 % intervals; the mean's is made of them."))
    failures = [[played.player, told] for played in everybody if (told := _errors(played))]
    if failures:
        found.append(("Errors", (["player", "errors"], failures), "Episodes that were not played to their end."))
    gaps = corrected([gap for other in others for gap in compare_rollouts(player, other, parts=False)])
    if gaps:
        headings, rows = gap_table(gaps)
        named = [[other.player, *row[4:]] for other, row in zip(others, rows, strict=True)]
        found.append((f"{player.player} against each", (["B", *headings[4:]], named),
                      "On the same starts; A is the first player. “Could have seen” is the smallest true difference "
                      "that would be found four times of five."))  # fmt: skip
    return found


def _title(player: Rollouts) -> str:
    return f"{player.player} on {player.run['protocol']['name']}"


def _subtitle(player: Rollouts) -> str:
    told, world = player.run["protocol"], player.run["world"]
    rule = {"any_step": "at any step", "last_step": "at the last step"}[told["success"]]
    return (
        f"success {rule}, {told['execute']} actions of each chunk, seeds {', '.join(map(str, told['seeds']))}; "
        + ", ".join(f"{key} {value}" for key, value in world.items() if key not in ("success", "horizon"))
    )


def _bar(played: Rollouts, others: Sequence[Rollouts]) -> Bar:
    rate = played.success()
    ticks = {other.player: other.success().mean for other in others}
    return Bar(played.player, rate.mean, rate.low, rate.high, ticks, count=rate.n)


def _shown(player: Rollouts) -> list[tuple[bytes, str]]:
    """Of the filmed episodes a success and a failure of each task, then others, at most so many."""
    there = [one for one in player.episodes if one.video and (player.folder / one.video).is_file()]
    first = {(one.task, one.success): one for one in reversed(there)}
    order = sorted(there, key=lambda one: first[one.task, one.success] is not one)
    return [
        ((player.folder / str(one.video)).read_bytes(),
         f"{one.task}, start {one.start}: " + (f"done after {one.first_success}" if one.success else _reason(one)))
        for one in order[:MOST_VIDEOS]
    ]  # fmt: skip


def _errors(played: Rollouts) -> str:
    return "; ".join(
        f"{n} × {reason}" for reason, n in Counter(_reason(e) for e in played.episodes if e.broken).items()
    )


def _reason(one: Episode) -> str:
    """Failures are counted by their first words: numbers and addresses in them differ each time."""
    return ":".join(str(one.failure).split(":")[:2])[:80]
