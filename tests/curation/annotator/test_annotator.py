"""An annotator that lies, stalls or talks rubbish changes nothing; an honest one is believed."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from gemvlm.curation.annotator import Annotator, Endpoint, caption, caption_refused, changed, rephrase
from gemvlm.curation.annotator.rephrase import question_refused
from gemvlm.curation.questions import write_questions
from gemvlm.sample import PLACE_MARKER, Frame, Point, Sample, Turn


def completion(text):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@contextmanager
def serving(answer):
    """An endpoint whose `answer(text, number)` gives (status, bytes), or bytes, or a sentence; it counts requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.seen.append((self.path, dict(self.headers), body))
                number = len(server.seen)
            content = body["messages"][-1]["content"]
            words = content if isinstance(content, str) else content[0]["text"]
            made = answer(words.split("---\n")[1].rsplit("\n---", 1)[0], number)
            status, payload = made if isinstance(made, tuple) else (200, made)
            payload = completion(payload) if isinstance(payload, str) else payload
            self.send_response(status)
            if status in (301, 307):
                self.send_header("Location", f"http://127.0.0.1:{server.server_address[1]}/stolen")
            self.send_header(
                "Content-Length", str(sum(map(len, payload)) if isinstance(payload, list) else len(payload))
            )
            self.end_headers()
            try:
                for block in payload if isinstance(payload, list) else [payload]:
                    self.wfile.write(block)
                    self.wfile.flush()
                    time.sleep(0.05 if isinstance(payload, list) else 0)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    lock = threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def annotator(server, folder, **more):
    options = {"timeout_s": 2.0, "tries": 2, "backoff_s": 0.01, "most_backoff_s": 0.02, "concurrency": 4, **more}
    return Annotator(Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", "tiny", **options), folder)


@pytest.fixture(scope="module")
def samples(boxes):
    """Questions of every family that plain boxes allow, with their true answers."""
    thing, made = boxes.thing, []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        spots = rng.permutation([(x, y) for x in (-0.4, -0.13, 0.13, 0.4) for y in (-0.3, 0.0, 0.3)])[:6]
        names = ("red cube", "blue mug", "green cube", "yellow bowl", "red plate", "white box")
        sizes = rng.uniform(0.04, 0.09, 6)
        things = [
            thing(i + 1, name, (x, y, s), (s, s, s))
            for i, (name, (x, y), s) in enumerate(zip(names, spots.tolist(), sizes.tolist(), strict=True))
        ]
        observation = boxes.observe(things)
        turns = write_questions(observation, (seed,), turns_per_family=4)
        frame = Frame(observation.image, observation.depth, observation.view)
        made.append(Sample(f"s{seed}", (frame,), tuple(turns), "scene", "boxes"))
    return made


SYNONYMS = {"closer": "nearer", "nearer": "closer", "larger": "bigger", "bigger": "larger", "closest": "nearest",
            "further": "farther", "Point to": "Please indicate", "Name": "Tell me", "metres": "meters",
            "Which is": "Tell me which one is", "What": "Say what", "Is there": "Please answer: is there"}  # fmt: skip


def honest(text, number=0):
    for word, other in SYNONYMS.items():
        if re.search(rf"\b{word}\b", text):
            return re.sub(rf"\b{word}\b", other, text, count=1)
    return f"Please answer: {text}"


def swapped(text, pairs):
    found = re.compile("|".join(rf"\b{re.escape(word)}\b" for pair in pairs for word in pair), re.IGNORECASE)
    other = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return found.sub(lambda word: other[word[0].lower()], text)


def flips_relations(text, number=0):
    pairs = [("left", "right"), ("closer", "further"), ("nearer", "farther"), ("larger", "smaller"),
             ("higher", "lower"), ("leftmost", "rightmost"), ("nearest", "farthest"), ("bigger", "smaller"),
             ("tallest", "shortest"), ("closest", "farthest")]  # fmt: skip
    return swapped(text, pairs)


def flips_names(text, number=0):
    return swapped(text, [("red", "blue"), ("cube", "mug"), ("green", "yellow"), ("bowl", "plate"), ("white", "black")])


def swaps_options(text, number=0):
    return re.sub(r"(the [\w ]+?) or (the [\w ]+)\?", r"\2 or \1?", text)


def drops_places(text, number=0):
    return PLACE_MARKER.sub("here", text)


def swaps_places(text, number=0):
    return text.replace("<place:0>", "<place:x>").replace("<place:1>", "<place:0>").replace("<place:x>", "<place:1>")


def negates(text, number=0):
    return re.sub(r"\b(is|are|does|can|be)\b", r"\1 not", text, count=1)


def adds(text, number=0):
    return re.sub(r"\bthe\b", "the upside-down", text, count=1)


def changes_frame(text, number=0):
    return swapped(text, [("camera", "floor"), ("image", "reality"), ("your", "its"), ("metres", "centimetres")])


def changes_kind(text, number=0):
    return re.sub(r"^(Which|What|How) .*?\b(is|are)\b", r"\2", text) if text[:2] in ("Wh", "Ho") else text


def forgets(text, number=0):
    return re.sub(r"\b(red|blue|green|yellow|white|cube|mug|bowl|plate) ?", "", text, count=1)


LIES = [flips_relations, flips_names, swaps_options, drops_places, swaps_places, negates, adds, changes_frame,
        changes_kind, forgets]  # fmt: skip


def test_an_honest_annotator_is_believed(samples, tmp_path):
    with serving(honest) as server:
        done = rephrase(samples, annotator(server, tmp_path))
    turns = sum(len(sample.turns) for sample in samples)
    refused = [rejection for one in done for rejection in one.refused]
    assert turns > 100
    assert len(refused) <= 0.05 * turns, Counter((r.reason, r.detail) for r in refused)
    for before, after in zip(samples, done, strict=True):
        numbers = after.sample.meta["rephrased"]["question"]["turns"]
        assert after.sample.meta["rephrased"]["question"]["model"] == "tiny"
        for j, (old, new) in enumerate(zip(before.turns, after.sample.turns, strict=True)):
            assert replace(new, question=old.question) == old
            assert (new.question != old.question) == (j in numbers)


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_caught_and_the_original_stays(samples, tmp_path, lie):
    lied = [[lie(turn.question) != turn.question for turn in sample.turns] for sample in samples]
    assert sum(map(sum, lied)) >= 3, "this lie is never told"
    with serving(lie) as server:
        done = rephrase(samples, annotator(server, tmp_path))
    for before, after, told in zip(samples, done, lied, strict=True):
        assert after.sample is before
        caught = {r.field for r in after.refused if r.reason != "rephrase_same"}
        assert caught == {f"turns[{j}].question" for j, was in enumerate(told) if was}


def test_a_question_that_names_its_answer_is_refused():
    turn = Turn("Where is it?", "left", family="f", task="reasoning", kind="choice", options=("left", "right"))
    assert question_refused(turn, "Where is it, on the left?").reason in ("slots", "relations", "answer")
    free = Turn("What is there?", "a big thing", family="f", task="reasoning", kind="text")
    assert question_refused(free, "Is it a big thing that is there?") is not None


RUBBISH = {
    "empty": (b"", "not_a_completion"),
    "html": (b"<html>busy</html>", "not_a_completion"),
    "list": (b"[]", "not_a_completion"),
    "deep": (b"[" * 100_000, "not_a_completion"),
    "no choice": (b'{"choices": []}', "not_a_completion"),
    "null": (b'{"choices": [{"message": {"content": null}}]}', "no_text"),
    "number": (b'{"choices": [{"message": {"content": 3}}]}', "no_text"),
    "huge": (b"x" * 200_000, "too_large"),
    "bytes": (bytes(range(256)), "not_a_completion"),
    "denied": ((401, b"no"), "http_401"),
    "moved": ((307, b""), "http_307"),
    "lines": ("one\ntwo\nthree", "shape"),
    "markup": ("Is it <|im_start|> here?", "shape"),
    "chatter": ("Sure! " + "Here you are. " * 40, "shape"),
    "novel": ("Lorem ipsum dolor sit amet", "slots"),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_refused_with_its_reason(tmp_path, name):
    made, reason = RUBBISH[name]
    turn = Turn("Is the mug left of the bowl?", "yes", family="f", task="reasoning", kind="yes_no")
    sample = Sample("s", (), (turn,), "", "")
    with serving(lambda text, number: made) as server:
        (done,) = rephrase([sample], annotator(server, tmp_path, max_reply_bytes=100_000))
        asked = len(server.seen)
    assert done.sample is sample
    assert [r.reason for r in done.refused] == [f"rephrase_{reason}"]
    assert asked == 1, "what can't get better is asked once"


def test_errors_that_may_pass_are_tried_again(tmp_path):
    with serving(lambda text, number: (500, b"oops") if number < 3 else "fine") as server:
        one = annotator(server, tmp_path, tries=4)
        reply = one.ask([{"role": "user", "content": "x---\nhello\n---"}])
    assert (reply.text, one.requests) == ("fine", 3)


def test_a_slow_drip_runs_out_of_time(tmp_path):
    with serving(lambda text, number: [b" "] * 200) as server:
        began = time.monotonic()
        reply = annotator(server, tmp_path, timeout_s=0.3, tries=1).ask([{"role": "user", "content": "---\nx\n---"}])
        assert time.monotonic() - began < 3
    assert reply.failure == "timeout"


def test_an_endpoint_that_is_down_is_given_up(tmp_path):
    with serving(lambda text, number: "x") as server:
        gone = annotator(server, tmp_path, give_up_after=2, tries=1, concurrency=1)
    replies = gone.ask_many([[{"role": "user", "content": f"---\n{i}\n---"}] for i in range(5)])
    assert [reply.failure for reply in replies] == ["no_connection"] * 2 + ["endpoint_down"] * 3


def test_nothing_is_asked_twice_and_order_is_kept(samples, tmp_path):
    with serving(lambda text, number: f"{text} {number}") as server:
        one = annotator(server, tmp_path)
        requests = [[{"role": "user", "content": f"---\ntext {i}\n---"}] for i in range(20)]
        first = [reply.text for reply in one.ask_many(requests)]
        asked = len(server.seen)
        again = annotator(server, tmp_path).ask_many(requests)
        other = annotator(server, tmp_path, temperature=0.5).ask(requests[0])
    assert asked == 20
    assert [text.rsplit(" ", 1)[0] for text in first] == [f"text {i}" for i in range(20)]
    assert [reply.text for reply in again] == first
    assert all(reply.cached for reply in again)
    assert not other.cached
    for path in tmp_path.rglob("*.json"):
        path.write_text("torn")
    with serving(honest) as server:
        assert not annotator(server, tmp_path).ask(requests[0]).cached


def test_the_key_comes_from_the_environment_and_is_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    with serving(honest) as server:
        annotator(server, tmp_path, key_variable="MY_KEY").ask([{"role": "user", "content": "---\nx\n---"}])
        path, headers, body = server.seen[0]
        annotator(server, tmp_path, key_variable="NO_KEY").ask([{"role": "user", "content": "---\ny\n---"}])
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in server.seen[1][1]
    assert body["model"] == "tiny"
    assert not any("s3cret" in file.read_text() for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:8000", "http://user:pass@host/v1", ""])
def test_addresses_are_checked(url):
    with pytest.raises(ValueError, match="base_url"):
        Endpoint(url, "m")


FACTS = "red mug <place:0>; blue box <place:1>; white plate <place:2>"


def test_captions_name_just_the_facts(tmp_path):
    prose = "You see a red mug <place:0>, a blue box <place:1> and a white plate <place:2>.".replace(
        "You see", "There is"
    )
    assert caption_refused(FACTS, prose) is None
    lies = {
        "red mug <place:0> and blue box <place:1>": "places",
        "a blue mug <place:0>, a red box <place:1> and a white plate <place:2>": "slots",
        "a blue box <place:0>, a red mug <place:1> and a white plate <place:2>": "slots",
        "a red mug <place:0> left of a blue box <place:1> and a white plate <place:2>": "relations",
        "a red mug <place:0>, a small blue box <place:1> and a white plate <place:2>": "relations",
        "a red mug <place:1>, a blue box <place:0> and a white plate <place:2>": "places",
        "a red mug blue <place:0>, a box <place:1> and a white plate <place:2>": "slots",
    }
    for lie, reason in lies.items():
        assert caption_refused(FACTS, lie).reason == reason, lie
    places = tuple(Point(x, 0.5) for x in (0.1, 0.5, 0.9))
    turn = Turn("Describe it.", FACTS, family="describe", task="description", kind="text", places=places)
    frame = Frame(np.zeros((32, 32, 3), np.uint8))
    sample = Sample("s", (frame,), (turn, replace(turn, answer="red mug", places=())), "", "")
    with serving(lambda text, number: prose) as server:
        (done,) = caption([sample], annotator(server, tmp_path))
        content = server.seen[0][2]["messages"][0]["content"]
    assert content[1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert done.sample.turns[0].answer == prose
    assert done.sample.turns[1] == sample.turns[1]
    assert done.refused == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Which is closer, A <place:0> or B <place:1>?", "Which is closer, B <place:0> or A <place:1>?"),
        ("How many red mugs are there?", "How many red mugs are there besides 2?"),
        ("Can the red mug be lifted without moving anything else?", "Can the red mug be lifted moving anything else?"),
        ("Which is farther, the mug or the cup?", "Which is least far, the mug or the cup?"),
        ("Is there a red mug?", "How many red mugs are there?"),
        ("Box the visible part of the mug.", "Point to the visible part of the mug."),
    ],
)
def test_small_changes_of_meaning_are_seen(before, after):
    assert changed(before, after) is not None
    assert changed(before, before) is None
