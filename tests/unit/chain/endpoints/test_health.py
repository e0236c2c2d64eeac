"""An endpoint's record: what raises and lowers its score, when it rests, when it is tried again. No real time passes."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from agent.app.documents import fill
from agent.app.documents.plans import EndpointDocument
from agent.chain.endpoints import FAILURES_BEFORE_REST, FIRST_REST_S, HALF_LIFE_S, LONGEST_REST_S, Circuit, EndpointHealth, EndpointState
from tests.support.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000)


def test_unknown_endpoint__is_thought_well_of(clock: FakeClock) -> None:
    health = EndpointHealth(clock)
    assert (health.score, health.circuit, health.state.latency_s) == (1.0, Circuit.CLOSED, None)


def test_failures__lower_the_score_and_fade_by_halves(clock: FakeClock) -> None:
    health = EndpointHealth(clock)
    health.record_success(0.0)
    health.record_failure("down")
    assert health.score == pytest.approx(2 / 3)
    clock.advance(HALF_LIFE_S)
    assert health.score == pytest.approx(1.5 / 2)
    clock.advance(60 * HALF_LIFE_S)
    assert health.score == pytest.approx(1.0)


def test_of_two_that_always_answer_the_faster_scores_more(clock: FakeClock) -> None:
    fast = EndpointHealth(clock)
    slow = EndpointHealth(clock)
    for _ in range(5):
        fast.record_success(0.05)
        slow.record_success(2.0)
    assert fast.score > 2 * slow.score
    assert slow.state.latency_s == pytest.approx(2.0)


def test_repeated_failures__rest_it_until_one_good_trial(clock: FakeClock) -> None:
    health = EndpointHealth(clock)
    for _ in range(FAILURES_BEFORE_REST - 1):
        health.record_failure("down")
    assert health.circuit is Circuit.CLOSED
    health.record_failure("down")
    assert (health.circuit, health.state.rest_s, health.state.last_failure) == (Circuit.OPEN, FIRST_REST_S, "down")
    clock.advance(FIRST_REST_S)
    assert health.circuit is Circuit.TRIAL
    health.record_success(0.1)
    assert health.circuit is Circuit.CLOSED
    health.record_failure("once more")
    assert health.circuit is Circuit.CLOSED


def test_each_failed_trial_doubles_the_rest_up_to_a_bound(clock: FakeClock) -> None:
    health = EndpointHealth(clock)
    for _ in range(FAILURES_BEFORE_REST):
        health.record_failure("down")
    rests = []
    for _ in range(12):
        rests.append(health.state.rest_s)
        clock.advance(health.state.rest_s)
        assert health.circuit is Circuit.TRIAL
        health.record_failure("still down")
    assert rests[:4] == [FIRST_REST_S * 2**n for n in range(4)]
    assert rests[-1] == max(rests) == LONGEST_REST_S


def test_successes_in_between_keep_it_in_service(clock: FakeClock) -> None:
    health = EndpointHealth(clock)
    for _ in range(20):
        health.record_failure("now and then")
        health.record_success(0.1)
    assert health.circuit is Circuit.CLOSED


@pytest.mark.parametrize(("asked_s", "kept_s"), [(30.0, 30.0), (0.0, 0.0), (-5.0, 0.0), (1e9, LONGEST_REST_S)])
def test_a_wait_that_was_asked_for_is_kept_within_reason(clock: FakeClock, asked_s: float, kept_s: float) -> None:
    health = EndpointHealth(clock)
    health.record_failure("too many requests", asked_s)
    assert health.state.rest_s == kept_s
    assert health.circuit is (Circuit.RATE_LIMITED if kept_s else Circuit.CLOSED)
    clock.advance(kept_s)
    assert health.circuit is Circuit.CLOSED


def test_a_success_does_not_shorten_a_wait_that_was_asked_for(clock: FakeClock) -> None:
    health = EndpointHealth(clock)
    health.record_failure("too many requests", 30)
    health.record_success(0.1)
    assert health.circuit is Circuit.RATE_LIMITED


def test_outvoted_endpoint__comes_last_and_is_used_all_the_same(clock: FakeClock) -> None:
    liar = EndpointHealth(clock)
    honest = EndpointHealth(clock)
    for health in (liar, honest):
        health.record_success(0.1)
    for _ in range(10):
        liar.blame("lied")
    assert liar.score < honest.score
    assert (liar.circuit, liar.state.last_failure) == (Circuit.CLOSED, "lied")


@pytest.mark.parametrize("circuit", Circuit)
def test_the_document_admits_every_state_of_an_endpoint(circuit: Circuit) -> None:
    state = EndpointState(circuit, 1.0, None, 0.0, "")
    document = fill(EndpointDocument, state, operator="alchemy")
    assert TypeAdapter(EndpointDocument).validate_python(document)["state"] == circuit.value
