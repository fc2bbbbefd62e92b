"""A plan carried out: everything accounted for, the same bytes in any way, nothing stale, nothing overwritten."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gemvlm.curation import pipeline
from gemvlm.curation.annotator import Endpoint
from gemvlm.curation.answer_balance import BalanceRules
from gemvlm.curation.engine import engine_of
from gemvlm.curation.funnel import LONGEST_DETAIL, Funnel
from gemvlm.curation.pipeline import Curated, curate
from gemvlm.curation.plan import DepthPolicy, Plan, SourceUse
from gemvlm.data import quarantine
from gemvlm.shards import ShardReader

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    sys.path.insert(0, HERE)
    yield
    sys.path.remove(HERE)


def toy(name: str = "one", **options: object) -> SourceUse:
    return SourceUse(name, "toy_source:Toy", {"count": 30, "size": 10, **options})


PLAN = Plan("toy", "Made up.", (toy(), toy("two", seed=1)), balance=BalanceRules(min_turns=10))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    return curate(PLAN, tmp_path_factory.mktemp("sets") / "toy", engine_of("local", 1), "gemvlm curate toy")


def test_every_record_is_kept_or_rejected_with_a_reason(made: Curated) -> None:
    funnel = made.funnel
    lines = [json.loads(line) for line in (made.folder / "rejections.jsonl").read_text().splitlines()]
    assert funnel.read == {"one": 30, "two": 30} and made.manifest.samples == funnel.kept.total()
    assert funnel.read.total() == funnel.kept.total() + funnel.rejected.total()
    assert made.manifest.turns == funnel.turns_kept.total()
    whole = [line for line in lines if not line["field"].startswith("turns[")]
    assert len(whole) == funnel.rejected.total()
    expected = {"bad_json": 6, "blank": 6, "refused_licence": 6, "near_duplicate": 6}
    assert {reason: sum(line["reason"] == reason for line in whole) for reason in expected} == expected
    assert {line["reason"] for line in lines} >= {"empty_question", "common_yes_no"}
    assert all(len(line["detail"]) <= LONGEST_DETAIL for line in lines)


def test_pictures_of_what_was_left_out_lie_in_the_set(made: Curated) -> None:
    lines = [json.loads(line) for line in (made.folder / "rejections.jsonl").read_text().splitlines()]
    shown = [line for line in lines if line["picture"]]
    assert {line["reason"] for line in shown} >= {"blank", "refused_licence", "near_duplicate", "common_yes_no"}
    assert sorted(line["picture"] for line in shown) == sorted(
        f"rejected/{path.name}" for path in (made.folder / "rejected").iterdir()
    )
    assert max(sum(line["reason"] == reason for line in shown) for reason in {line["reason"] for line in shown}) <= 6


def test_the_set_is_what_passed_with_bytes_and_depth_as_read(made: Curated) -> None:
    from toy_source import Toy

    reader = ShardReader(made.folder)
    reader.verify()
    for sample in map(reader.__getitem__, range(len(reader))):
        use, number = sample.id.split("/toy-")
        original = Toy(seed=int(use == "two")).record(int(number))
        assert not isinstance(original, str) and np.array_equal(sample.frames[0].image, original.frames[0].image)
        assert np.allclose(sample.frames[0].depth.values, original.frames[0].depth.values, atol=1e-4)
        assert sample.turns and all(turn in original.turns for turn in sample.turns)
    yes = [turn.answer for i in range(len(reader)) for turn in reader[i].turns if turn.family == "red"]
    assert yes.count("yes") == yes.count("no")


def test_training_need_not_read_the_set_again(made: Curated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(*arguments: object) -> None:
        raise AssertionError("the set is read again")

    monkeypatch.setattr(quarantine, "judge", judge)
    assert len(quarantine.Usable(ShardReader(made.folder), tmp_path, 0.0)) == made.manifest.samples


@pytest.fixture
def endpoint() -> Iterator[ThreadingHTTPServer]:
    """Says "Please tell me:" before most questions, and something else instead of "Is ball 1 red?"."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = body["messages"][0]["content"].split("---\n")[1].rsplit("\n---", 1)[0]
            text = "Is ball 1 blue?" if "ball 1 " in asked else f"Please tell me: {asked}"
            content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_annotators_words_are_taken_where_they_say_the_same(endpoint: ThreadingHTTPServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{endpoint.server_address[1]}/v1"
    plan = replace(PLAN, sources=(toy(),), balance=None, annotator=Endpoint(url, "tiny"))
    made = curate(plan, tmp_path / "toy", engine_of("local", 1))
    assert made.funnel.words_rejected == {("one", "questions", "rephrase_slots"): 1}
    turns = {turn.question for sample in ShardReader(made.folder) for turn in sample.turns}
    assert "Is ball 1 red?" in turns and "Please tell me: Is ball 2 red?" in turns
    card = (made.folder / "card.json").read_text()
    assert '"model": "tiny"' in card and "127.0.0.1" not in card
    assert any("kept its words" in row[2] for row in made.funnel.rows())


def test_an_annotator_that_is_down_stops_the_work(tmp_path: Path) -> None:
    gone = Endpoint("http://127.0.0.1:9/v1", "tiny", tries=1)
    with pytest.raises(ConnectionError, match="the same command goes on where it stopped"):
        curate(replace(PLAN, annotator=gone), tmp_path / "toy", engine_of("local", 1))
    assert not (tmp_path / "toy").exists()


def test_a_worker_waits_for_no_torch() -> None:
    """It costs each process seconds and 300 MB, and only some sources and teachers need it."""
    code = "import gemvlm.curation.part, sys; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_any_number_of_processes_makes_the_same_bytes(made: Curated, tmp_path: Path) -> None:
    again = curate(PLAN, tmp_path / "toy", engine_of("local", 2), "gemvlm curate toy")
    assert content(again.folder) == content(made.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"], "nothing is left beside the set"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra `curate`)")
def test_ray_makes_the_same_bytes(made: Curated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HERE + ":" + str(Path(__file__).parents[2] / "src"))
    again = curate(PLAN, tmp_path / "toy", engine_of("ray", 2), "gemvlm curate toy")
    assert content(again.folder) == content(made.folder)


def test_what_is_there_is_not_made_again_and_never_overwritten(made: Curated, tmp_path: Path) -> None:
    before = content(made.folder)
    again = curate(PLAN, made.folder, engine_of("local", 1))
    assert not again.made and again.funnel == made.funnel
    with pytest.raises(ValueError, match="holds a set of another plan"):
        curate(replace(PLAN, limit=3), made.folder, engine_of("local", 1))
    assert content(made.folder) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is no curated set"):
        curate(PLAN, tmp_path / "mine", engine_of("local", 1))
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_limit_is_shared_out_and_only_the_parts_it_needs_are_read(tmp_path: Path) -> None:
    few = curate(replace(PLAN, limit=8, balance=None), tmp_path / "few", engine_of("local", 1))
    assert few.manifest.samples == 8 and few.funnel.kept == {"one": 4, "two": 4}
    assert few.funnel.read == {"one": 10, "two": 10}
    assert few.funnel.rejected["one", "balance", "over_quota"] > 0


def test_work_of_another_plan_is_never_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Curated) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "_copy", interrupted)
        curate(replace(PLAN, filters=None), tmp_path / "toy", engine_of("local", 1), "gemvlm curate toy")
    assert list((tmp_path / "toy.work").glob("*/one-000000")), "parts are there"
    again = curate(PLAN, tmp_path / "toy", engine_of("local", 1), "gemvlm curate toy")
    assert content(again.folder) == content(made.folder)


def test_parts_that_are_there_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import toy_source

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "_copy", interrupted)
        curate(PLAN, tmp_path / "toy", engine_of("local", 1))
    monkeypatch.setattr(toy_source.Toy, "read", interrupted)
    assert curate(PLAN, tmp_path / "toy", engine_of("local", 1)).manifest.samples > 0


def test_data_that_changed_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import toy_source

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "_copy", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        curate(PLAN, tmp_path / "toy", engine_of("local", 1))
    monkeypatch.setattr(toy_source.Toy, "parts", lambda self: ["0"])
    with pytest.raises(ValueError, match="are not those that this work began with"):
        curate(PLAN, tmp_path / "toy", engine_of("local", 1))


def test_two_at_once_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another(*arguments: object) -> None:
        with pytest.raises(ValueError, match="another process is making this set"):
            curate(PLAN, tmp_path / "toy", engine_of("local", 1))
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "decide", another)
    with pytest.raises(KeyboardInterrupt):
        curate(PLAN, tmp_path / "toy", engine_of("local", 1))


def test_a_source_that_fails_loses_the_rest_of_its_part_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toy_source

    record = toy_source.Toy.record

    def failing(self: toy_source.Toy, number: int) -> object:
        if number == 12:
            raise KeyError("label")
        return record(self, number)

    monkeypatch.setattr(toy_source.Toy, "record", failing)
    funnel = curate(replace(PLAN, sources=(toy(),)), tmp_path / "toy", engine_of("local", 1)).funnel
    assert funnel.read["one"] == 10 + 3 + 10 and funnel.rejected["one", "import", "source_failed"] == 1


def test_depth_may_be_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import toy_source

    record = toy_source.Toy.record

    def bare(self: toy_source.Toy, number: int) -> object:
        sample = record(self, number)
        if number % 2 or not hasattr(sample, "frames"):
            return sample
        return replace(sample, frames=tuple(replace(frame, depth=None) for frame in sample.frames))

    monkeypatch.setattr(toy_source.Toy, "record", bare)
    plan = replace(PLAN, sources=(toy(),), depth=DepthPolicy(required=True))
    funnel = curate(plan, tmp_path / "toy", engine_of("local", 1)).funnel
    assert funnel.rejected["one", "depth", "no_depth"] == 15


def test_a_plan_without_any_of_its_data_is_refused(tmp_path: Path) -> None:
    plan = replace(PLAN, sources=(SourceUse("sat", "sat", located_by="path"),))
    with pytest.raises(ValueError, match=r"none of its data is here.*--root NAME=FOLDER \(sat\)"):
        curate(plan, tmp_path / "toy", engine_of("local", 1))


def test_the_card_tells_what_the_set_is(made: Curated) -> None:
    card = json.loads((made.folder / "card.json").read_text())
    assert card["command"] == "gemvlm curate toy" and card["facts"]["samples"] == made.manifest.samples
    assert Funnel.from_json(card["funnel"]) == made.funnel
    assert card["facts"]["sources"]["toy"]["licences"] == {"CC-BY-4.0": made.manifest.samples}
    text = (made.folder / "README.md").read_text()
    assert text.startswith("---\n") and "license:\n- cc-by-4.0" in text and "| metric\\_z | m |" in text
    assert str(made.folder.parent) not in text + json.dumps(card)


def test_a_funnel_that_does_not_add_up_is_an_error() -> None:
    funnel = Funnel()
    funnel.read["a"] = 2
    funnel.kept["a"] = 1
    with pytest.raises(ValueError, match="2 records came in but 1 were kept and 0 rejected"):
        funnel.check()
