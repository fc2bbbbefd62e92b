"""How large the numbers of states and actions are, and values scaled by it and back.

Statistics come from the tables of episodes alone (no picture is decoded), are exact but for the quantiles of very long
sets, and lie in the checkpoint with the method that used them: `Normalisation` is that file. With the range [low, high]
of a method, y = 2 (x - low) / max(high - low, 1e-3) - 1; "mean_std" has y = (x - mean) / max(std, 1e-3). "quantiles" of
a number that hardly ever changes are equal: its least and greatest value are taken then. The floor, and the first
formula with the least and greatest value, are those of the released GEM-VLA code (zhaorw02/GEM, commit 5500948,
`GEM-VLA/train/dataset.py`), whose `action_stats.json` is read here, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, Float64

Method = Literal["mean_std", "min_max", "quantiles"]

FLOOR = 1e-3
"""The least range (or deviation) that values are divided by: a number that never changes must not amplify noise."""
QUANTILES = (0.01, 0.99)
KEPT_ROWS = 1 << 18
"""Rows that quantiles are computed from; of more, every second, fourth, ... one is kept."""
_FIELDS = ("mean", "std", "minimum", "maximum", "q01", "q99")


@dataclass(frozen=True)
class Statistics:
    """Of `count` rows: mean, standard deviation, least and greatest value and the 1 % and 99 % quantiles.

    One number of each for every dimension; `names` says what they are, () where nobody said. ValueError if they differ
    in number, aren't finite or are out of order.
    """

    count: int
    mean: Float64[np.ndarray, "D"]
    std: Float64[np.ndarray, "D"]
    minimum: Float64[np.ndarray, "D"]
    maximum: Float64[np.ndarray, "D"]
    q01: Float64[np.ndarray, "D"]
    q99: Float64[np.ndarray, "D"]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        arrays = {name: getattr(self, name) for name in _FIELDS}
        if any(len(array) != len(self) for array in arrays.values()) or len(self.names) not in (0, len(self)):
            sizes = {name: len(array) for name, array in arrays.items()} | {"names": len(self.names)}
            raise ValueError(f"statistics: numbers per field differ: {sizes}; give one for each dimension")
        if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise ValueError(f"statistics: {bad} hold NaN or infinity; compute them anew from the tables")
        if (self.maximum < self.minimum).any() or (self.q99 < self.q01).any() or (self.std < 0).any():
            raise ValueError("statistics: a maximum lies below its minimum, or a deviation below 0; compute them anew")

    def __len__(self) -> int:
        return len(self.mean)

    @classmethod
    def of(cls, rows: Iterable[Float[np.ndarray, "_ _"]], names: Sequence[str] = ()) -> Statistics:
        """Of all rows of all arrays; memory holds one array and `KEPT_ROWS` rows at a time.

        ValueError if there is no row, a width changes, or a value is NaN or infinite.
        """
        tally = _Tally()
        for part in rows:
            tally.add(part)
        return tally.result(tuple(names))

    @classmethod
    def identity(cls, size: int, names: Sequence[str] = ()) -> Statistics:
        """Of no rows: what makes every method leave so many numbers as they are."""
        zeros, ones = np.zeros(size), np.ones(size)
        return cls(0, zeros, ones, -ones, ones, -ones, ones, tuple(names))

    @classmethod
    def from_scale_offset(
        cls, scale: Sequence[float], offset: Sequence[float], names: Sequence[str] = ()
    ) -> Statistics:
        """What makes "min_max" equal to y = x · scale + offset, the form of UMI-style normalisers.

        Mean and deviation are then those of a uniform distribution, and the quantiles the range's ends: the form does
        not tell them. ValueError for scales that are not in (0, 2 / `FLOOR`].
        """
        scales, offsets = np.asarray(scale, np.float64), np.asarray(offset, np.float64)
        if scales.ndim != 1 or scales.shape != offsets.shape:
            raise ValueError(f"normaliser: scale is {scales.shape} and offset {offsets.shape}; give two equal vectors")
        if not ((scales > 0) & (scales <= 2 / FLOOR * (1 + 1e-6))).all():
            raise ValueError(f"normaliser: scales must lie in (0, {2 / FLOOR:g}], not {scales.min()}..{scales.max()}")
        low, high = (-1 - offsets) / scales, (1 - offsets) / scales
        return cls(0, (low + high) / 2, (high - low) / math.sqrt(12), low, high, low, high, tuple(names))

    def to_dict(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name).tolist() for name in _FIELDS}
        return {"count": self.count, "names": list(self.names), **numbers}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Statistics:
        """Undoes `to_dict`. ValueError names what is missing or no number."""
        if missing := [name for name in ("count", *_FIELDS) if name not in values]:
            raise ValueError(f"statistics: {missing} are missing; there are {sorted(values)}")
        arrays = {name: _vector(values[name], name) for name in _FIELDS}
        return cls(int(values["count"]), **arrays, names=tuple(map(str, values.get("names", ()))))

    @classmethod
    def from_action_stats(cls, values: Mapping[str, Any]) -> Statistics:
        """From the authors' `action_stats.json`: `action_count`, `_mean`, `_std`, `_min` and `_max`.

        It has no quantiles: the least and greatest value stand in for them.
        """
        keys = ("action_count", "action_mean", "action_std", "action_min", "action_max")
        if missing := [key for key in keys if key not in values]:
            raise ValueError(f"action_stats.json: {missing} are missing; there are {sorted(values)}")
        count = int(np.max(values["action_count"]))
        mean, std, low, high = (_vector(values[key], key) for key in keys[1:])
        return cls(count, mean, std, low, high, low, high)


class Normaliser:
    """Values to about [-1, 1] ("min_max", "quantiles") or to deviation 1 ("mean_std"), and exactly back.

    Values outside the range of the statistics are carried on linearly, never clipped: limits belong to the robot.
    """

    def __init__(self, statistics: Statistics, method: Method) -> None:
        if method not in get_args(Method):
            raise ValueError(f"normalisation {method!r} is not one of {get_args(Method)}")
        self.statistics, self.method = statistics, method
        if method == "mean_std":
            self._width = np.maximum(statistics.std, FLOOR)
            self._origin, self._shift = statistics.mean, 0.0
        else:
            low, high = _range(statistics, method)
            self._width = np.maximum(high - low, FLOOR) / 2
            self._origin, self._shift = low, 1.0

    def normalise(self, values: Float[np.ndarray, "*batch D"]) -> Float32[np.ndarray, "*batch D"]:
        self._check(values)
        return ((values - self._origin) / self._width - self._shift).astype(np.float32)

    def denormalise(self, values: Float[np.ndarray, "*batch D"]) -> Float32[np.ndarray, "*batch D"]:
        """Undoes `normalise`."""
        self._check(values)
        return ((values.astype(np.float64) + self._shift) * self._width + self._origin).astype(np.float32)

    def _check(self, values: Float[np.ndarray, "*batch D"]) -> None:
        if values.shape[-1] != len(self.statistics):
            raise ValueError(
                f"{values.shape[-1]} numbers, but the statistics are of {len(self.statistics)} "
                f"{list(self.statistics.names)}; were they made for another robot?"
            )


@dataclass(frozen=True)
class Normalisation:
    """The statistics of a checkpoint by field ("state", "action") and the method that it was trained with."""

    method: Method
    fields: Mapping[str, Statistics] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Normaliser:
        """ValueError lists the fields that there are."""
        if name not in self.fields:
            raise ValueError(
                f"no statistics of {name!r}; there are {sorted(self.fields)}: without them its numbers mean nothing, "
                "compute them from the tables of the training set"
            )
        return Normaliser(self.fields[name], self.method)

    def to_dict(self) -> dict[str, Any]:
        return {"method": self.method, "fields": {name: own.to_dict() for name, own in self.fields.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalisation:
        """Undoes `to_dict`. ValueError names what is missing or unknown."""
        method, fields = values.get("method"), values.get("fields")
        if method is None or method not in get_args(Method) or not isinstance(fields, Mapping):
            raise ValueError(
                f"normalisation: needs a method of {get_args(Method)} and fields, has {method!r} and keys "
                f"{sorted(values)}"
            )
        return cls(method, {name: Statistics.from_dict(own) for name, own in fields.items()})


def published_action_statistics(text: str, key: str = "action") -> Statistics:
    """From the text of a JSON file that others wrote: the authors' `action_stats.json`, or UMI-style scale and offset.

    The second kind maps fields to {"scale": [...], "offset": [...]}, of which `key` is taken. ValueError lists what the
    file has instead.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"statistics: a JSON object is needed, not a {type(values).__name__}")
    if "action_mean" in values:
        return Statistics.from_action_stats(values)
    own = values.get(key)
    if not isinstance(own, dict) or not {"scale", "offset"} <= set(own):
        raise ValueError(
            f"statistics: no {key!r} with scale and offset, and no action_mean; there are {sorted(values)}"
        )
    return Statistics.from_scale_offset(
        _vector(own["scale"], "scale").tolist(), _vector(own["offset"], "offset").tolist()
    )


def _range(statistics: Statistics, method: Method) -> tuple[Float64[np.ndarray, "D"], Float64[np.ndarray, "D"]]:
    low, high = statistics.minimum, statistics.maximum
    if method == "min_max":
        return low, high
    # A gripper that closes in one step of a hundred has equal quantiles: that step would become thousands.
    rare = (statistics.q99 - statistics.q01 < FLOOR) & (high - low >= FLOOR)
    return np.where(rare, low, statistics.q01), np.where(rare, high, statistics.q99)


def _vector(values: Any, name: str) -> Float64[np.ndarray, "D"]:
    try:
        vector = np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"statistics: {name} is not a list of numbers: {error}") from error
    if vector.ndim != 1:
        raise ValueError(f"statistics: {name} has the shape {vector.shape}; one number for each dimension is needed")
    return vector


class _Tally:
    """Sums that grow part by part: Chan's merge of means and squares, and a thinned sample for quantiles."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = np.zeros(0)
        self.low = self.high = np.zeros(0)
        self.kept: list[np.ndarray] = []
        self.rows_kept, self.every = 0, 1

    def add(self, part: Float[np.ndarray, "T D"]) -> None:
        if not len(part):
            return
        rows = part.astype(np.float64)
        if not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            raise ValueError(
                f"statistics: row {self.count + row}, column {column} is NaN or infinite; repair its table"
            )
        if not self.count:
            self.mean, self.squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
            self.low, self.high = rows[0], rows[0]
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"statistics: {rows.shape[1]} columns after {len(self.mean)}; sets of one kind only")
        self._sample(part)
        total, mean = self.count + len(rows), rows.mean(0)
        apart = mean - self.mean
        self.squares = self.squares + ((rows - mean) ** 2).sum(0) + apart**2 * self.count * len(rows) / total
        self.mean = self.mean + apart * len(rows) / total
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))
        self.count = total

    def _sample(self, part: Float[np.ndarray, "T D"]) -> None:
        """Keeps the rows whose number in the whole is a multiple of `every`."""
        taken = part[-self.count % self.every :: self.every].astype(np.float32)
        self.kept.append(taken)
        self.rows_kept += len(taken)
        while self.rows_kept > KEPT_ROWS:
            thinned = np.concatenate(self.kept)[::2]
            self.kept, self.rows_kept, self.every = [thinned], len(thinned), 2 * self.every

    def result(self, names: tuple[str, ...]) -> Statistics:
        if not self.count:
            raise ValueError("statistics: not one row; the episodes have no such column, or there is no episode")
        q01, q99 = np.quantile(np.concatenate(self.kept).astype(np.float64), QUANTILES, axis=0)
        deviation = np.sqrt(self.squares / self.count)
        return Statistics(self.count, self.mean, deviation, self.low, self.high, q01, q99, names)
