"""An attacker who wants the futures account drained or liquidated: stale, contradictory or missing data, pushed virtual
pools, gifts; whole steps on the deployed contracts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.chain.perpetuals import perp_questions
from agent.chain.providers.endpoint import EndpointProvider
from agent.execution.step_context import StepOutcome
from agent.layers.futures.state import FuturesState, planned_futures
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from tests.support import agents
from tests.support.fakes.transport import RecordingTransport
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_faults import (
    BOTH,
    LONG,
    MOST,
    leverage,
    leverage_at_index,
    move_price,
    open_position,
    orders,
    perps,
    push_pool,
    size,
    step,
    value_at_index,
)
from tests.support.perps import advance_time, read_now, scope_of

__all__ = ["perps"]


def crashed(perps: LocalPerps, share: Fraction = Fraction(-20, 100)) -> int:
    """A WETH book above its leverage limit; its size."""
    open_position(perps, "WETH", Fraction(26, 10))
    move_price(perps, "WETH", share)
    perps.chain.refresh_feeds()
    return size(perps, "WETH")


def aged(perps: LocalPerps, symbol: str, seconds: int) -> None:
    """Time passes in which only the index of this market is written."""
    perps.chain.node.mine_at(perps.chain.now_s() + seconds)
    perps.set_index(symbol, perps.chain.deployed_world.prices_usd[symbol])
    perps.chain.refresh_feeds()


def reduced(perps: LocalPerps, folder: Path, before: int, weights: dict[str, str] = LONG, **limits: str) -> StepOutcome:
    """A step that brings the leverage below its limit and turns nothing."""
    outcome = step(perps, folder, weights, **limits)
    assert orders(outcome), outcome.reason
    assert 0 < size(perps, "WETH") < before
    assert leverage(perps) <= MOST, outcome.reason
    return outcome


# --- Gifts.


def gifted_collateral(perps: LocalPerps, raw: int) -> None:
    """Another collateral that the venue takes; a stranger deposits some of it for the wallet."""
    chain = perps.chain
    wbtc = perps.chain.tokens["WBTC"].address
    manager = perps.contract(perps.vault.functions.getCollateralManager().call(), "CollateralManager").functions
    feed = perps.contract(perps.markets["WBTC"].base_token, "BaseToken").functions.getPriceFeed().call()
    chain.send(manager.addCollateral(wbtc, (feed, 700_000, 100_000, 10**30)))
    stranger = chain.accounts[4].address
    token = chain.token_contract("WBTC").functions
    chain.send(token.mint(stranger, raw))
    chain.send(token.approve(perps.addresses.vault, raw), stranger)
    chain.send(perps.vault.functions.depositFor(chain.wallet.address, wbtc, raw), stranger)


@pytest.mark.parametrize("raw", [1, pytest.param(10**7, marks=pytest.mark.slow)])
def test_a_gift_of_another_collateral_blinds_nobody(perps: LocalPerps, tmp_path: Path, raw: int) -> None:
    """For a hundredth of a cent a stranger changes the venue's account value; the agent counts its own margin, and acts."""
    before = crashed(perps)
    gifted_collateral(perps, raw)
    account = read_now(perps, perps.chain.wallet.address)
    theirs = perps.clearing_house.functions.getAccountValue(perps.chain.wallet.address).call()
    assert margin.settled_value_raw(account) < theirs
    reduced(perps, tmp_path, before)


def test_gift_of_margin__stops_no_reduction(perps: LocalPerps, tmp_path: Path) -> None:
    """portfolio.max_live_value holds back rebalances and openings alone."""
    before = crashed(perps, Fraction(-30, 100))
    chain = perps.chain
    stranger = perps.chain.accounts[4].address
    usdc = chain.token_contract("USDC").functions
    chain.send(usdc.mint(chain.wallet.address, 500_000 * 10**6), stranger)
    outcome = reduced(perps, tmp_path, before)
    assert size(perps, "WETH") < before, outcome.reason


# --- Missing and stale data.


@pytest.mark.parametrize(
    ("other", "fall", "is_emergency"),
    [
        pytest.param(-1, Fraction(-22, 100), False, id="other index stopped, fall"),
        pytest.param(-1, Fraction(-30, 100), True, id="other index stopped, emergency"),
        pytest.param(0, Fraction(-22, 100), False, marks=pytest.mark.slow, id="own index, fall"),
        pytest.param(0, Fraction(-33, 100), True, id="own index, emergency"),
    ],
)
def test_stopped_index__holds_no_other_market_s_reduction_back(
    perps: LocalPerps, tmp_path: Path, other: int, fall: Fraction, is_emergency: bool
) -> None:
    """A crash of WETH while the index of WBTC is old, held or not: the daily budget does not hold back what the index of WETH requires."""
    if other:
        open_position(perps, "WBTC", Fraction(other))
    open_position(perps, "WETH", Fraction(26, 10))
    move_price(perps, "WETH", fall)
    before = {symbol: size(perps, symbol) for symbol in BOTH}
    aged(perps, "WETH", 3_700)
    outcome = step(perps, tmp_path, BOTH)
    assert orders(outcome), outcome.reason
    assert 0 <= size(perps, "WETH") < before["WETH"]
    assert size(perps, "WBTC") == before["WBTC"]
    first = planned_futures(outcome.plan) if outcome.plan is not None else None
    assert first is None or first.is_emergency is is_emergency


@pytest.mark.parametrize(("seconds", "is_known"), [(7_200, False), (10 * 86_400, True)])
def test_spot_feeds_that_stopped_hold_no_reduction_back(perps: LocalPerps, tmp_path: Path, seconds: int, is_known: bool) -> None:
    """At first the means of the pools contradict them; after ten days the means alone count."""
    before = crashed(perps)
    advance_time(perps, seconds)
    outcome = reduced(perps, tmp_path, before, spot_multiple="10x")
    assert ("spot_multiple is not judged" in outcome.reason) is not is_known


def test_silent_spot_token__holds_no_reduction_back(perps: LocalPerps, tmp_path: Path) -> None:
    before = crashed(perps)
    changes = futures_config_changes(perps, LONG, spot_multiple="2x")
    with agents.agent_on(perps.chain, tmp_path, changes, {"WETH": "40%", "USDC": "40%", "WBTC": "20%"}) as agent:
        perps.chain.node.rpc("anvil_setCode", perps.chain.tokens["WBTC"].address, "0xfe")  # type: ignore[attr-defined]  # always anvil here
        outcome = agent.rebalance(send=True, confirm=agents.yes)
    assert orders(outcome), outcome.reason
    assert 0 < size(perps, "WETH") < before, outcome.reason
    assert leverage(perps) <= MOST


# --- One endpoint that is fed something else.


def frozen(perps: LocalPerps) -> Callable[[str, list[Any], Any], Any]:
    """Answers in which the position is worth ten times as much, so that no limit is broken."""
    scope = scope_of(perps, perps.chain.wallet.address)
    word = next(
        perps.chain.transport.call("eth_call", [{"to": perp_question.address, "data": "0x" + perp_question.item.calldata.hex()}, "latest"])[
            2:66
        ]
        for perp_question in perp_questions(scope)
        if perp_question.name == "collateral"
    )

    def change(method: str, _: list[Any], answer: Any) -> Any:
        return answer.replace(word, f"{int(word, 16) * 10:064x}") if method == "eth_call" and isinstance(answer, str) else answer

    return change


@pytest.mark.parametrize(("honest", "acts"), [(1, False), (2, True)])
def test_endpoint_with_a_rich_account__stops_no_reduction(perps: LocalPerps, tmp_path: Path, honest: int, acts: bool) -> None:
    """Two operators must agree; with two in all a lie holds everything back, and is named."""
    before = crashed(perps)
    chain = perps.chain
    lines = [EndpointProvider(chain.url or "", f"honest {number}", 10, attempts=1) for number in range(honest)]
    liar = RecordingTransport(EndpointProvider(chain.url or "", "liar", 10, attempts=1), "liar", change=frozen(perps))
    loaded = agents.trusted_config(chain, tmp_path, futures_config_changes(perps, LONG), EVEN)
    with agents.reopened_agent(chain, loaded, [*lines, liar]) as agent:
        if not acts:
            with pytest.raises(Exception, match="liar"):
                agent.rebalance(send=True, confirm=agents.yes)
            assert size(perps, "WETH") == before
            return
        outcome = agent.rebalance(send=True, confirm=agents.yes)
    assert orders(outcome), outcome.reason
    assert size(perps, "WETH") < before, outcome.reason


# --- Pushed virtual pools.


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("push", "fills"), [(Fraction(-9, 100), False), (Fraction(-18, 1_000), True)])
def test_a_mark_pushed_again_and_again_costs_one_reduction(
    perps: LocalPerps, tmp_path: Path, push: Fraction, fills: bool, times: int
) -> None:
    """So many times within a day the pool is held below its index and let go: the index never moves. Beyond the bound nothing
    fills; within it the hysteresis leaves one reduction.
    """
    open_position(perps, "WETH", Fraction(295, 100))
    before = size(perps, "WETH")
    worth = value_at_index(perps)
    price = perps.chain.deployed_world.prices_usd["WETH"]
    closed = reductions = 0
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, LONG, max_reduction_per_day="1x"), EVEN) as agent:
        for _ in range(times):
            for share in (push, Fraction(0)):
                push_pool(perps, "WETH", share)
                advance_time(perps, 1_900)
                perps.chain.refresh_feeds()
                was = size(perps, "WETH")
                agent.rebalance(send=True, confirm=agents.yes)
                closed += max(0, was - size(perps, "WETH"))
                reductions += size(perps, "WETH") < was
                assert not margin.is_liquidatable(read_now(perps, perps.chain.wallet.address))
                assert leverage_at_index(perps) <= MOST
    assert reductions == fills
    assert closed * price / 10**18 <= worth, "1x of the account"
    assert size(perps, "WETH") > before / 2
    assert value_at_index(perps) > worth * Fraction(96, 100), "fees, the bound of one reduction, and funding"


@pytest.mark.parametrize(
    ("side", "cooldown", "opens"),
    [
        pytest.param(1, "1d", [False, False, True], id="long"),
        pytest.param(-1, "1d", [False, False, True], id="short", marks=pytest.mark.slow),
        pytest.param(1, "off", [True, False, False], id="off", marks=pytest.mark.slow),
    ],
)
def test_gap_of_30_percent_and_back__reopens_nothing(
    perps: LocalPerps, tmp_path: Path, side: int, cooldown: str, opens: list[bool]
) -> None:
    open_position(perps, "WETH", side * Fraction(26, 10))
    price = perps.chain.deployed_world.prices_usd["WETH"]
    before = size(perps, "WETH")
    move_price(perps, "WETH", -side * Fraction(30, 100))
    perps.chain.refresh_feeds()
    weights = {"WETH": f"{side * 100}%"}
    changes = futures_config_changes(perps, weights, "2.8x", emergency_cooldown=cooldown, emergency_distance="8%")
    changes["futures"] = {**changes["futures"], "leverage_band": "10%"}  # type: ignore[dict-item]  # a table
    with agents.agent_on(perps.chain, tmp_path, changes, EVEN) as agent:
        closed = agent.rebalance(send=True, confirm=agents.yes)
        assert agent.context.store.budgets.history(0).layer(FuturesState).last_emergency_s is not None, closed.reason
        assert abs(size(perps, "WETH")) < abs(before) / 2
        move_price(perps, "WETH", price / perps.chain.deployed_world.prices_usd["WETH"] - 1)
        opened = []
        for seconds in (60, 3_600, 86_400):
            advance_time(perps, seconds)
            perps.chain.refresh_feeds()
            was = abs(size(perps, "WETH"))
            outcome = agent.rebalance(send=True, confirm=agents.yes)
            opened.append(abs(size(perps, "WETH")) > was)
            assert opened[-1] or "no position is opened before" in outcome.reason or cooldown == "off", outcome.reason
            assert leverage_at_index(perps) <= MOST
    assert opened == opens


def test_reduction_above_the_day_s_budget__closes_its_rest(perps: LocalPerps, tmp_path: Path) -> None:
    """The mark is held 1.8 % below its index: of the 0.1x and more that the limit asks for, a budget of 0.02x is closed, once."""
    open_position(perps, "WETH", Fraction(294, 100))
    before = size(perps, "WETH")
    worth = value_at_index(perps)
    push_pool(perps, "WETH", Fraction(-18, 1_000))
    advance_time(perps, 1_900)
    perps.chain.refresh_feeds()
    price = perps.chain.deployed_world.prices_usd["WETH"]
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, LONG, max_reduction_per_day="2%"), EVEN) as agent:
        first = agent.rebalance(send=True, confirm=agents.yes)
        closed = (before - size(perps, "WETH")) * price / 10**18
        assert worth * Fraction(18, 1_000) < closed <= worth * Fraction(2, 100), first.reason
        again = agent.rebalance(send=True, confirm=agents.yes)
    assert orders(again) == []
    assert "max_reduction_per_day is used" in again.reason
    assert (before - size(perps, "WETH")) * price / 10**18 == closed


@pytest.mark.parametrize(
    ("fall", "at_hand", "spot_follows"),
    [
        pytest.param(Fraction(-20, 100), "5%", True, id="five percent at hand, spot follows"),
        pytest.param(Fraction(-24, 100), "4%", False, id="four percent at hand, spot stays"),
        pytest.param(Fraction(-20, 100), "5%", False, marks=pytest.mark.slow, id="five percent at hand, spot stays"),
        pytest.param(Fraction(-24, 100), "5%", True, marks=pytest.mark.slow, id="deep fall, five percent, spot follows"),
        pytest.param(Fraction(-24, 100), "5%", False, marks=pytest.mark.slow, id="deep fall, five percent, spot stays"),
        pytest.param(Fraction(-24, 100), "4%", True, marks=pytest.mark.slow, id="deep fall, four percent, spot follows"),
    ],
)
def test_pool_held_below_the_bound__liquidates_nobody_with_cash(
    perps: LocalPerps, tmp_path: Path, fall: Fraction, at_hand: str, spot_follows: bool
) -> None:
    """The book is near its liquidation after a crash, and the pool is held 8 % below the index: no sale within the bound fills.
    Where the means of the spot pools still contradict their feed, the budget counts the USDC in the wallet alone.
    """
    chain = perps.chain
    wallet = perps.chain.wallet.address
    open_position(perps, "WETH", Fraction(26, 10))
    move_price(perps, "WETH", fall)
    if spot_follows:
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"]})
    push_pool(perps, "WETH", Fraction(-8, 100))
    advance_time(perps, 1_900)
    chain.refresh_feeds()
    before = margin.account_value_raw(read_now(perps, wallet))
    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, LONG, max_top_up_per_day=at_hand), EVEN) as agent:
        for _ in range(3):
            outcome = agent.rebalance(send=True, confirm=agents.yes)
            advance_time(perps, 120)
            chain.refresh_feeds()
    account = read_now(perps, wallet)
    assert margin.account_value_raw(account) - before > 1_000 * 10**18, outcome.reason
    assert not margin.is_liquidatable(account)


def behind(perps: LocalPerps, fall: Fraction, off: Fraction) -> None:
    """A book of 2.6x after a fall of pool and index, of which the index comes back until the pool is `off` below it."""
    chain = perps.chain
    open_position(perps, "WETH", Fraction(26, 10))
    move_price(perps, "WETH", fall)
    price = chain.deployed_world.prices_usd["WETH"] / (1 + off)
    chain.deployed_world = replace(chain.deployed_world, prices_usd={**chain.deployed_world.prices_usd, "WETH": price})
    advance_time(perps, 1_900)
    chain.refresh_feeds()
    market = read_now(perps, chain.wallet.address).market(perps.markets["WETH"].base_token)
    assert abs(market.mark / market.index - 1 - off) < Fraction(1, 100)


@pytest.mark.parametrize(
    "fall",
    [
        pytest.param(Fraction(-20, 100), id="limit", marks=pytest.mark.slow),
        pytest.param(Fraction(-305, 1_000), id="emergency"),
    ],
)
def test_mark_beyond_the_band__is_met_with_margin(perps: LocalPerps, tmp_path: Path, fall: Fraction) -> None:
    """12 % off, the venue refuses every sale at any bound (EX_OPB): the wallet deposits what it may, and the rest waits for the pool."""
    behind(perps, fall, Fraction(-12, 100))
    chain = perps.chain
    before = size(perps, "WETH")
    changes = futures_config_changes(perps, LONG, emergency_distance="8%", emergency_slippage="20%", max_top_up_per_day="3%")
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert "EX_OPB" in outcome.reason, outcome.reason
        assert size(perps, "WETH") == before, outcome.reason
        assert agent.context.store.budgets.history(chain.now_s()).layer(FuturesState).top_up_value_24h > 0, outcome.reason
        assert not margin.is_liquidatable(read_now(perps, chain.wallet.address))
        push_pool(perps, "WETH", Fraction(0))
        advance_time(perps, 1_900)
        chain.refresh_feeds()
        agent.rebalance(send=True, confirm=agents.yes)
    assert leverage_at_index(perps) <= MOST


@pytest.mark.slow
def test_emergency__sells_below_the_index_to_its_stated_bound(perps: LocalPerps, tmp_path: Path) -> None:
    """8 % off, within the bound of 10 % that the owner has stated for emergencies and beyond the 2 % of other reductions."""
    behind(perps, Fraction(-305, 1_000), Fraction(-8, 100))
    chain = perps.chain
    before = size(perps, "WETH")
    worth = value_at_index(perps)
    changes = futures_config_changes(perps, LONG, emergency_distance="8%", emergency_slippage="10%")
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert agent.context.store.budgets.history(chain.now_s()).layer(FuturesState).last_emergency_s is not None, outcome.reason
    closed = Fraction(before - size(perps, "WETH"), 10**18) * chain.deployed_world.prices_usd["WETH"]
    assert closed > 0
    assert worth - value_at_index(perps) <= closed * Fraction(1_011, 10_000), "10 % of bound and 0.1 % of fee"
    assert not margin.is_liquidatable(read_now(perps, chain.wallet.address))


@pytest.mark.parametrize("share", [Fraction(-2, 100), Fraction(-4, 100)])
def test_pool_pushed_before_a_reduction__costs_at_most_its_bound(perps: LocalPerps, tmp_path: Path, share: Fraction) -> None:
    """Searchers see the order and sell first: within the bound it fills, beyond it reverts, and the next one goes in time."""
    before = crashed(perps)
    chain = perps.chain
    worth = value_at_index(perps)

    def sandwich() -> None:
        chain.node.mine_at(chain.now_s() + 15)
        push_pool(perps, "WETH", share)

    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, LONG), EVEN) as agent:
        agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, sandwich))
        push_pool(perps, "WETH", Fraction(0))
        advance_time(perps, 60)
        chain.refresh_feeds()
        outcome = agent.rebalance(send=True, confirm=agents.yes)
    assert 0 < size(perps, "WETH") < before, outcome.reason
    assert leverage(perps) <= MOST, outcome.reason
    closed = Fraction(before - size(perps, "WETH"), 10**18) * chain.deployed_world.prices_usd["WETH"]
    assert worth - value_at_index(perps) <= closed * Fraction(25, 1_000), "2 % of bound, 0.1 % of fee, and rounding"


def test_pool_pushed_before_an_opening__opens_within_its_bound(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    worth = value_at_index(perps)

    def front_run() -> None:
        chain.node.mine_at(chain.now_s() + 15)
        push_pool(perps, "WETH", Fraction(4, 100))

    with agents.agent_on(chain, tmp_path, futures_config_changes(perps, LONG), EVEN) as agent:
        agent.rebalance(send=True, confirm=agents.yes, progress=agents.at_send(1, front_run))
        assert size(perps, "WETH") == 0
        push_pool(perps, "WETH", Fraction(0))
    assert value_at_index(perps) == worth


@pytest.mark.parametrize("times", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_pushed_funding__trims_at_most_the_daily_budget(perps: LocalPerps, tmp_path: Path, times: int) -> None:
    """The pool is held above its index, so that longs pay; let go, the funding that is expected is gone."""
    open_position(perps, "WETH", 2)
    worth = value_at_index(perps)
    price = perps.chain.deployed_world.prices_usd["WETH"]
    changes = futures_config_changes(perps, LONG, max_reduction_per_day="1x")
    changes["futures"] = {**changes["futures"], "funding_horizon": "7d"}  # type: ignore[dict-item]  # a table
    closed = 0
    with agents.agent_on(perps.chain, tmp_path, changes, EVEN) as agent:
        for share in (Fraction(4, 100), Fraction(0)) * times:
            push_pool(perps, "WETH", share)
            advance_time(perps, 1_900)
            perps.chain.refresh_feeds()
            was = size(perps, "WETH")
            agent.rebalance(send=True, confirm=agents.yes)
            closed += max(0, was - size(perps, "WETH"))
            assert size(perps, "WETH") >= 0
            assert leverage_at_index(perps) <= MOST
    assert 0 < closed * price / 10**18 <= worth
    assert value_at_index(perps) > worth * Fraction(95, 100)
