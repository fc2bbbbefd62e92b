"""What a session remembers: seeds, the age of pictures by two clocks, and the actions already under way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from servo_policy import CONTRACT, picture

from gemvlm.robot import ActionChunk, RobotObservation
from gemvlm.robot.limits import Limits
from gemvlm.serving.robot_latency import Latencies
from gemvlm.serving.robot_requests import Question, RequestError
from gemvlm.serving.robot_session import Age, Session

HORIZON = 8
RAMP = ActionChunk(np.linspace(0, 1, 2 * HORIZON, dtype=np.float32).reshape(HORIZON, 2), 50.0)


def question(**fields: Any) -> Question:
    return Question(RobotObservation({"front": picture((0, 0))}, np.zeros(2, np.float32), "go"), **fields)


def session(**limits: Any) -> Session:
    return Session(CONTRACT, HORIZON, Limits(**limits), seed=0)


def test_seeds_follow_from_the_episodes_seed_and_the_step_alone():
    one, two = session(), session()
    two.reset(5)
    first = [one.begin(question(step=step), 0.0).seed for step in (0, 3)]
    assert first == [session().begin(question(step=step), 9.0).seed for step in (0, 3)]
    assert len({*first, two.begin(question(step=0), 0.0).seed}) == 3
    assert one.begin(question(step=4, seed=77), 0.0).seed == 77


def test_steps_are_counted_for_robots_that_do_not_say_them():
    one = session()
    for expected in range(3):
        turn = one.begin(question(), 0.0)
        assert turn.observation.step == expected
        one.answer(turn, RAMP, 0.0)
    one.reset(None)
    assert one.begin(question(), 0.0).observation.step == 0


def test_an_episode_does_not_run_backwards():
    one = session()
    one.answer(one.begin(question(step=5), 0.0), RAMP, 0.0)
    with pytest.raises(RequestError, match="step: 3 after 5; send a reset"):
        one.begin(question(step=3), 0.0)
    one.reset(None)
    assert one.begin(question(step=3), 0.0).observation.step == 3


def test_the_new_chunk_is_given_the_actions_that_run_until_it_arrives():
    one = session()
    one.answer(one.begin(question(step=10), 0.0), RAMP, 0.0)
    turn = one.begin(question(step=12, committed=6), 0.0)
    assert turn.committed is not None
    assert turn.committed.fixed == 4 and np.array_equal(turn.committed.actions, RAMP.actions[2:])
    assert one.answer(turn, RAMP, 0.0)["committed"] == 4
    assert one.begin(question(step=13, committed=1), 0.0).committed is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"committed": 3}, "needs `step`"),
        ({"step": 14, "committed": 3}, "between the 4 actions already executed and the 8"),
        ({"step": 12, "committed": 9}, "between the 2 actions already executed and the 8"),
    ],
)
def test_committed_actions_must_be_there(fields: dict[str, int], says: str):
    one = session()
    one.answer(one.begin(question(step=10), 0.0), RAMP, 0.0)
    with pytest.raises(RequestError, match=says):
        one.begin(question(**fields), 0.0)


def test_a_new_episode_has_no_previous_chunk():
    one = session()
    one.answer(one.begin(question(step=1), 0.0), RAMP, 0.0)
    one.reset(None)
    with pytest.raises(RequestError, match="no previous chunk in this episode"):
        one.begin(question(step=2, committed=1), 0.0)


class TestAge:
    """The robot's clock began somewhere else: here 1000 s later than the server's."""

    def test_from_looking_to_sending_to_receiving(self):
        age = Age()
        assert age.of(question(time_s=1000.0, sent_s=1000.1), 0.13) == pytest.approx(0.1)
        assert age.of(question(time_s=1001.0, sent_s=1001.1), 1.33) == pytest.approx(0.3), "0.2 s slower on its way"
        assert age.of(question(time_s=1002.0, sent_s=1002.1), 2.12) == pytest.approx(0.1), "0.01 s faster: the new best"

    def test_a_camera_that_stands_still_grows_old(self):
        age = Age()
        assert [age.of(question(time_s=1000.0), now) for now in (0.0, 0.5, 2.0)] == [0.0, 0.5, 2.0]

    def test_a_clock_that_drifts_is_forgiven(self):
        """100 millionths fast: after a thousand seconds the clocks have parted by 0.1 s."""
        age = Age()
        moments = ((float(now), 1000 + 0.9999 * float(now)) for now in np.arange(0, 1000, 0.5))
        assert max(age.of(question(time_s=theirs, sent_s=theirs), ours) for ours, theirs in moments) < 0.02

    def test_who_says_no_time_has_no_age(self):
        assert Age().of(question(), 5.0) == 0.0


def test_a_stale_observation_is_answered_with_a_stop_that_keeps_still():
    one = session(stale_after_s=0.3)
    one.answer(one.begin(question(step=0, time_s=10.0), 0.0), RAMP, 0.0)
    turn = one.begin(question(step=1, time_s=10.0), 0.5)
    reason = one.stale(turn)
    assert reason is not None and "0.50 s old" in reason
    answer = one.stop(turn, reason)
    assert answer["stop"] and answer["reason"] == reason
    assert np.array_equal(answer["actions"], np.repeat(RAMP.actions[:1], HORIZON, axis=0)), "where it was sent last"
    with pytest.raises(RequestError, match="no previous chunk"):
        one.begin(question(step=2, committed=1, time_s=10.6), 0.6)


def test_an_answer_that_took_too_long_is_a_stop_too():
    one = session(stale_after_s=0.3)
    turn = one.begin(question(step=0, time_s=10.0), 0.0)
    assert one.stale(turn) is None
    assert one.answer(turn, RAMP, 0.2)["stop"] is False
    assert one.answer(turn, RAMP, 0.4)["stop"] is True


def test_quantiles_are_within_five_per_cent_and_memory_does_not_grow():
    seconds = np.random.default_rng(0).lognormal(-3, 0.7, 20_000)
    latencies = Latencies()
    for value in seconds:
        latencies.add(float(value))
    for q in (0.5, 0.9, 0.99):
        assert latencies.quantile(q) == pytest.approx(np.quantile(seconds, q), rel=0.05)
    assert len(latencies.counts) == 145
    latencies.add(1e6)
    latencies.add(0.0)
    text = latencies.prometheus("t_seconds", "a test")
    assert 't_seconds_bucket{le="+Inf"} 20002' in text and 't_seconds_bucket{le="0.0005"} 1\n' in text
    assert "# TYPE t_seconds histogram" in text and "t_seconds_count 20002" in text


def test_nothing_was_measured_yet():
    assert np.isnan(Latencies().quantile(0.5))


def test_a_speed_counts_from_the_action_that_was_sent_last():
    """Speeds count from the last place that was sent, not from where a lagging robot still stands."""
    one = session(speeds={"x": 1.0})
    one.answer(one.begin(question(step=0), 0.0), ActionChunk(np.full((HORIZON, 2), 1.0, np.float32), 50.0), 0.0)
    turn = one.begin(question(step=4), 0.0)
    assert turn.previous is not None and turn.previous[0] == pytest.approx(4 * 0.02)
    answer = one.answer(turn, ActionChunk(np.full((HORIZON, 2), 1.0, np.float32), 50.0), 0.0)
    assert answer["actions"][0, 0] == pytest.approx(5 * 0.02)
    assert any("speed" in line for line in answer["limited"])
