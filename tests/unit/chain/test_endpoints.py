"""Tests of agent/chain/endpoints.py: an endpoint's record, its pauses, and a pool that asks all endpoints in service at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from pydantic import TypeAdapter

from agent.app.documents import fill
from agent.app.documents.plans import EndpointDocument
from agent.chain.endpoints import (
    FAILURES_BEFORE_REST,
    FIRST_REST_S,
    HALF_LIFE_S,
    LONGEST_REST_S,
    Circuit,
    Endpoint,
    EndpointHealth,
    EndpointPool,
    EndpointResting,
    EndpointState,
)
from agent.chain.rpc import EndpointOverloaded, RpcFault
from agent.errors import ConfigError, OperatorNeeded, PassingFault, Retryable, TrimtabError
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import raises_code

DOWN = Retryable("it cannot be reached", "check it")
NO_ACCESS = OperatorNeeded("the key is refused")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000)


@pytest.fixture
def health(clock: FakeClock) -> EndpointHealth:
    return EndpointHealth(clock)


def fail(health: EndpointHealth, times: int = FAILURES_BEFORE_REST) -> None:
    """Record so many failures in a row; by default the endpoint rests after them."""
    for _ in range(times):
        health.record_failure("down")


# --- EndpointHealth: score


def test_health_without_a_record_is_perfect(health: EndpointHealth) -> None:
    assert health.state == EndpointState(Circuit.CLOSED, 1.0, None, 0.0, "")


@pytest.mark.parametrize(
    ("successes", "failures", "half_lives", "score"),
    [
        pytest.param(1, 0, 0, 1, id="a success"),
        pytest.param(0, 1, 0, 1 / 2, id="a failure"),
        pytest.param(1, 1, 0, 2 / 3, id="one of both"),
        pytest.param(1, 1, 1, 1.5 / 2, id="one of both, a half-life ago"),
        pytest.param(1, 1, 60, 1, id="one of both, long ago"),
    ],
)
def test_health_score_is_the_share_of_recent_successes(
    health: EndpointHealth, clock: FakeClock, successes: int, failures: int, half_lives: int, score: float
) -> None:
    for _ in range(successes):
        health.record_success(0)
    fail(health, failures)

    clock.advance(half_lives * HALF_LIFE_S)

    assert health.score == pytest.approx(score)


@pytest.mark.parametrize(
    ("latencies_s", "mean_s", "score"),
    [
        pytest.param([1], 1, 1 / 2, id="a second halves it"),
        pytest.param([0.05] * 5, 0.05, 1 / 1.05, id="fast"),
        pytest.param([2] * 5, 2, 1 / 3, id="slow"),
        pytest.param([2, 0.5], 1, 1 / 2, id="the newer counts twice"),
    ],
)
def test_health_score_falls_with_the_mean_latency(
    health: EndpointHealth, clock: FakeClock, latencies_s: list[float], mean_s: float, score: float
) -> None:
    for latency_s in latencies_s:
        clock.advance(HALF_LIFE_S)
        health.record_success(latency_s)

    assert health.state.latency_s == pytest.approx(mean_s)
    assert health.score == pytest.approx(score)


def test_health_score_falls_by_blame_that_causes_no_rest(health: EndpointHealth) -> None:
    health.record_success(0)
    for _ in range(FAILURES_BEFORE_REST):
        health.blame("differs")
    fail(health, FAILURES_BEFORE_REST - 1)

    assert health.score == pytest.approx(2 / 7)
    assert health.circuit is Circuit.CLOSED


def test_health_names_the_last_failure_or_difference(health: EndpointHealth) -> None:
    fail(health, 1)
    health.blame("differs")

    assert health.state.last_failure == "differs"


# --- EndpointHealth: circuit


@pytest.mark.parametrize(
    ("failures", "circuit"),
    [(FAILURES_BEFORE_REST - 1, Circuit.CLOSED), (FAILURES_BEFORE_REST, Circuit.OPEN)],
    ids=["one failure short", "enough failures"],
)
def test_health_rests_after_failures_in_a_row(health: EndpointHealth, failures: int, circuit: Circuit) -> None:
    fail(health, failures)

    assert health.circuit is circuit
    assert health.state.rest_s == (FIRST_REST_S if circuit is Circuit.OPEN else 0)


def test_health_with_successes_between_failures_never_rests(health: EndpointHealth) -> None:
    for _ in range(20):
        fail(health, FAILURES_BEFORE_REST - 1)
        health.record_success(0.1)

    assert health.circuit is Circuit.CLOSED


@pytest.mark.parametrize(
    ("waited_s", "circuit"), [(FIRST_REST_S - 1, Circuit.OPEN), (FIRST_REST_S, Circuit.TRIAL)], ids=["a second before", "at its end"]
)
def test_health_is_on_trial_once_the_rest_ends(health: EndpointHealth, clock: FakeClock, waited_s: float, circuit: Circuit) -> None:
    fail(health)

    clock.advance(waited_s)

    assert health.circuit is circuit


def test_health_is_back_in_service_by_one_good_trial(health: EndpointHealth, clock: FakeClock) -> None:
    fail(health)
    clock.advance(FIRST_REST_S)

    health.record_success(0.1)

    assert health.circuit is Circuit.CLOSED
    fail(health, FAILURES_BEFORE_REST - 1)
    assert health.circuit is Circuit.CLOSED
    fail(health, 1)
    assert health.state.rest_s == FIRST_REST_S


def test_health_doubles_the_rest_by_each_failed_trial(health: EndpointHealth, clock: FakeClock) -> None:
    fail(health)
    rests_s = []
    for _ in range(20):
        rests_s.append(health.state.rest_s)
        clock.advance(health.state.rest_s)
        assert health.circuit is Circuit.TRIAL
        fail(health, 1)

    assert rests_s == [min(FIRST_REST_S * 2**trial, LONGEST_REST_S) for trial in range(20)]


@pytest.mark.parametrize(
    ("asked_s", "rest_s"),
    [
        pytest.param(30.0, 30.0, id="some"),
        pytest.param(0.0, 0.0, id="none"),
        pytest.param(-5.0, 0.0, id="negative"),
        pytest.param(1e9, LONGEST_REST_S, id="too long"),
    ],
)
def test_health_keeps_a_pause_that_the_endpoint_asked_for(health: EndpointHealth, clock: FakeClock, asked_s: float, rest_s: float) -> None:
    health.record_failure("too many requests", asked_s)

    assert health.state.rest_s == rest_s
    assert health.circuit is (Circuit.RATE_LIMITED if rest_s else Circuit.CLOSED)
    clock.advance(rest_s)
    assert health.circuit is Circuit.CLOSED


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(lambda health: health.record_success(0.1), id="by a success"),
        pytest.param(lambda health: health.record_failure("too many requests", 5), id="by a shorter one"),
        pytest.param(fail, id="by a rest"),
    ],
)
def test_health_shortens_no_pause(health: EndpointHealth, record: Callable[[EndpointHealth], object]) -> None:
    health.record_failure("too many requests", 30)

    record(health)

    assert (health.circuit, health.state.rest_s) == (Circuit.RATE_LIMITED, 30)


def test_health_lags_until_it_has_caught_up(health: EndpointHealth) -> None:
    health.record_lag("is 4 blocks behind")

    assert (health.circuit, health.state.last_failure) == (Circuit.LAGGING, "is 4 blocks behind")
    assert health.score == 1 / 2
    health.record_caught_up()
    assert health.circuit is Circuit.CLOSED


def test_health_that_lags_can_rest_and_lags_on_trial(health: EndpointHealth, clock: FakeClock) -> None:
    health.record_lag("is 4 blocks behind")
    fail(health)

    assert health.circuit is Circuit.OPEN
    clock.advance(FIRST_REST_S)
    assert health.circuit is Circuit.LAGGING


@pytest.mark.parametrize("circuit", Circuit)
def test_document_of_an_endpoint_admits_every_state(circuit: Circuit) -> None:
    document = fill(EndpointDocument, EndpointState(circuit, 1.0, None, 0.0, ""), operator="alchemy")

    assert TypeAdapter(EndpointDocument).validate_python(document)["state"] == circuit.value


# --- Endpoint


def endpoint_of(operator: str = "a", answer: object = "0x1", clock: Callable[[], float] = time.monotonic) -> Endpoint:
    """Return an endpoint with this answer to eth_gasPrice."""
    return Endpoint(ScriptedTransport(operator, eth_gasPrice=answer), clock)


def gas_price(endpoint: Endpoint) -> object:
    return endpoint.call("eth_gasPrice", [])


def test_endpoint_has_the_name_and_limits_of_its_transport() -> None:
    transport = ScriptedTransport("a", eth_gasPrice="0x1")
    endpoint = Endpoint(transport)

    gas_price(endpoint)

    assert (endpoint.operator, endpoint.name, endpoint.request_count) == ("a", transport.name, 1)
    assert endpoint.max_batch is None
    transport.max_batch = 40  # type: ignore[attr-defined]  # an EndpointProvider has it
    assert endpoint.max_batch == 40


def test_endpoint_records_the_time_of_a_success(clock: FakeClock) -> None:
    endpoint = endpoint_of(answer=lambda _params: clock.advance(2) or "0x1", clock=clock)

    assert gas_price(endpoint) == "0x1"

    assert endpoint.health.state.latency_s == pytest.approx(2)


def test_endpoint_that_refuses_a_call_has_answered(clock: FakeClock) -> None:
    endpoint = endpoint_of(clock=clock, answer=RpcFault(-32000, "no"))

    endpoint.batch([("eth_gasPrice", [])])

    assert endpoint.health.score == 1


@pytest.mark.parametrize("error", [DOWN, NO_ACCESS], ids=["down", "no access"])
def test_endpoint_records_a_failure(clock: FakeClock, error: TrimtabError) -> None:
    endpoint = endpoint_of(clock=clock, answer=error)

    with pytest.raises(type(error)):
        gas_price(endpoint)

    assert (endpoint.health.score, endpoint.health.state.last_failure) == (1 / 2, error.message)


def test_endpoint_is_asked_nothing_during_its_pause(clock: FakeClock) -> None:
    answers: list[object] = [EndpointOverloaded("too many requests", retry_after_s=30), "0x1"]
    endpoint = endpoint_of(clock=clock, answer=lambda _params: answers.pop(0))

    with pytest.raises(EndpointOverloaded):
        gas_price(endpoint)
    clock.advance(29)
    with raises_code(EndpointResting, "rate_limit", "1 s more", "too many requests"):
        gas_price(endpoint)
    clock.advance(1)

    assert gas_price(endpoint) == "0x1"


# --- EndpointPool: asking


def pool_of(*endpoints: Endpoint, min_operators: int = 2, grace_s: float = 20) -> EndpointPool:
    return EndpointPool(endpoints, min_operators, grace_s=grace_s)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Event that ends what hangs, at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def hanging(release: threading.Event) -> Endpoint:
    return endpoint_of("slow", lambda _params: release.wait(20) and "0x1")


@pytest.mark.parametrize(
    ("operators", "min_operators"),
    [pytest.param("aa", 2, id="one operator twice"), pytest.param("ab", 3, id="one operator too few"), pytest.param("", 0, id="none")],
)
def test_pool_needs_different_operators(operators: str, min_operators: int) -> None:
    with pytest.raises(ConfigError, match=rf"{len(set(operators))} operator.* {min_operators} must agree"):
        pool_of(*map(endpoint_of, operators), min_operators=min_operators)


def test_pool_asks_all_at_once_and_returns_failures() -> None:
    barrier = threading.Barrier(3, timeout=5)

    def answer_together(_params: object) -> str:
        barrier.wait()
        return "0x1"

    together = [endpoint_of(name, answer_together) for name in "abc"]
    down = endpoint_of("down", DOWN)

    poll = pool_of(*together, down).ask(gas_price)

    assert poll.operators == {"a", "b", "c"}
    assert poll.failures == {down: DOWN}


def test_pool_returns_answers_in_the_order_of_the_config() -> None:
    is_answered = threading.Event()
    late = endpoint_of("late", lambda _params: is_answered.wait(20) and "0x1")
    first = endpoint_of("first", lambda _params: is_answered.set() or "0x2")

    assert list(pool_of(late, first).ask(gas_price).answers.items()) == [(late, "0x1"), (first, "0x2")]


def test_pool_waits_for_none_beyond_the_grace_period(release: threading.Event) -> None:
    slow = hanging(release)
    pool = pool_of(slow, endpoint_of("a"), endpoint_of("b"), grace_s=0.02)

    def ask() -> dict[Endpoint, TrimtabError]:
        poll = pool.ask(gas_price, is_enough=lambda answers: len(answers) >= 2)
        assert poll.operators == {"a", "b"}
        return poll.failures

    assert "not answered when enough others agreed" in ask()[slow].message
    failure = ask()[slow]
    assert isinstance(failure, EndpointResting)
    assert "earlier request" in failure.message


@pytest.mark.parametrize(
    ("grace_s", "operators"), [(20, {"a", "late"}), (0, {"a"})], ids=["within the grace period", "without a grace period"]
)
def test_pool_counts_a_late_answer_within_the_grace_period(release: threading.Event, grace_s: float, operators: set[str]) -> None:
    is_enough_asked = threading.Event()

    def is_enough(_answers: object) -> bool:
        is_enough_asked.set()
        return True

    late = endpoint_of("late", lambda _params: (is_enough_asked if grace_s else release).wait(20) and "0x2")

    poll = pool_of(late, endpoint_of("a"), min_operators=1, grace_s=grace_s).ask(gas_price, is_enough=is_enough)

    assert poll.operators == operators


def test_pool_has_a_grace_period_only_after_an_answer() -> None:
    is_failed = threading.Event()

    def fail_first(_params: object) -> object:
        is_failed.set()
        raise DOWN

    def answer_later(_params: object) -> str:
        is_failed.wait(20)
        time.sleep(0.05)
        return "0x1"

    pool = pool_of(endpoint_of("down", fail_first), endpoint_of("late", answer_later), min_operators=1, grace_s=0)

    assert pool.ask(gas_price, is_enough=lambda _answers: True).operators == {"late"}


def test_pool_raises_an_error_that_is_no_endpoint_s() -> None:
    with pytest.raises(ZeroDivisionError):
        pool_of(endpoint_of("a"), endpoint_of("b")).ask(lambda _endpoint: 1 // 0)


def rest(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint rest."""
    fail(endpoint.health)
    return endpoint


def test_pool_leaves_a_resting_endpoint_alone_until_its_trial(clock: FakeClock) -> None:
    sick = rest(endpoint_of("sick", clock=clock))
    pool = pool_of(sick, endpoint_of("a"), endpoint_of("b"))

    assert pool.ask(gas_price).failures[sick].message == "endpoint 'sick' resting, 5 s more: down"
    assert sick.request_count == 0
    clock.advance(FIRST_REST_S)
    assert pool.ask(gas_price).operators == {"sick", "a", "b"}
    assert sick.health.circuit is Circuit.CLOSED


def test_pool_asks_resting_endpoints_if_too_few_are_left(clock: FakeClock) -> None:
    sick = rest(endpoint_of("sick", clock=clock))

    assert pool_of(sick, endpoint_of("a")).ask(gas_price).operators == {"sick", "a"}


def test_pool_asks_no_endpoint_during_its_pause_even_so(clock: FakeClock) -> None:
    busy = endpoint_of("busy", clock=clock)
    busy.health.record_failure("too many requests", 30)
    pool = pool_of(busy, endpoint_of("a"))

    poll = pool.ask(gas_price)

    assert "30 s more: too many requests" in poll.failures[busy].message
    with raises_code(Retryable, "operators", "1 of 2", "30 s"):
        pool.require_quorum(poll)
    clock.advance(30)
    assert pool.ask(gas_price).operators == {"busy", "a"}


def test_pool_asks_only_candidates_if_they_are_given() -> None:
    chosen = endpoint_of("a")

    assert list(pool_of(endpoint_of("b"), chosen).ask(gas_price, [chosen]).answers) == [chosen]


def test_pool_ranks_the_healthiest_first() -> None:
    good = endpoint_of("good")
    blamed = endpoint_of("blamed")
    blamed.health.blame("differs")
    pool = pool_of(blamed, good)

    assert pool.ranked_endpoints == [good, blamed]
    assert [operator for operator, _ in pool.endpoint_states()] == ["blamed", "good"]


def test_pool_counts_the_requests_of_all() -> None:
    pool = pool_of(endpoint_of("a"), endpoint_of("b"))

    pool.ask(gas_price)

    assert pool.request_count == 2


# --- EndpointPool: quorum


def require_quorum(pool: EndpointPool) -> None:
    pool.require_quorum(pool.ask(gas_price))


@pytest.mark.parametrize(
    ("answers", "min_operators"),
    [
        pytest.param([("a", "0x1"), ("b", "0x1"), ("c", DOWN)], 2, id="two of three"),
        pytest.param([("a", DOWN), ("a", "0x1"), ("b", "0x1")], 2, id="one operator's other endpoint"),
        pytest.param([("a", "0x1"), ("b", DOWN)], 1, id="one of one"),
    ],
)
def test_quorum_of_answers_needs_its_operators(answers: Sequence[tuple[str, object]], min_operators: int) -> None:
    require_quorum(pool_of(*(endpoint_of(*answer) for answer in answers), min_operators=min_operators))


@pytest.mark.parametrize(
    ("answers", "error", "reasons"),
    [
        pytest.param([("a", "0x1"), ("b", DOWN)], Retryable, ["1 of 2", "endpoint 'b': it cannot"], id="one down"),
        pytest.param([("a", "0x1"), ("a", "0x1"), ("b", DOWN)], Retryable, ["1 of 2"], id="one operator twice"),
        pytest.param([("a", "0x1"), ("b", DOWN), ("c", NO_ACCESS)], Retryable, ["cannot be reached; ", "refused"], id="down, no access"),
        pytest.param([("a", NO_ACCESS), ("b", NO_ACCESS)], PassingFault, ["0 of 2", "'a': the", "'b': the"], id="no access"),
    ],
)
def test_quorum_of_too_few_operators_raises_every_reason(
    answers: Sequence[tuple[str, object]], error: type[TrimtabError], reasons: list[str]
) -> None:
    with raises_code(error, "operators", *reasons) as caught:
        require_quorum(pool_of(*(endpoint_of(*answer) for answer in answers)))

    assert caught.value.remedy == ("check it" if error is Retryable else "")


def test_quorum_names_an_endpoint_once() -> None:
    named = Retryable("endpoint 'b' is down")

    with pytest.raises(Retryable) as caught:
        require_quorum(pool_of(endpoint_of("a"), endpoint_of("b", named)))

    assert caught.value.message == "1 of 2 operators answered: endpoint 'b' is down"


@pytest.mark.parametrize("error", [DOWN, NO_ACCESS], ids=["down", "no access"])
def test_quorum_of_an_only_endpoint_raises_its_own_failure(error: TrimtabError) -> None:
    with pytest.raises(type(error)) as caught:
        require_quorum(pool_of(endpoint_of("a", error), min_operators=1))

    assert caught.value is error


# --- EndpointPool: reports


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def reporting_pool(reports: list[str]) -> EndpointPool:
    pool = pool_of(endpoint_of("a"), endpoint_of("b"))
    pool.report = reports.append
    return pool


def test_blame_is_reported_once_for_each_reason(reporting_pool: EndpointPool, reports: list[str]) -> None:
    endpoint = reporting_pool.endpoints[0]
    for why in ("differs in a receipt", "differs in a receipt", "differs in the nonce"):
        reporting_pool.blame(endpoint, why)
    reporting_pool.blame(endpoint, "is ahead", is_outvoted=False)

    assert reports == [
        "endpoint 'a' differs in a receipt; the others outvoted it",
        "endpoint 'a' differs in the nonce; the others outvoted it",
        "endpoint 'a' is ahead",
    ]
    assert endpoint.health.score == pytest.approx(1 / 5)


def test_lag_is_reported_once_until_the_endpoint_has_caught_up(reporting_pool: EndpointPool, reports: list[str]) -> None:
    endpoint = reporting_pool.endpoints[0]
    for blocks in (4, 5):
        reporting_pool.record_lag(endpoint, f"is {blocks} blocks behind")
    endpoint.health.record_caught_up()
    reporting_pool.record_lag(endpoint, "is 6 blocks behind")

    assert reports == ["endpoint 'a' is 4 blocks behind", "endpoint 'a' is 6 blocks behind"]
    assert endpoint.health.state.last_failure == "is 6 blocks behind"
