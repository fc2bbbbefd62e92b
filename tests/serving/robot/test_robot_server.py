"""What the server promises: greeting, answers, limits, refusals, pages, and pings while the policy thinks."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from servo_policy import CONTRACT, PER_ACTION, SIZE, ServoPolicy, picture

from gemvlm.robot import ActionChunk
from gemvlm.robot.limits import Limits
from gemvlm.serving.robot_messages import pack, unpack
from gemvlm.serving.robot_server import RobotServer, ServerSettings, background_server
from gemvlm.serving.robot_worker import PolicyError
from gemvlm_client import DeadlineError, Observation, RobotClient, ServerError

pytest.importorskip("websockets", reason="needs gemvlm[serve]")


PATIENT = Limits(stale_after_s=60.0)
"""On a busy machine an answer takes a while; staleness has tests of its own."""


def asking(url: str, **settings: Any) -> RobotClient:
    return RobotClient(url, deadline_s=20.0, **settings)


def serving(policy: ServoPolicy | None = None, limits: Limits = PATIENT, **settings: Any):
    return background_server(
        policy or ServoPolicy(), limits=limits, settings=ServerSettings(picture_size=(SIZE, SIZE), **settings)
    )


@pytest.fixture(scope="module")
def server() -> Iterator[RobotServer]:
    with serving() as running:
        yield running


def observation(
    prompt: str = "go", step: int = 0, state: tuple[float, float] = (0.0, 0.0), **fields: Any
) -> Observation:
    fields.setdefault("time_s", time.monotonic())
    return Observation({"front": picture((1, -1))}, np.array(state, np.float32), prompt, step=step, **fields)


def get(server: RobotServer, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(server.url.replace("ws://", "http://") + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_greeting_says_what_the_policy_is(server: RobotServer):
    with asking(server.url) as client:
        told = client.metadata
    assert told["contract"] == {n: list(v) if isinstance(v, tuple) else v for n, v in vars(CONTRACT).items()}
    assert told["horizon"] == 16 and told["protocol"] == "openpi" and told["versions"]["numpy"] == np.__version__
    assert told["limits"]["stale_after_s"] == 60.0 and len(told["warm_up_ms"]) == 2
    assert told["cameras"] == {"front": None} and told["robot_cameras"] == {} and told["prompt"] is None
    assert json.loads(get(server, "/metadata")[1]) == told


def test_robots_are_told_what_the_policy_learned_from():
    settings: dict[str, Any] = {"pictures": {"front": (SIZE, SIZE)}, "about": {"executed": 8, "units": {"x": "m"}}}
    with serving(**settings) as running, asking(running.url) as client:
        told = client.metadata
    assert told["cameras"] == {"front": [SIZE, SIZE]} and told["executed"] == 8 and told["units"] == {"x": "m"}
    with (
        pytest.raises(ValueError, match="pictures: wrist are none of the policy's cameras front"),
        serving(pictures={"wrist": (SIZE, SIZE)}),
    ):
        pass


def test_a_chunk_moves_towards_what_the_camera_sees(server: RobotServer):
    with asking(server.url) as client:
        chunk = client.infer(observation())
    assert chunk.actions.shape == (16, 2) and chunk.rate_hz == 50.0 and not chunk.stop
    assert np.allclose(chunk.actions[0], [PER_ACTION, -PER_ACTION])
    assert {"infer_ms", "wait_ms", "age_ms", "p50_ms", "p90_ms", "p99_ms"} <= set(chunk.timing)


def test_the_next_chunk_continues_the_actions_under_way():
    policy = ServoPolicy()
    with serving(policy) as running, asking(running.url) as client:
        first = client.infer(observation())
        second = client.infer(observation(step=3), committed=8)
    assert second.committed == 5
    assert np.array_equal(second.actions[:5], first.actions[3:8])
    given = policy.committed[-1]
    assert given is not None and given.fixed == 5 and np.array_equal(given.actions, first.actions[3:])


def test_equal_seeds_and_steps_give_the_policy_equal_seeds():
    policy = ServoPolicy()
    with serving(policy) as running:
        for _ in range(2):
            with asking(running.url) as client:
                client.reset(seed=4)
                client.infer(observation())
                client.infer(observation(step=3))
                client.reset(seed=5)
                client.infer(observation())
                client.infer(observation(step=1), seed=99)
    seeds = policy.seeds[2:]
    assert seeds[:4] == seeds[4:] and len(set(seeds)) == 4 and seeds[3] == 99


def test_the_limits_cut_and_say_so():
    limits = Limits(workspace={"x": (-1.0, 0.1)}, stale_after_s=60.0)
    with serving(limits=limits) as running, asking(running.url) as client:
        chunk = client.infer(observation())
    assert chunk.actions[:, 0].max() <= 0.1 + 1e-6
    assert chunk.actions[-1, 1] == pytest.approx(-16 * PER_ACTION, abs=1e-5), "the other axis is free"
    assert not chunk.stop and any("x" in line and "workspace" in line for line in chunk.limited)


def test_a_stale_observation_is_answered_with_a_stop_and_the_policy_is_not_asked():
    policy = ServoPolicy()
    with serving(policy) as running, asking(running.url) as client:
        asked = len(policy.asked)
        chunk = client.infer(observation(state=(0.3, 0.2), time_s=time.monotonic() - 100.0))
        assert chunk.stop and "old" in chunk.reason
        assert np.allclose(chunk.actions, [0.3, 0.2])
        assert len(policy.asked) == asked
        assert not client.infer(observation()).stop


def test_actions_that_are_not_finite_become_a_stop(server: RobotServer):
    with asking(server.url) as client:
        chunk = client.infer(observation("not a number", state=(0.3, 0.2)))
        assert chunk.stop and "NaN" in chunk.reason and np.allclose(chunk.actions, [0.3, 0.2])


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("fail", "policy: RuntimeError: the arm fell off"),
        ("one axis", r"policy: PolicyError: actions of shape \(16, 1\)"),
    ],
)
def test_a_policy_that_fails_is_told_to_its_robot_and_the_others_are_served(
    server: RobotServer, prompt: str, says: str
):
    with asking(server.url) as client, asking(server.url) as other:
        other.infer(observation())
        with pytest.raises(ServerError, match=says):
            client.infer(observation(prompt))
        assert not other.infer(observation(step=1)).stop
        assert not client.infer(observation()).stop, "it has come back by itself"


def test_a_wrong_field_is_told_by_name(server: RobotServer):
    with asking(server.url) as client:
        with pytest.raises(ServerError, match=r"observation/front: must be an RGB picture.*float64"):
            client.infer(Observation({"front": np.zeros((4, 4, 3))}, np.zeros(2), "go", 0.0))
        with pytest.raises(ServerError, match=r"observation/state: must be 2 numbers \(x, y\)"):
            client.infer(Observation({"front": picture((0, 0))}, np.zeros(3), "go", time.monotonic()))


def test_a_robot_that_sends_no_prompt_is_served_where_the_server_has_one(server: RobotServer):
    from websockets.sync.client import connect

    silent = pack({"images": {"front": picture((1, -1)).transpose(2, 0, 1)}, "state": np.zeros(2, np.float32)})

    def ask(url: str) -> tuple[Any, bytes | str]:
        with connect(url, max_size=None) as socket:
            told = unpack(socket.recv())
            socket.send(silent)
            return told, socket.recv()

    with serving(prompt="go to the light") as running:
        told, answer = ask(running.url)
    assert told["prompt"] == "go to the light" and unpack(answer)["actions"].shape == (16, 2)
    assert "--prompt" in ask(server.url)[1]


def test_robots_that_wait_are_answered_together():
    gate = threading.Event()
    policy = ServoPolicy(gate=gate)
    chunks: dict[float, ActionChunk] = {}

    def ask(place: float) -> None:
        with asking(running.url) as client:
            chunks[place] = client.infer(observation(state=(place, 0.0)))

    with serving(policy) as running:
        threads = [threading.Thread(target=ask, args=(place,)) for place in (0.0, 0.1, 0.2, 0.3)]
        queue, until = running.service.worker.queue, time.monotonic() + 10
        threads[0].start()
        while queue.working == 0 and time.monotonic() < until:
            time.sleep(0.01)
        for thread in threads[1:]:
            thread.start()
        while len(queue) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        gate.set()
        for thread in threads:
            thread.join()
    assert policy.asked[2:] == [1, 3]
    assert all(chunk.actions[0, 0] == pytest.approx(place + PER_ACTION) for place, chunk in chunks.items())


def test_a_slow_policy_does_not_stop_the_pings():
    """With the policy on the event loop, keep-alive would end the connection after 0.3 s (openpi, pull request 717)."""
    settings = {"ping_interval_s": 0.1, "ping_timeout_s": 0.2}
    with (
        serving(ServoPolicy(seconds=1.0), **settings) as running,
        RobotClient(running.url, deadline_s=20.0, ping_interval_s=0.2) as client,
    ):
        assert not client.infer(observation()).stop
        assert client.connections == 1


def test_health_answers_while_the_policy_thinks_and_says_when_it_hangs():
    gate = threading.Event()
    with serving(ServoPolicy(gate=gate), answer_timeout_s=0.5) as running, asking(running.url) as client:
        assert get(running, "/healthz") == (200, "OK\n")
        with pytest.raises(ServerError, match=r"policy: no answer within 0.5 s"):
            client.infer(observation(), deadline_s=10)
        until = time.monotonic() + 10  # the policy may have begun later than the robot to wait
        while (told := get(running, "/healthz"))[0] == 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert told[0] == 503 and "has been at one answer for" in told[1]
        gate.set()
        until = time.monotonic() + 10
        while get(running, "/healthz")[0] != 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert not client.infer(observation()).stop


def test_the_policy_is_not_asked_for_robots_that_have_left():
    gate = threading.Event()
    policy = ServoPolicy(gate=gate)
    with serving(policy) as running:
        for _ in range(3):
            client = asking(running.url)
            client.connect()
            with pytest.raises(DeadlineError):
                client.infer(observation(), deadline_s=0.3)
        until = time.monotonic() + 10
        while running.service.connected and time.monotonic() < until:
            time.sleep(0.01)
        gate.set()
        with asking(running.url) as client:
            client.infer(observation(), deadline_s=10)
    assert policy.asked == [1, 1, 1, 1], "two to get warm, the first robot's, and the last one's"


def test_more_robots_or_questions_than_agreed_are_turned_away():
    gate = threading.Event()
    with serving(ServoPolicy(gate=gate), max_connections=2, max_waiting=1, answer_timeout_s=20.0) as running:
        with asking(running.url), asking(running.url):
            assert get(running, "/") == (503, "too many robots are connected\n")
        until = time.monotonic() + 10
        while running.service.connected and time.monotonic() < until:
            time.sleep(0.01)
        running.service.worker.queue.room = 0
        with asking(running.url) as client, pytest.raises(ServerError, match=r"busy: .* try again"):
            client.infer(observation())
        gate.set()


def test_only_who_has_the_key_is_let_in():
    with serving(api_key="s3cret") as running:
        with asking(running.url, api_key="s3cret") as client:
            assert not client.infer(observation()).stop
        for key in (None, "wrong"):
            with pytest.raises(ServerError, match="API key"):
                asking(running.url, api_key=key).connect()
        assert get(running, "/healthz")[0] == 200
        assert get(running, "/metrics")[0] == 401 and get(running, "/metadata")[0] == 401
        assert get(running, "/metrics", Authorization="Bearer s3cret")[0] == 200


def test_metrics_count_what_happened():
    with serving() as running, asking(running.url) as client:
        for step in range(3):
            client.infer(observation(step=step))
        client.infer(observation(step=3, time_s=time.monotonic() - 100.0))
        with pytest.raises(ServerError):
            client.infer(observation("fail", step=4))
        text = get(running, "/metrics")[1]
    from prometheus_client.parser import text_string_to_metric_families

    assert len(list(text_string_to_metric_families(text))) == 9
    assert "gemvlm_robot_answers_total 3\n" in text and "gemvlm_robot_stops_total 1\n" in text
    assert "gemvlm_robot_failures_total 1\n" in text and "gemvlm_robot_answer_seconds_count 4\n" in text
    assert "gemvlm_robot_inference_seconds_count 5\n" in text, "two of them to get warm"


def test_a_policy_that_can_not_answer_is_not_served():
    class Broken(ServoPolicy):
        def act(self, *_: Any) -> list[ActionChunk]:
            return []

    with pytest.raises(PolicyError, match="1 observations were answered with 0 chunks"), serving(Broken()):
        pass


def test_limits_that_do_not_fit_the_robot_are_told_at_the_start():
    with (
        pytest.raises(ValueError, match=r"workspace name.*elbow"),
        serving(limits=Limits(workspace={"elbow": (0.0, 1.0)})),
    ):
        pass


def test_a_page_in_a_browser_is_not_let_in(server: RobotServer):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus, match="403"), connect(server.url, origin="http://evil.example"):
        pass


def test_settings_that_can_not_work_are_refused():
    for wrong in ({"max_batch": 0}, {"ping_interval_s": 0.0}, {"api_key": ""}, {"api_key": "a b "}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ServerSettings(**wrong)
