"""Approvals as a whole step makes them: exact, zero first where a token asks for it, mined before the plan is made anew."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind, LegPlace
from agent.signing.calldata import Approve, decode
from tests.support.agents import (
    ROOMY,
    agent_on,
    allow,
    allowances,
    fund,
    legs_of,
    off_target,
    require_exact_rebalance,
    swap_of,
    when_approved,
    yes,
)

TARGETS = {"WETH": "40%", "USDC": "30%", "USDT": "30%"}
HELD = {"WETH": 20_000, "USDC": 20_000, "USDT": 50_000}


def decoded_approvals(intents: tuple[Intent, ...]) -> list[tuple[str, int]]:
    """(token, base units) of each approval, decoded from what was signed."""
    approvals = []
    for intent in intents:
        if intent.kind is IntentKind.APPROVE:
            call = decode(intent.tx.data)
            assert isinstance(call, Approve)
            approvals.append((intent.tx.to, call.raw))
    return approvals


def test_what_is_approved_is_what_is_spent(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000, "USDC": 45_000, "USDT": 35_000})
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        spent: dict[str, int] = {}
        for leg in legs_of(outcome):
            if leg.source is LegPlace.WALLET:
                spent[leg.token_in] = spent.get(leg.token_in, 0) + leg.amount_in_raw
        assert dict(decoded_approvals(outcome.transactions)) == spent
        assert set(spent) == {chain.tokens["USDC"].address, chain.tokens["USDT"].address}
        assert set(allowances(chain).values()) == {0}
        assert all(intent.receipt is not None and intent.receipt.status == 1 for intent in outcome.transactions)


def test_a_tether_that_has_some_allowance_is_set_to_zero_first(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    allow(chain, "USDT", raw=1)
    usdt = chain.tokens["USDT"].address
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        outcome = require_exact_rebalance(chain, agent)
        first, second = decoded_approvals(outcome.transactions)
        assert first == (usdt, 0)
        assert second[0] == usdt
        assert second[1] > 1
        assert allowances(chain)["USDT"] == 0


def test_large_allowance__is_used_and_its_rest_taken_back(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    allow(chain, "USDT", raw=40_000 * 10**6)
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        swap_of(outcome)
        assert outcome.transactions[0].kind is IntentKind.SWAP
        assert decoded_approvals(outcome.transactions) == [(chain.tokens["USDT"].address, 0)]
        assert set(allowances(chain).values()) == {0}


def test_after_a_declined_or_refused_step_nothing_is_approved(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, ROOMY | {"limits.native_floor": "100"}, TARGETS) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.REFUSED
        assert set(allowances(chain).values()) == {0}


@pytest.mark.parametrize("percent", ["-3", *(pytest.param(drift, marks=pytest.mark.slow) for drift in ("-0.2", "3")), "0.2"])
def test_prices_moved_after_the_approval__are_planned_with(chain: LocalChain, tmp_path: Path, percent: str) -> None:
    """The new plan never spends more than was approved, so that one round of approvals is enough."""
    fund(chain, {"WETH": 60_000, "USDC": 15_000, "USDT": 15_000})
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:
        outcome = require_exact_rebalance(chain, agent, progress=when_approved(lambda: shift(chain, percent)))
        (first, *rest) = decoded_approvals(outcome.transactions)
        assert first[0] == chain.tokens["WETH"].address
        assert all(raw == 0 for _, raw in rest)
        sold = sum(leg.amount_in_raw for leg in legs_of(outcome) if leg.source is LegPlace.WALLET)
        assert sold <= first[1]
        assert set(allowances(chain).values()) == {0}
        # A dearer WETH asks to sell more than was approved: the rest is smaller than what its rise left to do.
        assert max(off_target(chain, TARGETS).values()) <= (10 if percent.startswith("-") else 100)


def test_a_market_that_never_rests_still_ends_in_one_swap(chain: LocalChain, tmp_path: Path) -> None:
    """Prices move before every transaction of the step: no loop of approvals, no needless refusal."""
    fund(chain, HELD)
    turns = iter(["0.1", "-0.2", "0.15", "-0.1", "0.2", "-0.15"])
    with agent_on(chain, tmp_path, ROOMY, TARGETS) as agent:

        def progress(event: str) -> None:
            if event == "after:final":
                shift(chain, next(turns))

        outcome = agent.rebalance(send=True, confirm=yes, progress=progress)
        swap_of(outcome)
        assert len([i for i in outcome.transactions if i.kind is IntentKind.APPROVE]) <= 2


def shift(chain: LocalChain, percent: str) -> None:
    """WETH moves by so much, and everything follows; for a large move that takes half an hour."""
    far = abs(Fraction(percent)) > 1
    chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * (1 + Fraction(percent) / 100)}, twap_follows=far)
