"""Positions in markets that the config does not name, as a stolen delegate opens them: counted, told, closed in emergencies; they
hold no reduction of the named markets back. Whole steps on the deployed contracts.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.app.documents.futures import positions_document, summary_document
from agent.app.documents.futures_report import build_futures_report
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.requests import Deleverage, MarginAccountRequest
from agent.layers.futures.state import futures_policy, margin_account, planned_futures
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import AlertKind, FuturesReading, IntentKind
from agent.model.futures import DelegateChange, MarginAccount, MarginDeposit, PerpOrder, PerpOrderKind
from agent.planning.proposals import propose_rebalance
from agent.ports.perpetuals import futures_grant
from agent.venues import perpetual_protocol as venue
from tests.support import agents
from tests.support.builders import with_snapshot
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_faults import LONG, MARGIN_USD, MOST, leverage, move_price, open_position, orders, perps, size
from tests.support.perps import WAD, account_of, advance_time, contracts_of, read_now, send_data

__all__ = ["perps"]
STRANGE = "vWBTC"
"""Symbol of the market's base token on the chain."""


def stolen(perps: LocalPerps, multiple: Fraction) -> None:
    """A delegate whose key was stolen takes a position of so much leverage in WBTC for the account."""
    chain = perps.chain
    key = perps.chain.accounts[3].address
    owner = perps.chain.wallet.address
    send_data(perps, perps.addresses.delegate_approval, venue.encode_delegate(key, is_allowed=True), owner)
    raw = int(multiple * MARGIN_USD / chain.deployed_world.prices_usd["WBTC"] * WAD)
    bound = 10**30 if raw > 0 else 1
    order = PerpOrder(perps.markets["WBTC"].base_token, raw, PerpOrderKind.MARKET, bound, is_reduce_only=False)
    data = venue.encode_order(order, contracts_of(perps, owner), key, chain.now_s() + 10_000)
    send_data(perps, perps.addresses.clearing_house, data, key)
    perps.trade(chain.whale.address, "WBTC", -raw)


def known(outcome: StepOutcome) -> MarginAccount:
    account = margin_account(outcome.step_input.snapshot)
    assert account is not None, outcome.step_input.snapshot.layer(FuturesReading).unknown_reason
    return account


def halts(outcome: StepOutcome) -> list[str]:
    facts = RunFacts(None, 0, False)
    return [alert.text for alert in cycle_alerts(outcome, facts) if alert.kind is AlertKind.HALT and alert.key == "futures:unnamed"]


@pytest.mark.parametrize("multiple", [pytest.param(Fraction(1, 2), marks=pytest.mark.slow), Fraction(-1, 2)])
def test_it_counts_to_the_wei_and_is_told_and_nothing_is_opened(perps: LocalPerps, tmp_path: Path, multiple: Fraction) -> None:
    stolen(perps, multiple)
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, LONG, max_top_up_per_day="off"), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        again = agent.rebalance(send=True, confirm=agents.yes)
    assert orders(outcome) == []
    assert f"the account has a position in {STRANGE}, which the config does not name" in outcome.reason
    account = known(outcome)
    views = account_of(perps, perps.chain.wallet.address)
    base = perps.markets["WBTC"].base_token
    assert (account.collateral_raw, {position.market: position for position in account.positions}) == (
        views.collateral_raw,
        {position.market: position for position in views.positions},
    )
    assert margin.leverage(account) == margin.leverage(views)
    assert not account.market(base).is_configured
    assert account.market(base).index_s > 0, "its index is dated by the aggregator behind its feed"
    step = again.step_input
    assert futures_policy(step) is not None
    report = build_futures_report(step, futures_policy(step), again.decision_result.drifts)
    assert summary_document(report)["unnamed"] == [STRANGE]
    assert [(position["market"], position["symbol"]) for position in positions_document(report)["positions"]] == [(base, STRANGE)]
    [text] = halts(again)
    assert STRANGE in text
    assert again.step_input.snapshot.http_request_count == 2 < outcome.step_input.snapshot.http_request_count, (
        "later snapshots take two round trips"
    )


@pytest.mark.parametrize("top_up", [pytest.param("0%", marks=pytest.mark.slow), "off"])
def test_reduction_of_the_named_market__goes_on_without_deposit(perps: LocalPerps, tmp_path: Path, top_up: str) -> None:
    """The money of the wallet is not put beside a key that may be a thief's."""
    open_position(perps, "WETH", 2)
    stolen(perps, Fraction(3, 2))
    before = {symbol: size(perps, symbol) for symbol in ("WETH", "WBTC")}
    collateral = read_now(perps, perps.chain.wallet.address).collateral_raw
    assert leverage(perps) > MOST
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, LONG, max_top_up_per_day=top_up), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
    assert orders(outcome), outcome.reason
    assert leverage(perps) <= MOST, outcome.reason
    assert 0 < size(perps, "WETH") < before["WETH"]
    assert size(perps, "WBTC") == before["WBTC"]
    assert read_now(perps, perps.chain.wallet.address).collateral_raw <= collateral


@pytest.mark.parametrize("own", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_limit_the_named_market_cannot_meet__reduces_it_too(perps: LocalPerps, tmp_path: Path, own: int) -> None:
    """A thief alone takes the account above its leverage limit: it is below at the end of the same step."""
    if own:
        open_position(perps, "WETH", Fraction(3, 10))
    stolen(perps, Fraction(7, 2))
    assert leverage(perps) > MOST
    before = {symbol: size(perps, symbol) for symbol in ("WETH", "WBTC")}
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, LONG), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
    assert leverage(perps) <= MOST, outcome.reason
    assert 0 < size(perps, "WBTC") < before["WBTC"]
    assert 0 < size(perps, "WETH") < before["WETH"] or not own


def test_an_emergency_closes_it_too(perps: LocalPerps, tmp_path: Path) -> None:
    """A crash of WBTC alone: only its position is near liquidation, at the venue's own index."""
    stolen(perps, Fraction(5))
    move_price(perps, "WBTC", Fraction(-14, 100))
    perps.chain.refresh_feeds()
    before = size(perps, "WBTC")
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, LONG, emergency_distance="10%"), EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        sent = [transaction for transaction in outcome.transactions if transaction.kind is IntentKind.FUTURES]
        assert sent, outcome.reason
        granted = futures_grant(agent.context.store.journal.grant(sent[0].id))
        assert granted is not None
        assert granted.is_emergency
        assert abs(size(perps, "WBTC")) <= abs(before) / 2
        assert not margin.is_liquidatable(read_now(perps, perps.chain.wallet.address))
        assert agent.context.store.journal.unbooked_intents() == () == agent.context.store.journal.open_intents()


@pytest.mark.slow
def test_owner__ends_the_delegate_closes_and_goes_on(perps: LocalPerps, tmp_path: Path) -> None:
    stolen(perps, Fraction(1))
    changes = futures_config_changes(perps, LONG)
    changes["futures"] |= {"delegate": perps.chain.accounts[3].address}  # type: ignore[operator]
    with agents.agent_on(perps.chain, tmp_path, changes, EVEN) as agent:
        ended = agent.adjust_futures(
            MarginAccountRequest(DelegateChange(perps.chain.accounts[3].address, is_allowed=False)), send=True, confirm=agents.yes
        )
        assert ended.kind is OutcomeKind.DONE, ended.reason
        closed = agent.adjust_futures(Deleverage(None, STRANGE), send=True, confirm=agents.yes)
        assert closed.kind is OutcomeKind.DONE, closed.reason
        assert size(perps, "WBTC") == 0, closed.reason
        opened = agent.rebalance(send=True, confirm=agents.yes)
        assert size(perps, "WETH") > 0, opened.reason
        assert halts(opened) == [], opened.reason
        assert all(market.is_configured for market in known(opened).markets)


@pytest.mark.slow
def test_undated_index__is_not_traded_and_holds_nothing_else(perps: LocalPerps, tmp_path: Path) -> None:
    """A feed without an aggregator: the position counts, and the named market is reduced."""
    open_position(perps, "WETH", 2)
    stolen(perps, Fraction(3, 2))
    advance_time(perps, 60)
    with agents.agent_on(perps.chain, tmp_path, futures_config_changes(perps, LONG), EVEN) as agent:
        outcome = agent.rebalance(send=False)
        step = outcome.step_input
        account = known(outcome)
        blind = replace(
            account, markets=tuple(replace(market, index_s=market.index_s if market.is_configured else 0) for market in account.markets)
        )
        plan = propose_rebalance(with_snapshot(step, futures=blind)).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert [order.market for order in planned_futures(plan).orders] == [perps.markets["WETH"].base_token]
    assert not any(isinstance(action, MarginDeposit) for action in planned_futures(plan).actions)
