"""The calls a second that an operator gets: a read waits for its turn, a transaction does not, nothing is prevented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.providers.call_budgets import BURST_S, LONGEST_WAIT_S, LocalCallBudget, waiting_time_s
from agent.chain.providers.endpoint import EndpointProvider
from agent.config.tables.chain import RpcTable
from agent.wiring import open_transport
from agent.wiring.call_budgets import CallBudgets
from tests.support.endpoints import Served, good, serve
from tests.support.fakes.clock import FakeClock


class FakeBudget:
    """A budget whose turns before are given; it notes what is taken."""

    def __init__(self, turns_before_s: float) -> None:
        self.turns_before_s = turns_before_s
        self.taken: list[int] = []

    def take(self, call_count: int) -> float:
        self.taken.append(call_count)
        return self.turns_before_s


def test_the_turns_before_a_request_are_those_taken_and_not_over() -> None:
    clock = FakeClock(100)
    budget = LocalCallBudget(10, clock)
    assert budget.take(30) == 0
    assert budget.take(1) == pytest.approx(3.0)
    clock.advance(2.0)
    assert budget.take(1) == pytest.approx(1.1)
    clock.advance(60.0)
    assert budget.take(1) == 0


@pytest.mark.parametrize(
    ("turns_before_s", "expected_s"), [(0.0, 0.0), (BURST_S, 0.0), (BURST_S + 0.5, 0.5), (BURST_S + LONGEST_WAIT_S + 9, LONGEST_WAIT_S)]
)
def test_request_beyond_the_burst__waits_but_not_for_ever(turns_before_s: float, expected_s: float) -> None:
    assert waiting_time_s(turns_before_s) == pytest.approx(expected_s)


@given(rate=st.integers(1, 1_000), requests=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 0.5)), min_size=1, max_size=60))
def test_patient_requests_never_exceed_rate_and_burst(rate: int, requests: Sequence[tuple[int, float]]) -> None:
    clock = FakeClock(100)
    budget = LocalCallBudget(rate, clock)
    sent: list[tuple[float, int]] = []
    for call_count, pause_s in requests:
        clock.advance(pause_s)
        clock.advance(max(0.0, budget.take(call_count) - BURST_S))
        sent.append((clock.time_s, call_count))
    for first, (began_s, _) in enumerate(sent):
        for last in range(first, len(sent)):
            before_last = sum(count for _, count in sent[first:last])
            assert before_last <= rate * ((sent[last][0] - began_s) + BURST_S) + 1e-6


@pytest.fixture
def node() -> Iterator[Served]:
    with serve(good()) as node:
        yield node


@pytest.mark.parametrize(
    ("methods", "turns_before_s", "waits_s"),
    [
        (["eth_blockNumber"] * 3, BURST_S + 0.25, [pytest.approx(0.25)]),
        (["eth_sendRawTransaction"], 60.0, []),
        (["eth_blockNumber", "eth_sendRawTransaction"], 60.0, []),
    ],
    ids=["reads", "transaction", "transaction beside a read"],
)
def test_a_read_waits_and_a_transaction_takes_its_turns_at_once(
    node: Served, methods: list[str], turns_before_s: float, waits_s: list[object]
) -> None:
    slept = list[float]()
    provider = EndpointProvider(node.url, "a", sleep=slept.append)
    budget = provider.call_budget = FakeBudget(turns_before_s)
    provider.batch([(method, ["0x00"]) for method in methods])
    assert budget.taken == [len(methods)], "each call of a batch counts"
    assert slept == waits_s


OPERATORS = (("a", "one.example", 25), ("a", "two.example", 25), ("b", "three.example", 25), ("a", "four.example", None))


def test_endpoints_of_one_operator_share_a_budget() -> None:
    tables = [RpcTable(operator=operator, url=f"http://{host}", calls_per_second=rate) for operator, host, rate in OPERATORS]
    first, second, other, unlimited = map(CallBudgets().budget, tables)
    assert first is second
    assert first is not other
    assert unlimited is None
    assert open_transport(tables[0], 1, first).call_budget is first  # type: ignore[attr-defined]  # an EndpointProvider


@pytest.mark.parametrize("rate", [0, -1, 100_001])
def test_a_rate_that_is_none_is_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="calls_per_second"):
        RpcTable(operator="a", url="http://one.example", calls_per_second=rate)
