"""Which question is asked for each leg, and what a second source that cannot answer turns into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v2 import get_amount_out
from agent.chain.rpc import CallFailed, RpcFault
from agent.chain.second_quote import EvidenceGatherer, NoSecondQuote, UniswapPythonQuoter, second_quotes
from agent.errors import OperatorNeeded, Retryable
from agent.model import Goal, Leg, Plan, PlanCost, Rebalance
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.support.builders import NOW_S, address, step_input, with_limits
from tests.support.chain_reads.legs import USDC, WETH, leg
from tests.support.fakes.clock import FakeClock, forbid_sleep
from tests.support.fakes.transport import ScriptedTransport
from tests.support.text import raises_code

RESERVES = (10**21, 2 * 10**12)


def plan(*legs: Leg) -> Plan:
    zero = Fraction(0)
    return Plan(1, Rebalance("test", Goal(())), legs, (), (), PlanCost(zero, zero, zero, zero), zero, zero, 0, None, (), (), 2)


@dataclass
class ExactPair:
    """The pair's own arithmetic at the block, as any honest second source gives it."""

    requests: list[tuple[int, str]] = field(default_factory=list)

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        self.requests.append((amount_in_raw, block_hash))
        return get_amount_out(amount_in_raw, *RESERVES)

    def sources(self, _: Leg) -> tuple[str, ...]:
        return ("test",)


class Silent:
    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        raise NoSecondQuote("nobody home")

    def sources(self, _: Leg) -> tuple[str, ...]:
        return ("test",)


def test_each_leg_is_asked_at_the_plan_s_block() -> None:
    source = ExactPair()
    quotes = second_quotes(plan(leg(10**18)), "0xabc", source)
    assert source.requests == [(10**18, "0xabc")]
    assert [(q.leg_index, q.amount_out_raw, q.error) for q in quotes] == [(0, get_amount_out(10**18, *RESERVES), "")]


@given(first=st.integers(10**15, 10**19), second=st.integers(10**15, 10**19))
def test_second_leg_in_a_pool__is_quoted_after_the_first(first: int, second: int) -> None:
    quotes = second_quotes(plan(leg(first), leg(second)), "0x", ExactPair())
    out_first = get_amount_out(first, *RESERVES)
    really = get_amount_out(second, RESERVES[0] + first, RESERVES[1] - out_first)
    assert quotes[0].amount_out_raw == out_first
    assert quotes[1].amount_out_raw is not None
    bound = Fraction(3, 1000) * Fraction(first, RESERVES[0]) * really + 2
    assert abs(quotes[1].amount_out_raw - really) <= bound


def test_the_input_before_is_asked_once_only() -> None:
    source = ExactPair()
    second_quotes(plan(leg(5), leg(7), leg(9)), "0x", source)
    assert [amount for amount, _ in source.requests] == [5, 12, 21]


def test_a_leg_against_an_earlier_one_in_its_pool_has_no_quote() -> None:
    quotes = second_quotes(plan(leg(10**18), leg(10**9, token_in=USDC, token_out=WETH), leg(10**18)), "0x", ExactPair())
    assert quotes[1].amount_out_raw is None
    assert "other direction" in quotes[1].error
    assert quotes[2].amount_out_raw is not None


def test_a_silent_source_is_a_named_error_on_every_leg() -> None:
    quotes = second_quotes(plan(leg(1), leg(2, pool="other")), "0x", Silent())
    assert [(q.amount_out_raw, q.error) for q in quotes] == [(None, "nobody home")] * 2


def answering(answer: object) -> ScriptedTransport:
    """Return a node whose every answer is the same, or the same failure."""
    return ScriptedTransport(answer=lambda _method, _params: answer)


V2 = UniswapV2("v2", address("factory"), address("router"))
V3 = UniswapV3("v3", address("factory"), quoter=address("quoter v2"), quoter_v1=address("quoter"))


def word(value: int | str) -> str:
    return "0x" + (format(value, "064x") if isinstance(value, int) else value[2:].lower().rjust(64, "0"))


@pytest.mark.parametrize(
    ("answer", "leg", "code", "figure"),
    [
        pytest.param(word(0), leg(5, venue="elsewhere"), "venue", "elsewhere", id="foreign venue"),
        pytest.param(word(0), leg(5, fee_pips=2500), "fee", "3000 millionths", id="other fee"),
        pytest.param(word(0), leg(5), "pool", "", id="no pool of a pair"),
        pytest.param(word(0), leg(5, venue="v3"), "pool", "", id="no pool"),
        pytest.param(CallFailed("no", RpcFault(3, "execution reverted: SPL")), leg(5), "quoter", "execution reverted: SPL", id="revert"),
        pytest.param(Retryable("endpoint is down"), leg(5, venue="v3"), "no_answer", "endpoint is down", id="endpoint down"),
        pytest.param("0x1234", leg(5), "library", "", id="torn answer"),
        pytest.param("0x", leg(5), "method", "eth_getCode", id="no code"),
    ],
)
def test_whatever_goes_wrong_is_said_in_words(answer: object, leg: Leg, code: str, figure: str) -> None:
    with raises_code(NoSecondQuote, code, figure):
        UniswapPythonQuoter(answering(answer), (V2, V3)).quote(leg, 5, "0xabc")


def test_library__reaches_the_node_by_calls_at_the_block_alone() -> None:
    wire = answering(word(address("deep")))
    UniswapPythonQuoter(wire, (V3,)).quote(leg(5, venue="v3"), 5, "0xabc")
    assert {method for method, _ in wire.calls} == {"eth_call"}
    assert all(params[1] == {"blockHash": "0xabc", "requireCanonical": True} for _, params in wire.calls)
    assert [params[0]["to"] for _, params in wire.calls] == [V3.factory, V3.quoter_v1]


def test_the_factory_names_each_pool_once() -> None:
    wire = answering(word(address("deep")))
    library = UniswapPythonQuoter(wire, (V3,))
    for amount in (5, 7):
        library.quote(leg(amount, venue="v3"), amount, "0xabc")
    library.quote(leg(5, venue="v3", token_in=USDC, token_out=WETH), 5, "0xabc")
    assert [params[0]["to"] for _, params in wire.calls] == [V3.factory, V3.quoter_v1, V3.quoter_v1, V3.factory, V3.quoter_v1]
    with raises_code(NoSecondQuote, "pool"):
        library.quote(leg(5, venue="v3", pool="shallow"), 5, "0xabc")


GATHER: Mapping[str, Any] = {
    "read_kill_switch": lambda: (False, ""),
    "read_pins": lambda: [("0xa", "0xb")],
    "quoter": None,
    "clock": FakeClock(NOW_S, wait=forbid_sleep),
    "min_operators": 1,
}


def raising(error: Exception) -> Any:
    def ask() -> Any:
        raise error

    return ask


def test_evidence_carries_what_its_sources_say() -> None:
    step = step_input()
    answers = EvidenceGatherer(**{**GATHER, "quoter": ExactPair(), "read_kill_switch": lambda: (True, "holiday")}).gather(
        step, plan(leg(10**18))
    )
    assert (answers.paused, answers.pause_reason, answers.pinned_code_hashes, answers.has_quorum, answers.now_s) == (
        True,
        "holiday",
        (("0xa", "0xb"),),
        True,
        NOW_S,
    )
    assert answers.second_quotes[0].amount_out_raw == get_amount_out(10**18, *RESERVES)


@pytest.mark.parametrize("error", [OperatorNeeded("store is corrupt"), OSError("disk"), ValueError("odd")])
def test_a_kill_switch_that_cannot_be_read_is_neither_on_nor_off(error: Exception) -> None:
    answers = EvidenceGatherer(**{**GATHER, "read_kill_switch": raising(error)}).gather(step_input(), plan())
    assert answers.paused is None
    assert answers.pause_reason


def test_pins_that_cannot_be_read_stop_the_step() -> None:
    with pytest.raises(OperatorNeeded, match="store is corrupt"):
        EvidenceGatherer(**{**GATHER, "read_pins": raising(OperatorNeeded("store is corrupt"))}).gather(step_input(), plan())


def test_missing_second_source__is_an_error_a_leg_if_guarded() -> None:
    gatherer = EvidenceGatherer(**GATHER)
    on = gatherer.gather(step_input(), plan(leg(1), leg(2)))
    assert ["second source" in (quote.error or "") for quote in on.second_quotes] == [True, True]
    off = gatherer.gather(with_limits(step_input(), second_quote_deviation_bps=None), plan(leg(1)))
    assert off.second_quotes == ()


def test_two_endpoints_of_one_operator_are_no_quorum() -> None:
    step = step_input()
    both = replace(step, snapshot=replace(step.snapshot, operators=("a", "a")))
    different = replace(step, snapshot=replace(step.snapshot, operators=("a", "b")))
    gatherer = EvidenceGatherer(**{**GATHER, "min_operators": 2})
    assert not gatherer.gather(both, plan()).has_quorum
    assert gatherer.gather(different, plan()).has_quorum
