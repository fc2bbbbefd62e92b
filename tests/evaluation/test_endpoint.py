"""An endpoint that answers, and all the ways in which one does not: each costs its items, and never the denominator."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from toy_benchmark import ToyBenchmark

from gemvlm.evaluation.answerers import EndpointAnswerer, Patience
from gemvlm.evaluation.benchmark import Convention, Media

ITEMS = ToyBenchmark().items()
Behaviour = Callable[[BaseHTTPRequestHandler, dict[str, Any], int], None]
Server = tuple[str, list[dict[str, Any]], Callable[[Behaviour], None]]


def say(handler: BaseHTTPRequestHandler, content: bytes, state: int = 200) -> None:
    handler.send_response(state)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def completion(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    """A local endpoint, what it was asked, and how to change its ways."""
    asked: list[dict[str, Any]] = []
    behaviour: list[Behaviour] = [lambda handler, _, __: say(handler, completion("A"))]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            behaviour[0](self, body, len(asked))

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()

    def change(to: Behaviour) -> None:
        behaviour[0] = to

    yield f"http://127.0.0.1:{httpd.server_address[1]}/v1", asked, change
    httpd.shutdown()
    httpd.server_close()


def answerer(url: str, waits: list[float] | None = None, **patience: Any) -> EndpointAnswerer:
    waited = [] if waits is None else waits
    given = Patience(**{"timeout_s": 5.0, "tries": 3, **patience})
    return EndpointAnswerer(url, "toy", "toy", Convention(), patience=given, batch_size=2, sleep=waited.append)


def test_an_item_is_asked_as_the_protocol_says(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked, _ = server
    monkeypatch.setenv("OPENAI_API_KEY", "secret-word")
    model = answerer(url + "/")
    (reply,) = model.answer([ITEMS[1]])
    assert (reply.text, reply.failure, reply.frames) == ("A", None, 1)
    (request,) = asked
    assert (request["path"], request["key"]) == ("/v1/chat/completions", "Bearer secret-word")
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("toy", 0, 128)
    before, picture, after = request["messages"][0]["content"]
    assert (before["text"], after["text"]) == ("Point at ", " the square.")
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == ITEMS[1].media[0].content, "the publisher's bytes, not compressed again"
    assert "secret-word" not in json.dumps(model.describe())


def test_replies_come_in_order(server: Server) -> None:
    url, _, change = server
    change(lambda handler, body, _: say(handler, completion(str(body["messages"][0]["content"])[-30:])))
    many = [reply.text for reply in answerer(url).answer(ITEMS)]
    one = [answerer(url).answer([item])[0].text for item in ITEMS]
    assert many == one


@pytest.mark.parametrize(
    ("wrong", "said", "tries"),
    [
        (lambda h, _, __: say(h, b"busy", 503), "HTTP 503: busy", 3),
        (lambda h, _, __: say(h, b"slow down", 429), "HTTP 429", 3),
        (lambda h, _, __: say(h, b"no such model", 404), "HTTP 404: no such model", 1),
        (lambda h, _, __: say(h, b"who are you", 401), "HTTP 401", 1),
        (lambda h, _, __: say(h, b"elsewhere", 302), "HTTP 302", 1),
        (lambda h, _, __: say(h, b"<html>"), "no chat completion", 3),
        (lambda h, _, __: say(h, b"{}"), "no chat completion", 3),
        (lambda h, _, __: say(h, b"\xff" * 30), "no chat completion", 3),
        (lambda h, _, __: say(h, b"[" * 100_000), "no chat completion", 3),
        (lambda h, _, __: say(h, completion(None)), "without text", 3),
        (lambda h, _, __: say(h, b" " * (4 * 2**20 + 1)), "more than", 3),
        (lambda h, _, __: h.connection.close(), "", 3),
        (lambda h, _, __: threading.Event().wait(1.0), "timed out", 3),
    ],
    ids=[
        "busy",
        "hurry",
        "unknown",
        "stranger",
        "moved",
        "page",
        "empty",
        "bytes",
        "deep",
        "mute",
        "endless",
        "gone",
        "silent",
    ],
)
def test_what_goes_wrong_is_tried_again_where_that_helps(
    server: Server, wrong: Behaviour, said: str, tries: int
) -> None:
    url, asked, change = server
    change(wrong)
    waits: list[float] = []
    (reply,) = answerer(url, waits, timeout_s=0.3 if said == "timed out" else 5.0).answer([ITEMS[0]])
    assert reply.text == ""
    assert reply.failure is not None
    assert said in reply.failure
    assert len(asked) == tries
    assert waits == [1.0, 2.0][: tries - 1]


def test_another_try_may_help(server: Server) -> None:
    url, asked, change = server
    change(lambda h, _, n: say(h, completion("B")) if n == 3 else say(h, b"", 500))
    (reply,) = answerer(url).answer([ITEMS[0]])
    assert (reply.text, reply.failure, len(asked)) == ("B", None, 3)


def test_waits_grow_and_end_somewhere() -> None:
    waits: list[float] = []
    answerer("http://127.0.0.1:9/v1", waits, tries=7, longest_wait_s=10.0).answer([ITEMS[0]])
    assert waits == [1, 2, 4, 8, 10, 10]


def test_an_endpoint_that_died_is_given_up(server: Server) -> None:
    url, asked, change = server
    change(lambda h, _, n: say(h, completion("A")) if n <= 2 else say(h, b"", 500))
    model = answerer(url, tries=1, give_up_after=4)
    replies = [model.answer([item])[0] for item in ITEMS]
    assert [reply.failure is None for reply in replies] == [True] * 2 + [False] * 10
    assert len(asked) == 6
    assert "given up after 4 failures in a row" in str(replies[-1].failure)


def test_bad_media_are_that_items_failure_alone(server: Server) -> None:
    url, asked, _ = server
    bad = dataclasses.replace(ITEMS[0], media=(Media(b"rubbish"),))
    replies = answerer(url).answer([bad, ITEMS[1]])
    assert "can't be decoded" in str(replies[0].failure)
    assert replies[1].text == "A"
    assert len(asked) == 1
