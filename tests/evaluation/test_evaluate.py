"""One command for a stock Hugging Face model, an endpoint and the baselines: results, tables, page, comparison."""

from __future__ import annotations

import dataclasses
import io
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stock_model import write_stock_model
from toy_benchmark import ToyBenchmark

from gemvlm.evaluation.answer_files import read_answers
from gemvlm.evaluation.answerers import Baseline, Reply
from gemvlm.evaluation.benchmark import Benchmark, Convention, Item, Media, Score
from gemvlm.evaluation.benchmarks import open_benchmark, place_of
from gemvlm.evaluation.compare import compare_runs
from gemvlm.evaluation.evaluate import evaluate_models, slug
from gemvlm.evaluation.gallery import OUTLINE, illustrate, outlined, true_region, wrong_items
from gemvlm.evaluation.gaps import compare_results, corrected
from gemvlm.evaluation.pointing import mask_truth
from gemvlm.evaluation.results import Results, write_scores
from gemvlm.evaluation.runner import run_benchmark

TOY = ToyBenchmark()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Says "A" or a point, and is dead after nine answers."""
    count = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal count
            count += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            text = "(0.5, 0.5)" if b"Point at" in body else "A"
            content = json.dumps({"choices": [{"message": {"content": text}}]}).encode() if count <= 9 else b"oops"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    stock = write_stock_model(folder / "stock")
    models = [
        "oracle",
        "random",
        f"{endpoint}?model=served&convention=thousand&tries=1&batch=1",
        f"hf:{stock}?convention=thousand&name=stock",
    ]
    page = evaluate_models(models, [TOY], folder / "out", device="cpu", gallery=3)
    assert page == folder / "out" / "report.html"
    return folder / "out"


def results(out: Path, model: str) -> Results:
    return Results.read(out / model / "toy-official")


def test_everyone_is_asked_everything(evaluated: Path) -> None:
    for model in ("oracle", "random", "served", "stock"):
        found = results(evaluated, model)
        assert [line["id"] for line in found.lines] == [item.id for item in TOY.items()]
        assert found.scores["items"] == 12
    perfect = results(evaluated, "oracle").overall()
    assert (perfect.mean, perfect.high) == (1.0, 1.0)
    assert 0.5 < perfect.low < 0.7, "six scenes are not enough to be sure"
    assert results(evaluated, "stock").run["answerer"]["model_type"] == "llava"
    assert all(line["frames"] == 1 for line in results(evaluated, "stock").lines)


def test_what_a_dying_endpoint_did_not_answer_is_counted(evaluated: Path) -> None:
    found = results(evaluated, "served")
    assert sum(found.scores["failed"].values()) == 3
    assert found.scores["outside"] > 0, "it writes fractions but is said to write thousandths"
    failed = [line for line in found.lines if line["failure"]]
    assert all(line["score"] == 0 and line["counted"] for line in failed)
    assert sum(found.values) / 12 <= 5 / 12


def test_the_tables_say_all_of_it(evaluated: Path) -> None:
    text = (evaluated / "tables.md").read_text()
    assert "## toy, official" in text
    for told in (
        "chance",
        "by item",
        "failed",
        "3 (25%)",
        "other convention",
        "could have seen",
        "| oracle | random |",
    ):
        assert told in text
    page = (evaluated / "report.html").read_text()
    for told in ("served: 3 of its wrong replies", "data:image/svg+xml", "true answer"):
        assert told in page
    listed = json.loads((evaluated / "tables.json").read_text())
    assert [each["run"]["model"] for each in listed] == ["oracle", "random", "served", "stock"]


def test_called_again_nothing_is_asked_again(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[Reply]:
        raise AssertionError("asked again")

    monkeypatch.setattr(Baseline, "answer", refuse)
    before = (evaluated / "oracle" / "toy-official" / "answers.jsonl").read_bytes()
    evaluate_models(["oracle", "random"], [TOY], evaluated, gallery=0)
    assert (evaluated / "oracle" / "toy-official" / "answers.jsonl").read_bytes() == before


def test_several_processes_and_the_last_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    big = ToyBenchmark(40)
    pages = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        pages.append(evaluate_models(["random"], [big], tmp_path / "two", gallery=0))
    assert pages == [None, tmp_path / "two" / "report.html"]
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    evaluate_models(["random"], [big], tmp_path / "one", gallery=0)
    ends = [
        (out / "random" / "toy-official" / "scores.json").read_text() for out in (tmp_path / "one", tmp_path / "two")
    ]
    first, second = ({k: v for k, v in json.loads(end).items() if k not in ("seconds", "versions")} for end in ends)
    assert first == second


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="would both be called 'random'"):
        evaluate_models(["random", "random"], [TOY], tmp_path, gallery=0)
    assert slug("hf: a/b c?") == "hf-a-b-c"
    assert slug("..") == "model"


class Partly(Baseline):
    """Knows the answer to some of the items, drawn by seed and item."""

    def __init__(self, share: float, seed: int, name: str) -> None:
        super().__init__("oracle")
        self.share, self.seed, self.name = share, seed, name

    def describe(self) -> dict[str, object]:
        return {"kind": "partly", "share": self.share, "seed": self.seed}

    def answer(self, items: Sequence[Item]) -> list[Reply]:
        knows = [np.random.default_rng((self.seed, *item.id.encode())).random() < self.share for item in items]
        return [reply if known else Reply("no idea") for reply, known in zip(super().answer(items), knows, strict=True)]


def partly(folder: Path, share: float, seed: int, benchmark: Benchmark) -> Path:
    there = folder / f"{share}-{seed}"
    answerer = Partly(share, seed, f"knows {share}")
    run_benchmark(benchmark, benchmark.items(), answerer, there / "toy-official")
    write_scores(there / "toy-official", benchmark, benchmark.items())
    return there


def test_a_planted_gap_is_found_and_an_absent_one_is_not(tmp_path: Path) -> None:
    big = ToyBenchmark(70)
    better, worse, same = partly(tmp_path, 0.8, 1, big), partly(tmp_path, 0.5, 2, big), partly(tmp_path, 0.5, 3, big)
    text = compare_runs([str(better)], [str(worse)], tmp_path / "gap")
    assert "A is better" in text
    assert "knows 0.8" in text
    assert (tmp_path / "gap" / "compare.md").read_text() == text
    plain = json.loads((tmp_path / "gap" / "compare.json").read_text())
    overall = plain["gaps"][0]
    assert overall["difference"]["interval"]["low"] > 0.1
    assert overall["sign_p"] < 0.001
    assert 0.05 < overall["difference"]["detectable"] < 0.25
    assert [gap["part"] for gap in plain["gaps"]] == ["overall", "side", "point"]
    assert (tmp_path / "gap" / "compare.html").is_file()
    assert "no difference seen" in compare_runs([str(worse)], [str(same)])
    backwards = compare_runs([str(worse / "toy-official")], [str(better)])
    assert "B is better" in backwards


def test_several_trainings_scatter_more_than_one(tmp_path: Path) -> None:
    big = ToyBenchmark(30)
    a = [str(partly(tmp_path, share, seed, big)) for seed, share in enumerate((0.7, 0.5, 0.9))]
    b = [str(partly(tmp_path, share, seed + 9, big)) for seed, share in enumerate((0.5, 0.7, 0.3))]
    text = compare_runs(a, b)
    assert "(3 trainings)" in text
    assert "scenes and trainings (3 and 3)" in text
    one = Results.read(Path(a[0]) / "toy-official"), Results.read(Path(b[0]) / "toy-official")
    (single, *_), (several, *_) = (
        compare_results(*([x] for x in one)),
        compare_results(*([Results.read(Path(run) / "toy-official") for run in side] for side in (a, b))),
    )
    width = [gap.difference.interval.high - gap.difference.interval.low for gap in (single, several)]
    assert width[1] > 1.5 * width[0]
    assert several.a == pytest.approx(np.mean([Results.read(Path(r) / "toy-official").overall().mean for r in a]))
    assert corrected([single, single])[0].p_of_all == pytest.approx(min(1, 2 * single.difference.p_value))


def test_what_can_not_be_compared_is_refused(tmp_path: Path) -> None:
    one, other = partly(tmp_path, 0.5, 1, ToyBenchmark(6)), partly(tmp_path, 0.5, 2, ToyBenchmark(7))
    with pytest.raises(ValueError, match="other items or other prompts"):
        compare_runs([str(one)], [str(other)])
    elsewhere = partly(tmp_path / "else", 0.5, 1, ToyBenchmark(6, protocol="strict"))
    with pytest.raises(ValueError, match=r"no benchmark and protocol in common.*strict"):
        compare_runs([str(one)], [str(elsewhere)])
    with pytest.raises(ValueError, match="no results of an evaluation here"):
        compare_runs([str(one)], [str(tmp_path / "nothing")])
    with pytest.raises(ValueError, match="at least one folder"):
        compare_runs([], [str(one)])
    (one / "toy-official" / "scores.json").write_text("{")
    with pytest.raises(ValueError, match=r"scores\.json can't be read"):
        compare_runs([str(one)], [str(one)])


def test_models_of_two_conventions_are_asked_in_their_own_and_compared(tmp_path: Path) -> None:
    class Written(ToyBenchmark):
        """Says in words where the square is, in the model's convention."""

        unit = "thousand"

        def written_for(self, convention: Convention) -> Benchmark:
            other = type(self)(self.count)
            object.__setattr__(other, "unit", convention.unit)
            return other

        def items(self) -> Sequence[Item]:
            return [dataclasses.replace(item, prompt=f"{item.prompt} In {self.unit}.") for item in super().items()]

    for unit in ("pixel", "fraction"):
        evaluate_models([f"oracle?convention={unit}&name={unit}"], [Written()], tmp_path, gallery=0)
    ends = [read_answers(tmp_path / unit / "toy-official")[1] for unit in ("pixel", "fraction")]
    assert [end["prompt"][-9:] for end in ends] == ["In pixel.", "fraction."]
    assert "no difference seen" in compare_runs([str(tmp_path / "pixel")], [str(tmp_path / "fraction")])


def test_replies_that_a_protocol_drops_are_told(tmp_path: Path) -> None:
    class Dropping(ToyBenchmark):
        def score(self, item: Item, reply: str, convention: Convention) -> Score:
            found = super().score(item, reply, convention)
            return Score(found.value, found.parsed, counted=found.parsed is not None)

    benchmark = Dropping(40)
    found = Results.read(partly(tmp_path, 0.5, 1, benchmark) / "toy-official")
    assert found.scores["summary"]["overall"] == 1.0, "only what was right is counted"
    assert found.scores["not_counted"] == found.scores["unparsed"] > 20
    with pytest.raises(ValueError, match="counts none of 80 replies"):
        partly(tmp_path, 0.0, 1, benchmark)


def test_an_interval_covers_the_headline_and_scenes_make_it_wider(tmp_path: Path) -> None:
    found = Results.read(partly(tmp_path, 0.6, 1, ToyBenchmark(30)) / "toy-official")
    by_scene, by_item = found.overall("scene"), found.overall("item")
    assert by_scene.low < by_scene.mean < by_scene.high
    assert by_scene.mean == by_item.mean == pytest.approx(found.scores["summary"]["overall"])
    assert found.scores["chance"]["overall"] == pytest.approx((0.5 + (12 / 64) ** 2) / 2)


def test_wrong_replies_are_drawn_in_turn_from_each_category(tmp_path: Path) -> None:
    benchmark = ToyBenchmark(20)
    lines = read_answers(partly(tmp_path, 0.4, 1, benchmark) / "toy-official")
    wrong = wrong_items(lines, 6)
    assert [line["category"] for line in wrong].count("side") == 3
    assert all(line["score"] < 0.5 for line in wrong)
    assert wrong == wrong_items(list(reversed(lines)), 6)
    item = benchmark.items()[1]
    picture = illustrate(item, "(100, 100)", benchmark.oracle(item, Convention()), Convention())
    plain = illustrate(item, "nowhere", "A", Convention())
    assert picture.shape == plain.shape == (512, 512, 3)
    assert (picture != plain).any(axis=2).sum() > 300
    asked = illustrate(item, "nowhere", "A", Convention(), "A (100, 100) or B (800, 800)?")
    assert (asked != plain).any(axis=2).sum() > 600


def test_a_true_region_is_outlined_whatever_its_form() -> None:
    mask = np.zeros((40, 60, 3), np.uint8)
    mask[10:30, 20:50] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    truth = mask_truth(Media(file.getvalue()), "mask")
    square = {"polygon": [[1 / 3, 0.25], [5 / 6, 0.25], [5 / 6, 0.75], [1 / 3, 0.75]]}
    for given in (truth, {"mask": truth, **square}, square):
        region = true_region(Item("a", (), "", given, "c", "s"))
        assert region is not None
        drawn = (outlined(np.zeros((80, 120, 3), np.uint8), region) == OUTLINE).all(axis=2)
        rows, columns = np.nonzero(drawn)
        assert [rows.min(), rows.max(), columns.min(), columns.max()] == pytest.approx([20, 59, 40, 99], abs=1)
        assert not drawn[24:56, 44:96].any()
    for other in ("A", ["x"], {"a": 1}):
        assert true_region(Item("a", (), "", other, "c", "s")) is None


def test_names_of_benchmarks_and_their_places(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="benchmark 'nothing' is unknown; choose from blink"):
        open_benchmark("nothing", str(tmp_path))
    (tmp_path / "blink").mkdir()
    assert place_of("blink", str(tmp_path)) == str(tmp_path / "blink")
    assert place_of("sat", str(tmp_path)) == str(tmp_path)
    assert place_of("sat", "array/SAT") == "array/SAT"
    with pytest.raises(ValueError, match="--data"):
        place_of("sat", None)
