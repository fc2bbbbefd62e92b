"""The server as the official client of OpenAI, and as everybody else, meets it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")
pytest.importorskip("prometheus_client", reason="the server needs gemvlm[serve]")
openai = pytest.importorskip("openai", reason="the official client is a development tool")

from fastapi.testclient import TestClient

from gemvlm.inference import GemPipeline, load
from gemvlm.serving.http import ServerConfig, build_app

KEY = "a-key-for-tests"
QUESTION = "What colour is the object on the table?"


@pytest.fixture(scope="module")
def pipeline() -> GemPipeline:
    return load("nano", device="cpu")


@pytest.fixture(scope="module")
def http(pipeline: GemPipeline) -> Iterator[TestClient]:
    app = build_app(pipeline, ServerConfig("nano", api_key=KEY))
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture(scope="module")
def client(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key=KEY, http_client=http, max_retries=0)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def asked(picture: np.ndarray, question: str = QUESTION) -> list[dict]:
    image = {"type": "image_url", "image_url": {"url": data_url(png(picture))}}
    return [{"role": "user", "content": [image, {"type": "text", "text": question}]}]


def test_the_official_client_gets_the_pipelines_answer(
    client: openai.OpenAI, pipeline: GemPipeline, picture: np.ndarray
) -> None:
    reply = client.chat.completions.create(model="nano", messages=asked(picture), max_tokens=24)
    expected = pipeline.ask(picture, QUESTION, max_new_tokens=24)
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == ("stop" if expected.finished else "length")
    assert reply.usage is not None and reply.usage.prompt_tokens > 36
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_joined_is_the_whole_answer(client: openai.OpenAI, pipeline: GemPipeline, picture: np.ndarray) -> None:
    messages = asked(picture, "Describe the scene.")
    chunks = list(
        client.chat.completions.create(
            model="nano", messages=messages, max_tokens=40, stream=True, stream_options={"include_usage": True}
        )
    )
    words = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(words) == pipeline.ask(picture, "Describe the scene.", max_new_tokens=40).text
    assert len([word for word in words if word]) > 3
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 3


def test_a_conversation_goes_on(client: openai.OpenAI, picture: np.ndarray) -> None:
    messages = [
        {"role": "system", "content": "Answer in one word."},
        *asked(picture),
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "How many objects are there?"},
    ]
    first = client.chat.completions.create(model="nano", messages=messages, max_completion_tokens=8)
    again = client.chat.completions.create(model="nano", messages=messages, max_completion_tokens=8)
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.usage is not None and first.usage.prompt_tokens > 60


def test_several_pictures_and_none(client: openai.OpenAI, picture: np.ndarray) -> None:
    two = asked(picture)
    two[0]["content"].insert(0, asked(picture[::-1])[0]["content"][0])
    counts = []
    for messages in ([{"role": "user", "content": "Hello"}], asked(picture), two):
        reply = client.chat.completions.create(model="nano", messages=messages, max_tokens=2)
        assert reply.usage is not None
        counts.append(reply.usage.prompt_tokens)
    assert counts[0] < counts[1] < counts[2]


def test_chance_is_seeded(client: openai.OpenAI, picture: np.ndarray) -> None:
    texts = [
        client.chat.completions.create(
            model="nano", messages=asked(picture, "Describe the scene."), max_tokens=12, temperature=1.5, seed=seed
        ).choices[0].message.content
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert texts[0] == texts[1] != texts[2]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["nano"]


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "invalid_value"),
        ({"n": 2}, openai.BadRequestError, "unsupported_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "unsupported_parameter"),
        ({"extra_body": {"imaginary": 1}}, openai.BadRequestError, "unsupported_parameter"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, openai.BadRequestError, "invalid_value"),
        ({"messages": [{"role": "user", "content": "<image>"}]}, openai.BadRequestError, "invalid_value"),
        ({"messages": [{"role": "user", "content": "a" * 100_001}]}, openai.APIStatusError, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x " * 4000}]}, openai.BadRequestError, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "S"}]},
         openai.BadRequestError, "invalid_value"),
    ],
)  # fmt: skip
def test_refusals_reach_the_official_client_by_name(
    client: openai.OpenAI, change: dict, kind: type[Exception], code: str
) -> None:
    request = {"model": "nano", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2} | change
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**request)
    assert caught.value.code == code
    assert caught.value.body["message"]


def test_values_that_ask_for_nothing_are_taken(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="nano", messages=[{"role": "user", "content": "Hi"}], max_tokens=1, n=1, top_p=1.0, user="u",
        presence_penalty=0, stop=None, response_format={"type": "text"},
    )  # fmt: skip


def test_a_wrong_key_is_refused_before_the_body_is_read(http: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}, {"Authorization": KEY}):
        for path in ("/v1/models", "/v1/chat/completions", "/metrics", "/openapi.json", "/nothing"):
            reply = http.get(path, headers=headers)
            assert reply.status_code == 401, path
            assert reply.json()["error"]["code"] == "invalid_api_key"
    assert http.get("/healthz", headers={"Authorization": ""}).status_code == 200


def test_a_point_is_the_pipelines(http: TestClient, pipeline: GemPipeline, picture: np.ndarray) -> None:
    reply = http.post("/v1/point", json={"image": data_url(png(picture)), "expression": "the red mug"})
    expected = pipeline.point(picture, "red mug")
    assert reply.status_code == 200
    found = reply.json()["point"]
    assert (found is None) == (expected is None)
    if expected is not None:
        assert (found["x"], found["y"]) == (expected.x, expected.y)


def test_depth_in_each_form(http: TestClient, pipeline: GemPipeline, picture: np.ndarray) -> None:
    expected = pipeline.depth(picture, steps=2).depth
    request = {"image": data_url(png(picture)), "steps": 2}
    whole = http.post("/v1/depth", json=request).json()
    assert (whole["kind"], whole["unit"], whole["width"], whole["height"]) == ("metric_z", "m", 160, 120)
    counts = np.array(Image.open(io.BytesIO(base64.b64decode(whole["data"]))))
    assert np.allclose(counts * whole["scale"], np.where(expected.valid, expected.values, 0), atol=6e-4)
    bare = http.post("/v1/depth", json=request, headers={"Accept": "image/png"})
    assert bare.headers["content-type"] == "image/png"
    assert bare.content == base64.b64decode(whole["data"])
    arrays = np.load(io.BytesIO(http.post("/v1/depth", json=request | {"format": "npz"}).content), allow_pickle=False)
    assert np.array_equal(arrays["values"], expected.values)
    assert http.post("/v1/depth", json=request | {"steps": 10_000}).status_code == 400


def test_health_and_metrics(http: TestClient) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready"}
    http.get("/v1/no-such-path")
    text = http.get("/metrics").text
    assert 'gemvlm_requests_total{path="/healthz",status="200"}' in text
    assert 'path="other",status="404"' in text and "no-such-path" not in text
    assert "gemvlm_requests_waiting 0.0" in text


def test_wrong_paths_and_methods_have_openais_form(http: TestClient) -> None:
    for reply, status in ((http.get("/v2/models"), 404), (http.get("/v1/depth"), 405)):
        assert reply.status_code == status
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx.Headers(http.get("/v1/depth").headers)["allow"] == "POST"


def test_nothing_outside_is_named_in_the_document(http: TestClient) -> None:
    document = http.get("/openapi.json").text
    assert '"422"' not in document and "ValidationError" not in document
    assert http.get("/docs").status_code == 404
