"""Endpoint pool: parallel requests, health scores, backoff, and a grace period after a quorum."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from agent.chain.chain_time import ChainTime
from agent.chain.rpc import EndpointOverloaded, RpcCall, Transport, require_result
from agent.errors import (
    ConfigError,
    ErrorCode,
    OperatorNeeded,
    PassingFault,
    Retryable,
    TrimtabError,
)
from agent.model import DataFeeKind
from agent.units import rough_duration

HALF_LIFE_S = 60.0
"""Age at which the weight of a success, failure or latency is halved."""
FAILURES_BEFORE_REST = 3
"""Consecutive failures after which an endpoint rests."""
FIRST_REST_S = 5.0
LONGEST_REST_S = 300.0
"""Shortest and longest rest. Each failed trial doubles the rest; a Retry-After is capped at the
longest.
"""
HALF_SCORE_LATENCY_S = 1.0
"""Latency that halves the score."""


class Circuit(Enum):
    """Circuit-breaker state of an endpoint, which determines whether it is queried."""

    CLOSED = "in service"
    TRIAL = "on trial"
    OPEN = "resting"
    LAGGING = "lagging"
    RATE_LIMITED = "is rate limiting"


@dataclass(frozen=True, slots=True)
class EndpointState:
    """Current state of one endpoint. `last_failure` is its last failure, or its last differing
    answer.
    """

    circuit: Circuit
    score: float
    latency_s: float | None
    rest_s: float
    last_failure: str


class EndpointHealth:
    """Record of an endpoint's answers, by a monotonic clock."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._decayed_at_s = clock_s()
        self._success_weight = self._failure_weight = self._latency_sum_s = 0.0
        self._failures_in_row = 0
        self._rest_count = 0
        self._rest_until_s = self._wait_until_s = self._decayed_at_s
        self._why = ""
        self.is_lagging = False

    def record_success(self, latency_s: float) -> None:
        """Record an answered request, even if individual calls were refused. Quorum compares the
        contents.
        """
        self._decay()
        self._success_weight += 1
        self._latency_sum_s += latency_s
        self._failures_in_row = self._rest_count = 0

    def record_failure(self, why: str, wait_s: float | None = None) -> None:
        """Record a missing or malformed answer. `wait_s` is the pause requested by the endpoint."""
        self._decay()
        self._failure_weight += 1
        self._failures_in_row += 1
        self._why = why
        if wait_s is not None:
            self._wait_until_s = max(
                self._wait_until_s, self._decayed_at_s + min(max(wait_s, 0.0), LONGEST_REST_S)
            )
        if self._failures_in_row >= FAILURES_BEFORE_REST or self._rest_count:
            self._rest_until_s = self._decayed_at_s + min(
                FIRST_REST_S * 2**self._rest_count, LONGEST_REST_S
            )
            self._rest_count = min(self._rest_count + 1, 16)
            self._failures_in_row = 0

    def blame(self, why: str) -> None:
        """Record an answer that differs from the others. Only its score falls; the endpoint stays
        in service, since it may be the honest one.
        """
        self._decay()
        self._failure_weight += 1
        self._why = why

    def record_lag(self, why: str) -> None:
        """Record a lag: it is shown, and its score falls. The endpoint is asked on, because one that
        makes up a newer block lets the honest ones lag.
        """
        self.blame(why)
        self.is_lagging = True

    def record_caught_up(self) -> None:
        """Record that the endpoint no longer lags."""
        self.is_lagging = False

    @property
    def circuit(self) -> Circuit:
        """Circuit state. In the trial after a rest, a failure doubles the rest and a success puts
        the endpoint back in service.
        """
        now_s = self._clock_s()
        if now_s < self._wait_until_s:
            return Circuit.RATE_LIMITED
        if now_s < self._rest_until_s:
            return Circuit.OPEN
        if self.is_lagging:
            return Circuit.LAGGING
        return Circuit.TRIAL if self._rest_count else Circuit.CLOSED

    @property
    def score(self) -> float:
        """Score from 0 to 1: the decayed share of good answers, reduced for latency; 1 without a
        record.
        """
        self._decay()
        latency_s = self._latency_s
        return (
            (self._success_weight + 1)
            / (self._success_weight + self._failure_weight + 1)
            / (1 + (latency_s or 0.0) / HALF_SCORE_LATENCY_S)
        )

    @property
    def state(self) -> EndpointState:
        """Snapshot of the record."""
        score = self.score
        now_s = self._clock_s()
        return EndpointState(
            self.circuit,
            score,
            self._latency_s,
            max(0.0, self._wait_until_s - now_s, self._rest_until_s - now_s),
            self._why,
        )

    @property
    def _latency_s(self) -> float | None:
        return self._latency_sum_s / self._success_weight if self._success_weight > 0 else None

    def _decay(self) -> None:
        now_s = self._clock_s()
        decay_factor = 0.5 ** ((now_s - self._decayed_at_s) / HALF_LIFE_S)
        self._success_weight *= decay_factor
        self._failure_weight *= decay_factor
        self._latency_sum_s *= decay_factor
        self._decayed_at_s = now_s


T = TypeVar("T")

GRACE_S = 2.0
"""Grace period for the remaining endpoints once enough have agreed."""
MAX_LAG_BLOCKS = 3
"""Largest lag of an endpoint in blocks before it counts as lagging (chain.max_lag_blocks)."""


class EndpointResting(Retryable):
    """The endpoint was not queried: it rests, is rate limiting, or is busy."""


class Endpoint:
    """A transport with a health record; one request at a time."""

    def __init__(self, transport: Transport, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self.health = EndpointHealth(clock_s)
        self.operator = transport.operator
        self.name = getattr(transport, "name", f"endpoint {transport.operator!r}")

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    @property
    def request_count(self) -> int:
        """See Transport."""
        return self._transport.request_count

    @property
    def max_batch(self) -> int | None:
        """Largest number of calls that the endpoint accepts in a request; None: no limit is
        known.
        """
        return getattr(self._transport, "max_batch", None)

    @property
    def is_busy(self) -> bool:
        """True while an earlier request is running."""
        return self._lock.locked()

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport. Raises EndpointResting during a pause that the endpoint requested."""
        with self._lock:
            health_state = self.health.state
            if health_state.circuit is Circuit.RATE_LIMITED:
                raise EndpointResting(
                    f"{self.name} is rate limited for {rough_duration(int(health_state.rest_s))} more: {health_state.last_failure}",
                    code=ErrorCode.RATE_LIMIT,
                )
            started_s = self._clock_s()
            try:
                answers = self._transport.batch(calls)
            except EndpointOverloaded as error:
                self.health.record_failure(error.message, error.retry_after_s)
                raise
            except TrimtabError as error:
                self.health.record_failure(error.message)
                raise
            self.health.record_success(self._clock_s() - started_s)
            return answers


@dataclass(frozen=True, slots=True)
class PollResult(Generic[T]):
    """Answers by endpoint in the order of the config, and the failures of the others."""

    answers: dict[Endpoint, T]
    failures: dict[Endpoint, TrimtabError]

    @property
    def operators(self) -> set[str]:
        """Operators of the endpoints that answered."""
        return operators_of(self.answers)


class EndpointPool:
    """The endpoints of the config.

    `min_operators` different operators must agree before money moves. An endpoint more than
    `max_lag_blocks` behind the others is reported, and no trade is signed unless enough operators
    are nearer; a smaller lag is tolerated.
    `data_fee_kind` is the kind of data fee that receipts of the chain report. `now_s` is the local
    clock and `monotonic_s` one that nobody sets, if there is one; `chain_time` decides by them
    whether a block is too old.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        min_operators: int,
        *,
        max_lag_blocks: int = MAX_LAG_BLOCKS,
        grace_s: float = GRACE_S,
        data_fee_kind: DataFeeKind = DataFeeKind.PLAIN,
        now_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] | None = None,
    ) -> None:
        """Raise ConfigError if the endpoints belong to fewer than `min_operators` operators."""
        self.endpoints = tuple(
            transport if isinstance(transport, Endpoint) else Endpoint(transport)
            for transport in transports
        )
        self.min_operators = min_operators
        self.max_lag_blocks = max_lag_blocks
        self.report: Callable[[str], None] = lambda message: None
        self.data_fee_kind = data_fee_kind
        self.chain_time = ChainTime(now_s, monotonic_s or now_s)
        self._grace_s = grace_s
        operators = sorted(operators_of(self.endpoints))
        if len(operators) < max(1, min_operators):
            raise ConfigError(
                f"chain.rpc has endpoints of {len(operators)} operator(s) ({', '.join(operators)}), but"
                f" {min_operators} must agree",
                "add an endpoint of another operator, or name the only one in"
                " chain.single_operator",
            )

    @property
    def request_count(self) -> int:
        """HTTP requests of all endpoints so far."""
        return sum(endpoint.request_count for endpoint in self.endpoints)

    @property
    def ranked_endpoints(self) -> list[Endpoint]:
        """All endpoints, the healthiest first."""
        return sorted(self.endpoints, key=lambda endpoint: -endpoint.health.score)

    def ask(
        self,
        question: Callable[[Endpoint], T],
        candidates: Iterable[Endpoint] | None = None,
        is_enough: Callable[[Mapping[Endpoint, T]], bool] = lambda answers: False,
    ) -> PollResult[T]:
        """Query all endpoints in service in parallel. Once `is_enough` returns True, the others
        have a short grace period. Errors of endpoints are returned; any other error is raised.
        """
        candidate_endpoints = self.ranked_endpoints if candidates is None else list(candidates)
        queried_endpoints = self._endpoints_to_query(candidate_endpoints)
        failures: dict[Endpoint, TrimtabError] = {
            endpoint: _resting_error(endpoint)
            for endpoint in candidate_endpoints
            if endpoint not in queried_endpoints
        }
        answers: dict[Endpoint, T] = {}
        outcome_queue: queue.SimpleQueue[tuple[Endpoint, T | Exception, bool]] = queue.SimpleQueue()
        for endpoint in queried_endpoints[1:]:
            # daemon threads: a hanging request does not keep the process alive
            threading.Thread(
                target=_ask_endpoint, args=(question, endpoint, outcome_queue), daemon=True
            ).start()
        if len(queried_endpoints) == 1:
            _ask_endpoint(question, queried_endpoints[0], outcome_queue)
        elif queried_endpoints:
            threading.Thread(
                target=_ask_endpoint,
                args=(question, queried_endpoints[0], outcome_queue),
                daemon=True,
            ).start()
        waiting_endpoints = set(queried_endpoints)
        grace_end_s = None
        while waiting_endpoints:
            timeout_s = None if grace_end_s is None else max(0.0, grace_end_s - time.monotonic())
            try:
                endpoint, answer_or_error, is_error = outcome_queue.get(timeout=timeout_s)
            except queue.Empty:
                break
            waiting_endpoints.discard(endpoint)
            if not is_error:
                answers[endpoint] = answer_or_error  # type: ignore[assignment]  # an answer unless `is_error`
            elif isinstance(answer_or_error, Retryable | OperatorNeeded):
                failures[endpoint] = answer_or_error
            else:
                raise answer_or_error  # type: ignore[misc]  # an error, since `is_error`
            if not is_error and grace_end_s is None and waiting_endpoints and is_enough(answers):
                grace_end_s = time.monotonic() + self._grace_s
        failures |= {
            endpoint: Retryable(f"{endpoint.name} had not answered when enough others agreed")
            for endpoint in waiting_endpoints
        }
        answers_in_order = {
            endpoint: answers[endpoint] for endpoint in self.endpoints if endpoint in answers
        }
        return PollResult(answers_in_order, failures)

    def require_quorum(self, poll: PollResult[T]) -> None:
        """Raise unless enough operators answered: Retryable if one failed in a way that is retried,
        else PassingFault.
        """
        if len(poll.operators) >= self.min_operators:
            return
        if len(self.endpoints) == 1:
            raise next(iter(poll.failures.values()))
        failures_text = "; ".join(
            failure_text(endpoint, failure) for endpoint, failure in poll.failures.items()
        )
        is_retryable = any(isinstance(error, Retryable) for error in poll.failures.values())
        error_type = Retryable if is_retryable or not poll.failures else PassingFault
        remedy = next((failure.remedy for failure in poll.failures.values() if failure.remedy), "")
        raise error_type(
            f"{len(poll.operators)} of {self.min_operators} operators answered: {failures_text}",
            remedy,
            code=ErrorCode.OPERATORS,
        )

    def blame(self, endpoint: Endpoint, why: str, *, is_outvoted: bool = True) -> None:
        """Record an endpoint that differs from the others; with `is_outvoted`, the others are the
        majority. `report` tells it once.
        """
        if endpoint.health.state.last_failure != why:
            majority_text = "; the others outvoted it" if is_outvoted else ""
            self.report(f"{endpoint.name} {why}{majority_text}")
        endpoint.health.blame(why)

    def record_lag(self, endpoint: Endpoint, why: str) -> None:
        """Record an endpoint whose newest block is too old; `report` tells it once per lag."""
        if not endpoint.health.is_lagging:
            self.report(f"{endpoint.name} {why}")
        endpoint.health.record_lag(why)

    def endpoint_states(self) -> list[tuple[str, EndpointState]]:
        """Return operator and record of each endpoint, in the order of the config."""
        return [(endpoint.operator, endpoint.health.state) for endpoint in self.endpoints]

    def _endpoints_to_query(self, candidate_endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Return the candidates that are neither resting nor busy; if they have too few operators,
        the resting and busy ones too. An endpoint that is rate limiting is never returned.
        """
        not_limited_endpoints = [
            endpoint
            for endpoint in candidate_endpoints
            if endpoint.health.circuit is not Circuit.RATE_LIMITED
        ]
        usable_endpoints = [
            endpoint
            for endpoint in not_limited_endpoints
            if endpoint.health.circuit is not Circuit.OPEN and not endpoint.is_busy
        ]
        return (
            usable_endpoints
            if len(operators_of(usable_endpoints)) >= max(1, self.min_operators)
            else not_limited_endpoints
        )


def operators_of(endpoints: Iterable[Endpoint]) -> set[str]:
    """Return the distinct operators of the endpoints."""
    return {endpoint.operator for endpoint in endpoints}


def failure_text(endpoint: Endpoint, failure: TrimtabError) -> str:
    """Return a failure's message, with the endpoint's name included once."""
    if endpoint.name in failure.message:
        return failure.message
    return f"{endpoint.name}: {failure.message}"


def _resting_error(endpoint: Endpoint) -> EndpointResting:
    health_state = endpoint.health.state
    if health_state.rest_s > 0:
        return EndpointResting(
            f"{endpoint.name} {health_state.circuit.value}, {rough_duration(int(health_state.rest_s))} more: {health_state.last_failure}"
        )
    return EndpointResting(f"{endpoint.name} has not yet answered an earlier request")


def _ask_endpoint(
    question: Callable[[Endpoint], T],
    endpoint: Endpoint,
    outcome_queue: queue.SimpleQueue[tuple[Endpoint, T | Exception, bool]],
) -> None:
    try:
        outcome_queue.put((endpoint, question(endpoint), False))
    except Exception as error:
        outcome_queue.put((endpoint, error, True))
