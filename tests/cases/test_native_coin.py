"""The native coin as an asset: counted with its wrapped token, sold without approval, kept for gas, and refilled by unwrapping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.cli.display import status_tables
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import IntentKind, TopUp
from agent.policy import native_coin
from agent.store.store import Store
from agent.units import BPS, NATIVE
from tests.support.agents import (
    ROOMY,
    USD,
    WalletBalances,
    agent_on,
    allowances,
    fund,
    loss_usd,
    purse,
    require_exact,
    require_rebalance,
    swap_of,
    yes,
)
from tests.support.constants import ETHER
from tests.support.text import causes, mentions
from tests.support.wallets import native_of

FLOOR = ETHER // 20
NEAR_BPS = 10
TARGETS = {"WETH": "40%", "USDC": "40%", "LINK": "20%"}
COIN = {"portfolio.assets.0.address": "native", "portfolio.assets.0.symbol": "ETH", "limits.native_top_up": "0.1"}
PLAIN = {"limits.native_top_up": "0.1"}
ROUTERS = ["swap_router_02", "rebalancer"]
both_routers = pytest.mark.parametrize("router", ROUTERS)
one_router = pytest.mark.parametrize("router", [pytest.param(ROUTERS[0], marks=pytest.mark.slow), ROUTERS[1]])
other_router = pytest.mark.parametrize("router", [ROUTERS[0], pytest.param(ROUTERS[1], marks=pytest.mark.slow)])
"""What both do alike is tried on one of them, and at length on both."""


@contextmanager
def opened(
    chain: LocalChain, folder: Path, router: str, native_wei: int, usd: dict[str, int | Fraction], changes: dict[str, object]
) -> Iterator[tuple[Agent, WalletBalances]]:
    """An agent of this router, over a wallet that holds so much native coin and so many dollars of each token."""
    fund(chain, usd)
    chain.set_native(native_wei)
    with agent_on(chain, folder, ROOMY | changes | {"execution.router": router}, TARGETS) as agent:
        yield agent, purse(chain)


def off_target(chain: LocalChain, floor_wei: int) -> dict[str, Fraction]:
    """Distance of each weight from its target in bps; native coin above `floor_wei` counts as WETH."""
    balances = purse(chain)
    usd = chain.deployed_world.prices_usd
    raw = {symbol: balances.raw[symbol] for symbol in TARGETS}
    raw["WETH"] += balances.native_wei - floor_wei
    values = {symbol: amount * usd[symbol] / 10 ** chain.tokens[symbol].decimals for symbol, amount in raw.items()}
    total = sum(values.values(), Fraction(0))
    return {symbol: abs(values[symbol] / total * BPS - Fraction(share.rstrip("%")) * 100) for symbol, share in TARGETS.items()}


def require_as_planned(chain: LocalChain, outcome: StepOutcome, before: WalletBalances) -> None:
    """Balances after are the plan's to the wei, native coin less all gas; nothing stays in the router, and no allowance."""
    plan, swap, receipt = swap_of(outcome)
    now = purse(chain)
    assert all(now.raw[symbol] == dict(plan.holdings_after)[chain.tokens[symbol].address] for symbol in TARGETS)
    paid = sum(intent.receipt.gas_cost_wei for intent in outcome.transactions if intent.receipt is not None)
    native_after_wei = before.native_wei - paid if plan.native_after_wei is None else plan.native_after_wei - receipt.gas_cost_wei
    assert now.native_wei == native_after_wei
    assert native_of(chain, swap.tx.to) == 0
    assert all(chain.balance(symbol, swap.tx.to) == 0 for symbol in chain.tokens)
    assert set(allowances(chain).values()) == {0}


def booked_loss_usd(store: Store, chain: LocalChain) -> Fraction:
    """Loss of the last day in the books, in dollars."""
    return store.budgets.history(chain.now_s()).budgets.loss_24h / USD


@both_routers
def test_native_coin_alone_is_spread_without_approval_to_the_wei(chain: LocalChain, tmp_path: Path, router: str) -> None:
    with opened(chain, tmp_path, router, 15 * ETHER, {}, COIN) as (agent, before):
        total = sum(drift.value for drift in agent.status().decision_result.drifts)
        assert total == (15 * ETHER - FLOOR) * chain.deployed_world.prices_usd["WETH"] * USD / ETHER
        native = status_document(agent.status())["native"]
        assert (native["native_wei"], native["wrapped_raw"], native["kept_wei"]) == (str(15 * ETHER), "0", str(FLOOR))
        assert mentions(status_tables.native_text(native), "15,", "0.05", "ETH")
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, swap, _ = swap_of(outcome)
        require_as_planned(chain, outcome, before)
        realised = {item["symbol"]: item for item in agent.realised_changes(outcome)}
        assert all(item["planned_raw"] == item["realised_raw"] for item in realised.values())
        assert "native" in realised
        assert {intent.kind for intent in outcome.transactions} == {IntentKind.SWAP}
        assert swap.tx.value_wei == sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == NATIVE) > 0
        assert before.raw["WETH"] == purse(chain).raw["WETH"] == 0
        assert max(off_target(chain, FLOOR).values()) <= NEAR_BPS
        # Wrapping is no loss: the books say what the wallet lost, gas included.
        assert abs(booked_loss_usd(agent.context.store, chain) - loss_usd(chain, before, chain.deployed_world.prices_usd)) < Fraction(
            1, 1000
        )
        assert plan.turnover == agent.context.store.budgets.history(chain.now_s()).budgets.turnover_24h
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


@one_router
def test_where_neither_form_suffices_the_rest_is_wrapped_first(chain: LocalChain, tmp_path: Path, router: str) -> None:
    usd = chain.deployed_world.prices_usd["WETH"]
    with opened(chain, tmp_path, router, 6 * ETHER, {"WETH": 6 * usd}, COIN) as (agent, before):
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, swap, _ = swap_of(outcome)
        require_as_planned(chain, outcome, before)
        assert [leg.token_in for leg in plan.legs].count(NATIVE) == 1
        assert plan.legs[0].token_in == NATIVE
        assert purse(chain).raw["WETH"] == 0
        assert swap.tx.value_wei > 0
        assert max(off_target(chain, FLOOR).values()) <= NEAR_BPS


@other_router
def test_bought_coin__stays_wrapped_and_wrapped_is_sold_first(chain: LocalChain, tmp_path: Path, router: str) -> None:
    with opened(chain, tmp_path, router, ETHER, {"USDC": 40_000}, COIN) as (agent, before):
        outcome = agent.rebalance(send=True, confirm=yes)
        require_as_planned(chain, outcome, before)
        assert swap_of(outcome)[0].native_after_wei is None
        assert purse(chain).raw["WETH"] > 0
        assert max(off_target(chain, FLOOR).values()) <= NEAR_BPS
        usd = chain.deployed_world.prices_usd
        chain.move_market({"WETH": usd["WETH"] * Fraction(5, 4)})
        drifted = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        require_as_planned(chain, outcome, drifted)
        assert swap_of(outcome)[0].native_after_wei is None
        assert purse(chain).raw["WETH"] < drifted.raw["WETH"]


@pytest.mark.parametrize(
    ("router", "changes"),
    [
        pytest.param(ROUTERS[0], COIN, id="native asset"),
        pytest.param(ROUTERS[1], PLAIN, id="wrapped asset, rebalancer"),
        pytest.param(ROUTERS[0], PLAIN, id="wrapped asset", marks=pytest.mark.slow),
        pytest.param(ROUTERS[1], COIN, id="native asset, rebalancer", marks=pytest.mark.slow),
    ],
)
def test_a_rebalance_refills_gas_money_in_the_same_transaction(
    chain: LocalChain, tmp_path: Path, router: str, changes: dict[str, object]
) -> None:
    with opened(chain, tmp_path, router, FLOOR + 10**15, {"WETH": 40_000}, changes) as (agent, before):
        outcome = agent.rebalance(send=True, confirm=yes)
        plan = swap_of(outcome)[0]
        require_as_planned(chain, outcome, before)
        gas_wei = sum(intent.receipt.gas_cost_wei for intent in outcome.transactions if intent.receipt is not None)
        assert plan.legs[-1].token_out == NATIVE
        assert len(outcome.transactions) == 2
        assert purse(chain).native_wei == ETHER // 10 - gas_wei
        own = native_coin.floor_wei(outcome.step_input.limits) if changes is COIN else purse(chain).native_wei
        assert max(off_target(chain, own).values()) <= NEAR_BPS
        assert abs(booked_loss_usd(agent.context.store, chain) - loss_usd(chain, before, chain.deployed_world.prices_usd)) < Fraction(
            1, 1000
        )


@one_router
def test_bought_coin_without_wrapped__refills_gas_unapproved(chain: LocalChain, tmp_path: Path, router: str) -> None:
    with opened(chain, tmp_path, router, FLOOR + 10**15, {"USDC": 40_000, "WETH": 400}, COIN) as (agent, before):
        outcome = agent.rebalance(send=True, confirm=yes)
        require_as_planned(chain, outcome, before)
        plan = swap_of(outcome)[0]
        (refill,) = [leg for leg in plan.legs if leg.token_out == NATIVE]
        assert refill.amount_in_raw == plan.legs[plan.legs.index(refill) - 1].amount_out_raw
        approved = {intent.tx.to for intent in outcome.transactions if intent.kind is IntentKind.APPROVE}
        assert chain.addresses.weth not in approved
        assert max(off_target(chain, FLOOR).values()) <= NEAR_BPS


@other_router
@pytest.mark.parametrize("drifted", [False, True])
def test_too_little_gas_for_the_step__is_refilled_first(chain: LocalChain, tmp_path: Path, router: str, drifted: bool) -> None:
    shares = {"WETH": 30_000, "USDC": 5_000, "LINK": 5_000} if drifted else {"WETH": 16_000, "USDC": 16_000, "LINK": 8_000}
    with opened(chain, tmp_path, router, 10**15, dict(shares), PLAIN) as (agent, before):
        decided = agent.status().decision_result.decision
        assert isinstance(decided, TopUp)
        assert ("worst-case gas" if drifted else "limits.native_floor") in decided.reason
        outcome = require_rebalance(agent)
        (unwrapped,) = outcome.transactions
        assert unwrapped.kind is IntentKind.UNWRAP
        assert unwrapped.tx.to == chain.addresses.weth
        assert unwrapped.receipt is not None
        assert outcome.plan is not None
        assert all(verdict.passed for verdict in outcome.plan.verdicts)
        now = purse(chain)
        gas_wei = unwrapped.receipt.gas_cost_wei
        assert now.native_wei == outcome.plan.native_after_wei - gas_wei >= FLOOR
        assert before.raw["WETH"] - now.raw["WETH"] == decided.raw
        assert unwrapped.receipt.gas_used <= outcome.plan.gas_units <= unwrapped.receipt.gas_used * Fraction(11, 10)
        history = agent.context.store.budgets.history(chain.now_s())
        assert history.budgets.turnover_24h == 0
        assert history.reviews.last_rebalance_s is None
        assert abs(booked_loss_usd(agent.context.store, chain) - gas_wei * chain.deployed_world.prices_usd["WETH"] / ETHER) < Fraction(
            1, 1000
        )
        after = agent.rebalance(send=True, confirm=yes)
        assert after.kind is (OutcomeKind.DONE if drifted else OutcomeKind.HOLD), after.reason


def test_no_gas_or_top_up_off__says_so_and_does_nothing(chain: LocalChain, tmp_path: Path) -> None:
    shares: dict[str, int | Fraction] = {"WETH": 30_000, "USDC": 5_000, "LINK": 5_000}
    for name, native_wei, changes in (("empty", 10**11, PLAIN), ("off", 10**15, {"limits.native_top_up": "off"})):
        with opened(chain, tmp_path / name, ROUTERS[0], native_wei, shares, changes) as (agent, before):
            outcome = require_rebalance(agent, OutcomeKind.REFUSED)
            assert causes(outcome) == (("simulation",) if name == "empty" else ("native_floor",))
            assert purse(chain) == before


def test_manual_swap__spends_native_coin_but_not_gas_money(chain: LocalChain, tmp_path: Path) -> None:
    with opened(chain, tmp_path, ROUTERS[0], 2 * ETHER, {"USDC": 3_000}, COIN) as (agent, before):
        refused = agent.swap("ETH", "USDC", "1.96", send=True, confirm=yes)
        assert refused.kind is OutcomeKind.REFUSED
        assert causes(refused) == ("balance",)
        assert mentions(refused.reason, "1.96", "ETH")
        outcome = agent.swap("ETH", "USDC", "1.5", send=True, confirm=yes)
        require_as_planned(chain, replace(outcome), before)
        assert swap_of(outcome)[1].tx.value_wei == 15 * 10**17
        assert len(outcome.transactions) == 1


def test_require_exact_still_holds_for_wrapped_coin_alone(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with opened(anvil_chain, tmp_path, ROUTERS[0], 3 * ETHER, {"WETH": 40_000}, PLAIN) as (agent, before):
        require_exact(anvil_chain, agent.rebalance(send=True, confirm=yes), before)
