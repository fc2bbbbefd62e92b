"""Small published sets: pictures, tables, and the replies that official scoring functions have judged."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture(scope="session")
def jpeg():
    """jpeg(seed) → the bytes of a small noisy picture, another one for each seed."""

    def make(seed: int, size: tuple[int, int] = (48, 32)) -> bytes:
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=90)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def vectors():
    """vectors(name) → {"rows": published rows without media, "replies": [[row, reply, {protocol: score}], ...]}."""

    def read(name: str) -> dict:
        return json.loads(gzip.decompress((VECTORS / f"{name}.json.gz").read_bytes()))

    return read


@pytest.fixture(scope="session")
def write_table():
    """write_table(path, rows): a Parquet, JSON or JSON lines file, by the suffix."""

    def write(path: Path, rows: list[dict]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            path.write_text(json.dumps(rows))

    return write


@pytest.fixture(scope="session")
def agrees():
    """agrees(benchmark, replies): every stored score is ours too, and the parsed value is there whenever it counts."""
    from gemvlm.evaluation.benchmark import Convention

    def check(benchmark, replies: list) -> None:
        items = benchmark.items()
        for row, reply, scores in replies:
            ours = benchmark.score(items[row], reply, Convention())
            rule = benchmark.protocol.partition("/")[0]
            assert ours.value == pytest.approx(scores[rule], abs=1e-12), (benchmark.protocol, row, reply, ours)
            assert ours.counted and (ours.parsed is not None or ours.value == 0), (reply, ours)

    return check


@pytest.fixture(scope="session")
def is_fair():
    """is_fair(benchmark): the oracle is right, and guesses score what `chance` says within 4.5 standard errors."""
    from gemvlm.evaluation.benchmark import Convention

    def check(benchmark, guesses: int = 200) -> None:
        items = benchmark.items()
        oracle = [benchmark.score(item, benchmark.oracle(item, Convention()), Convention()) for item in items]
        best = benchmark.summary(items, oracle)
        assert set(best.values()) == {1.0} and "overall" in best, best
        for item in items:
            rng = np.random.default_rng((0, items.index(item)))
            scores = [
                benchmark.score(item, benchmark.guess(item, rng, Convention()), Convention()) for _ in range(guesses)
            ]
            assert all(score.parsed is not None for score in scores)
            values = np.array([score.value for score in scores])
            error = max(values.std() / guesses**0.5, 1e-9)
            assert abs(values.mean() - benchmark.chance(item)) < 4.5 * error, (item.id, values.mean())

    return check


@pytest.fixture(scope="session")
def png():
    """png(array) → the bytes of a lossless picture, for masks."""

    def make(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def pointing_is_fair():
    """pointing_is_fair(benchmark, conventions): as `is_fair`, over all items, for each way of writing coordinates."""
    from gemvlm.evaluation.benchmark import Convention

    ways = [Convention("fraction"), Convention("thousand"), Convention("pixel"), Convention("hundred")]
    ways += [Convention("thousand", "yx"), Convention("fraction", "yx")]

    def check(benchmark, conventions: list | None = None, guesses: int = 30) -> None:
        items = benchmark.items()
        chances = [benchmark.chance(item) for item in items]
        error = sum(chance * (1 - chance) for chance in chances) ** 0.5 / guesses**0.5 / len(items)
        for way in conventions or ways:
            oracle = [benchmark.score(item, benchmark.oracle(item, way), way) for item in items]
            assert set(benchmark.summary(items, oracle).values()) == {1.0}, (way, benchmark.summary(items, oracle))
            assert not any(score.outside for score in oracle)
            rng = np.random.default_rng(1)
            replies = [(item, benchmark.guess(item, rng, way)) for item in items for _ in range(guesses)]
            mean = np.mean([benchmark.score(item, reply, way).value for item, reply in replies])
            assert abs(mean - np.mean(chances)) < 4 * error, (way, mean, chances)

    return check
