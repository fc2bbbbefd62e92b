"""An experiment is data: a base training, arms, seeds, what is asked at the end, and which gaps are to be judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gemvlm.experiments.arm import get_arm
from gemvlm.recipes.recipe import Recipe

PILOT, STAGE_0, START = "pilot", "stage-0", "start"


@dataclass(frozen=True)
class Contrast:
    """The gap `arm` - `control` and what it would show. The first contrast of an experiment is its primary one."""

    arm: str
    control: str
    shows: str


@dataclass(frozen=True)
class TestSet:
    """Held-out scenes: a set of `tabletop_bench` from seed `first_seed` on, and how many questions of each family."""

    name: str
    scenes: int
    per_family: int
    first_seed: int


@dataclass(frozen=True)
class Experiment:
    """Everything that decides an outcome, fixed before the first run.

    `base` has stages 0 to 3; stage 0 is trained once for each seed and shared by all arms. A base that begins with
    given weights (`Recipe.start`) has stages 1 to 3 alone. Test scenes are seen as those of `base.data`. `rates` are
    factors of the last stage's learning rates, of which each arm of `tuned` takes the best on `development`, tried with
    `pilot_seed`; `execute.chosen_rates` says what the others take. `primary` names the families whose mean score on the
    shortcut-free subset is the primary metric, `taught`, `untaught` and `metric` are further groups of families,
    reported apart. So many scenes, `probe_scenes`, are for the probe and for descriptions (`mechanism.py`).
    `more_seeds` are for the two arms of the primary gap alone, after everything else.
    """

    name: str
    base: Recipe
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    contrasts: tuple[Contrast, ...]
    rates: tuple[float, ...]
    tuned: tuple[str, ...]
    pilot_seed: int
    primary: tuple[str, ...]
    taught: tuple[str, ...]
    untaught: tuple[str, ...]
    metric: tuple[str, ...]
    development: TestSet
    tests: tuple[TestSet, ...]
    curve_every: int
    probe_scenes: int = 80
    more_seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for arm in {*self.arms, *self.tuned, *(c.arm for c in self.contrasts), *(c.control for c in self.contrasts)}:
            get_arm(arm)
            if arm not in self.arms:
                raise ValueError(f"experiment {self.name}: arm {arm!r} is compared or tuned but not among the arms")
        unmeasured = [name for name in self.arms if get_arm(name).matching == "compute"]
        if unmeasured and not {"text", "depth"} <= set(self.arms):
            raise ValueError(
                f"experiment {self.name}: {', '.join(unmeasured)} is as long as depth costs beside text, but text or "
                "depth is not among the arms"
            )
        if self.pilot_seed in (*self.seeds, *self.more_seeds):
            raise ValueError(f"experiment {self.name}: pilot_seed {self.pilot_seed} must not be one of the seeds")
        wanted = 4 if self.base.start is None else 3
        if self.base.data is None or len(self.base.stages) != wanted:
            raise ValueError(
                f"experiment {self.name}: its base has {len(self.base.stages)} stages and data {self.base.data}; it "
                f"needs {wanted} stages ({'0' if wanted == 4 else '1'} to 3) and scenes that the tests are seen like"
            )
        if self.base.epochs is not None or any(stage.budget is not None for stage in self.base.stages):
            raise ValueError(
                f"experiment {self.name}: its base counts epochs or packs samples; packs hold fewer samples where "
                "there are targets, so that arms would see other ones: give steps and a batch_size in samples"
            )

    @property
    def pretrains(self) -> bool:
        """Whether every seed has a stage 0 of its own; else all begin with given weights."""
        return self.base.start is None

    def with_more_seeds(self, count: int) -> Experiment:
        """The same with `count` further seeds of the primary pair."""
        first = max(self.seeds) + 1
        return replace(self, more_seeds=tuple(range(first, first + count)))

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        primary = self.contrasts[0]
        return (*self.seeds, *self.more_seeds) if arm in (primary.arm, primary.control) else self.seeds

    def tasks(self) -> Iterator[Task]:
        """Every training in an order in which each finds what it needs; the pilot first."""
        pilots = [Task(arm, self.pilot_seed, rate) for arm in self.tuned for rate in self.rates]
        arms = sorted(self.arms, key=lambda arm: get_arm(arm).matching == "compute")
        if len(self.rates) > 1:
            yield from [Task(None, self.pilot_seed)] if self.pretrains else []
            yield from pilots
        for seed in (*self.seeds, *self.more_seeds):
            yield from [Task(None, seed)] if self.pretrains else []
            yield from (Task(arm, seed) for arm in arms if seed in self.seeds_of(arm))

    def files(self, out: Path, name: str) -> dict[str, dict[int, Path]]:
        """Arm → seed → the file of that name in its folder, of those that are there.

        What the arms began with goes by "stage-0", or by "start" where the weights were given.
        """
        found: dict[str, dict[int, Path]] = {}
        for seed in (*self.seeds, *self.more_seeds):
            for task in (Task(None, seed), *(Task(arm, seed) for arm in self.arms)):
                if (path := task.folder(out) / name).is_file():
                    found.setdefault(task.arm or STAGE_0, {})[seed] = path
        if (path := out / START / name).is_file():
            found[START] = {self.seeds[0]: path}
        return found


@dataclass(frozen=True)
class Task:
    """One training: of an arm from the seed's stage 0, or (arm None) that stage 0. A pilot's has its own rate."""

    arm: str | None
    seed: int
    rate: float | None = None

    @property
    def name(self) -> str:
        """Its folder below the experiment's: "seed-0/stage-0", "seed-0/depth", "pilot/depth-x0.5"."""
        if self.rate is not None:
            return f"{PILOT}/{self.arm}-x{self.rate:g}"
        return f"seed-{self.seed}/{self.arm or STAGE_0}"

    def folder(self, out: Path) -> Path:
        return out / self.name
