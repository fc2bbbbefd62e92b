# ruff: noqa: E402 - what a test needs may be absent
"""The server as the official client of OpenAI, and as everybody else, meets it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the server needs gemvlm[serve]")
pytest.importorskip("prometheus_client", reason="the server needs gemvlm[serve]")
openai = pytest.importorskip("openai", reason="the official client is a development tool")

from fastapi.testclient import TestClient

from gemvlm.camera import Camera, View
from gemvlm.inference import GemPipeline
from gemvlm.serving.http import build_app
from gemvlm.serving.limits import Limits
from gemvlm.serving.service import ServerConfig

Asked = Callable[..., list[dict]]
DataUrl = Callable[..., str]

KEY = "a-key-for-tests"
QUESTION = "What colour is the object on the table?"


@pytest.fixture(scope="module")
def http(nano: GemPipeline) -> Iterator[TestClient]:
    app = build_app(nano, ServerConfig("nano", api_key=KEY))
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture(scope="module")
def client(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key=KEY, http_client=http, max_retries=0)


@pytest.fixture(scope="module")
def asked(picture: np.ndarray, data_url: DataUrl) -> Asked:
    """Messages with a question about the picture, upright or turned."""

    def messages(question: str = QUESTION, turned: bool = False) -> list[dict]:
        image = {"type": "image_url", "image_url": {"url": data_url(picture[::-1] if turned else picture)}}
        return [{"role": "user", "content": [image, {"type": "text", "text": question}]}]

    return messages


def test_the_official_client_gets_the_pipelines_answer(
    client: openai.OpenAI, nano: GemPipeline, picture: np.ndarray, asked: Asked
) -> None:
    reply = client.chat.completions.create(model="nano", messages=asked(), max_tokens=24)
    expected = nano.ask(picture, QUESTION, max_new_tokens=24)
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == ("stop" if expected.finished else "length")
    assert reply.usage is not None and reply.usage.prompt_tokens > 36
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_joined_is_the_whole_answer(
    client: openai.OpenAI, nano: GemPipeline, picture: np.ndarray, asked: Asked
) -> None:
    messages = asked("Describe the scene.")
    chunks = list(
        client.chat.completions.create(
            model="nano", messages=messages, max_tokens=40, stream=True, stream_options={"include_usage": True}
        )
    )
    words = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(words) == nano.ask(picture, "Describe the scene.", max_new_tokens=40).text
    assert len([word for word in words if word]) > 3
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 3


def test_a_conversation_goes_on(client: openai.OpenAI, asked: Asked) -> None:
    messages = [
        {"role": "system", "content": "Answer in one word."},
        *asked(),
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "How many objects are there?"},
    ]
    first = client.chat.completions.create(model="nano", messages=messages, max_completion_tokens=8)
    again = client.chat.completions.create(model="nano", messages=messages, max_completion_tokens=8)
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.usage is not None and first.usage.prompt_tokens > 60


def test_several_pictures_and_none(client: openai.OpenAI, asked: Asked) -> None:
    two = asked()
    two[0]["content"].insert(0, asked(turned=True)[0]["content"][0])
    counts = []
    for messages in ([{"role": "user", "content": "Hello"}], asked(), two):
        reply = client.chat.completions.create(model="nano", messages=messages, max_tokens=2)
        assert reply.usage is not None
        counts.append(reply.usage.prompt_tokens)
    assert counts[0] < counts[1] < counts[2]


def test_chance_is_seeded(client: openai.OpenAI, asked: Asked) -> None:
    texts = [
        client.chat.completions.create(
            model="nano", messages=asked("Describe the scene."), max_tokens=12, temperature=1.5, seed=seed
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


def test_a_wrong_key_opens_nothing_but_health(http: TestClient) -> None:
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}, {"Authorization": KEY}):
        for path in ("/v1/models", "/v1/chat/completions", "/metrics", "/openapi.json", "/nothing"):
            reply = http.get(path, headers=headers)
            assert reply.status_code == 401, path
            assert reply.json()["error"]["code"] == "invalid_api_key"
    assert http.get("/healthz", headers={"Authorization": ""}).status_code == 200


def test_a_point_is_the_pipelines(http: TestClient, nano: GemPipeline, picture: np.ndarray, data_url: DataUrl) -> None:
    reply = http.post("/v1/point", json={"image": data_url(picture), "expression": "the red mug"})
    expected = nano.point(picture, "red mug")
    assert reply.status_code == 200
    found = reply.json()["point"]
    assert (found is None) == (expected is None)
    if expected is not None:
        assert (found["x"], found["y"]) == (expected.x, expected.y)


def test_depth_in_each_form(http: TestClient, nano: GemPipeline, picture: np.ndarray, data_url: DataUrl) -> None:
    expected = nano.depth(picture, steps=2).depth
    request = {"image": data_url(picture), "steps": 2}
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


def test_a_place_in_space(http: TestClient, nano: GemPipeline, picture: np.ndarray, data_url: DataUrl) -> None:
    pose = [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
    request = {"image": data_url(picture), "expression": "red mug", "steps": 2, "camera_to_world": pose}
    reply = http.post("/v1/locate", json=request | {"camera": {"fov_y_deg": 45}})
    view = View(Camera.from_fov(160, 120, 45.0), np.array(pose, dtype=np.float64))
    expected = nano.locate(picture, "red mug", view, steps=2)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert found["text"] == expected.reply
    assert found["missing"] == expected.missing
    if expected.world_m is not None:
        assert found["world_m"] == pytest.approx(expected.world_m)
        measured = data_url(np.full((120, 160), 1500, np.uint16))
        again = http.post("/v1/locate", json=request | {"camera": {"fov_y_deg": 45}, "depth": measured}).json()
        assert (again["depth_source"], again["camera_m"][2]) == ("measured", 1.5)
        fitted = data_url((1000 * nano.depth(picture, steps=2).depth.values * 1.5).astype(np.uint16))
        brought = http.post("/v1/locate", json=request | {"camera": {"fov_y_deg": 45}, "fit": fitted}).json()
        assert brought["depth_source"] == "aligned"
        assert brought["camera_m"][2] == pytest.approx(1.5 * found["camera_m"][2], rel=0.02)
        on_wall = http.post("/v1/locate", json=request | {"camera": {"fov_y_deg": 45}, "support_m": 3.5}).json()
        told = nano.locate(picture, "red mug", view, steps=2, support_m=3.5)
        assert on_wall["missing"] == told.missing and on_wall["depth_source"] == told.depth_source
        camera = {"fx": view.camera.fx, "fy": view.camera.fy, "cx": 79.5, "cy": 59.5}  # as OpenCV counts
        assert http.post("/v1/locate", json=request | {"camera": camera}).json()["world_m"] == found["world_m"]


@pytest.mark.parametrize(
    "change",
    [
        {"camera": {}},
        {"camera": {"fx": 100.0, "fov_y_deg": 45}},
        {"camera": {"fov_y_deg": 180}},
        {"camera_to_world": [[1, 0, 0, 0]]},
        {"camera_to_world": [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"camera_to_world": [[1e308, 1e308, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"depth": "small"},
        {"depth": "colour"},
        {"fit": "small"},
        {"support_m": 0.7},
        {"expression": " "},
        {"ensemble": 8, "steps": 100},
    ],
)
def test_places_that_make_no_sense(http: TestClient, picture: np.ndarray, data_url: DataUrl, change: dict) -> None:
    pictures = {"small": data_url(np.ones((9, 9), np.uint16)), "colour": data_url(picture)}
    change = {name: pictures[value] if name in ("depth", "fit") else value for name, value in change.items()}
    request = {"image": data_url(picture), "expression": "mug", "camera": {"fov_y_deg": 45}, "steps": 1} | change
    reply = http.post("/v1/locate", json=request)
    assert reply.status_code == 400, reply.text
    assert next(iter(change)) in reply.json()["error"]["message"]


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


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("hidden"), 500), (MemoryError("hidden"), 503), (ValueError("the steps are odd"), 400)],
)
def test_failures_of_our_own_tell_nothing_but_that(
    http: TestClient,
    nano: GemPipeline,
    monkeypatch: pytest.MonkeyPatch,
    picture: np.ndarray,
    data_url: DataUrl,
    error: Exception,
    status: int,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(nano, "depth_batch", fails)
    reply = http.post("/v1/depth", json={"image": data_url(picture), "steps": 1})
    assert reply.status_code == status
    assert "hidden" not in reply.text and reply.json()["error"]["message"]
    monkeypatch.undo()
    assert http.post("/v1/depth", json={"image": data_url(picture), "steps": 1}).status_code == 200


def test_pictures_of_one_request_have_a_bound_together(
    nano: GemPipeline, picture: np.ndarray, data_url: DataUrl
) -> None:
    limits = Limits(all_pixels=2 * picture.shape[0] * picture.shape[1])
    with TestClient(build_app(nano, ServerConfig("nano", limits))) as client:

        def ask(count: int) -> int:
            parts = [{"type": "image_url", "image_url": {"url": data_url(picture)}}] * count
            content = [*parts, {"type": "text", "text": "What?"}]
            messages = [{"role": "user", "content": content}]
            body = {"model": "nano", "messages": messages, "max_tokens": 1}
            return client.post("/v1/chat/completions", json=body).status_code

        assert (ask(2), ask(3)) == (200, 413)
