"""Margin moved and positions closed in emergencies by whole steps, with the deployed contracts and the real signer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.execution.step_context import OutcomeKind
from agent.layers.futures.planning.plans import action_gas
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import FuturesState
from agent.localchain.perpetuals import LocalPerps
from agent.margin import account as margin
from agent.model import IntentKind
from agent.model.futures import AccountAction, DelegateChange, MarginDeposit, MarginWithdrawal, PerpOrder, PerpOrderKind
from agent.ports.perpetuals import futures_grant
from agent.venues import perpetual_protocol as venue
from tests.support import agents
from tests.support.agents import require_rebalance
from tests.support.futures import EVEN, futures_config_changes
from tests.support.perpetuals.chain_orders import crash, kinds, open_by_hand
from tests.support.perps import WAD, contracts_of, read_now, send_data

UNIT = 10**6


@pytest.fixture
def perps(perps_chain: LocalPerps) -> LocalPerps:
    """A wallet on its spot targets, with 10,000 of margin."""
    agents.fund(perps_chain.chain, {"WETH": 40_000, "USDC": 40_000})
    perps_chain.deposit(perps_chain.chain.wallet.address, 10_000 * UNIT)
    return perps_chain


def test_a_step_tops_up_after_a_crash_and_trades_nothing(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    open_by_hand(perps, {"WETH": int(27_000 / chain.deployed_world.prices_usd["WETH"] * WAD)})
    crash(perps, "WETH", Fraction(12, 100))
    before = read_now(perps, wallet)
    purse = agents.purse(chain)
    changes = futures_config_changes(perps, {"WETH": "100%"}, max_top_up_per_day="10%")
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        outcome = require_rebalance(agent)
        assert kinds(outcome)[:2] == [IntentKind.APPROVE, IntentKind.FUTURES], outcome.reason
        assert kinds(outcome).count(IntentKind.FUTURES) == 1, "deposited margin opens nothing in the same step"
        deposit = futures_grant(agent.context.store.journal.grant(outcome.transactions[1].id))
        assert deposit is not None
        assert isinstance(deposit.action, MarginDeposit)
        margin_account = read_now(perps, wallet)
        assert [position.size_raw for position in margin_account.positions] == [position.size_raw for position in before.positions]
        assert margin_account.collateral_raw - before.collateral_raw == deposit.action.raw * margin_account.collateral_unit_raw
        leverage = margin.leverage(margin_account)
        assert leverage is not None
        assert leverage < 3
        assert chain.token_contract("USDC").functions.allowance(wallet, perps.addresses.vault).call() == 0
        assert agents.purse(chain).nonce - purse.nonce == len(outcome.transactions)
        store = agent.context.store
        history = store.budgets.history(chain.now_s())
        assert history.layer(FuturesState).top_up_value_24h == deposit.action.raw
        assert history.budgets.turnover_24h == 0 == history.layer(FuturesState).reduced_notional_24h
        assert history.budgets.loss_24h < 50 * agents.USD, "a deposit is no loss"
        assert history.cash_flows.unexplained_transfers == ()
        assert history.budgets.unknown_reason == ""
        assert store.journal.unbooked_intents() == () == store.journal.open_intents()
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert IntentKind.FUTURES not in kinds(again), again.reason


def moved(agent: Agent, action: AccountAction) -> int:
    """Gas of an owner's action, which succeeds."""
    outcome = agent.adjust_futures(MarginAccountRequest(action), send=True, confirm=agents.yes)
    assert outcome.kind is OutcomeKind.DONE, outcome.reason
    receipt = next(transaction.receipt for transaction in outcome.transactions if transaction.kind is IntentKind.FUTURES)
    assert receipt is not None
    assert receipt.gas_used <= action_gas(action), receipt.gas_used
    return receipt.gas_used


def test_the_owner_deposits_withdraws_and_lets_a_delegate_trade(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    key = perps.chain.accounts[4].address
    open_by_hand(perps, {"WETH": 2 * WAD, "WBTC": -WAD // 10})
    changes = futures_config_changes(perps, {"WETH": "60%", "WBTC": "-40%"})
    changes["futures"] |= {"delegate": key}  # type: ignore[operator]
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        usdc = agents.purse(chain).raw["USDC"]
        before = read_now(perps, wallet)
        moved(agent, MarginDeposit(1_500 * UNIT))
        assert read_now(perps, wallet).collateral_raw - before.collateral_raw == 1_500 * WAD
        moved(agent, MarginWithdrawal(500 * UNIT))
        assert agents.purse(chain).raw["USDC"] - usdc == -1_000 * UNIT
        approval = perps.contract(perps.addresses.delegate_approval, "DelegateApproval").functions
        moved(agent, DelegateChange(key, is_allowed=True))
        assert approval.canOpenPositionFor(wallet, key).call()
        moved(agent, DelegateChange(key, is_allowed=False))
        assert not approval.canOpenPositionFor(wallet, key).call()
        history = agent.context.store.budgets.history(chain.now_s())
        assert history.budgets.loss_24h < 50 * agents.USD
        assert history.cash_flows.unexplained_transfers == ()
        refused = agent.adjust_futures(MarginAccountRequest(MarginWithdrawal(9_000 * UNIT)), send=True, confirm=agents.yes)
        assert (refused.kind, refused.transactions) == (OutcomeKind.REFUSED, ())


def test_stolen_delegate__is_ended_after_its_position_elsewhere(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    key = perps.chain.whale.address
    approval = perps.contract(perps.addresses.delegate_approval, "DelegateApproval").functions
    changes = futures_config_changes(perps, {"WETH": "100%"})
    changes["futures"] |= {"delegate": key}  # type: ignore[operator]
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        moved(agent, DelegateChange(key, is_allowed=True))
        order = PerpOrder(perps.markets["WBTC"].base_token, WAD // 10, PerpOrderKind.MARKET, 10_000 * WAD, is_reduce_only=False)
        data = venue.encode_order(order, contracts_of(perps, wallet), key, chain.now_s() + 10_000)
        send_data(perps, perps.addresses.clearing_house, data, key)
        withdrawn = agent.adjust_futures(MarginAccountRequest(MarginWithdrawal(UNIT)), send=True, confirm=agents.yes)
        assert withdrawn.kind is OutcomeKind.DONE, withdrawn.reason
        moved(agent, DelegateChange(key, is_allowed=False))
        assert not approval.canOpenPositionFor(wallet, key).call()
        assert agent.context.store.journal.unbooked_intents() == ()


def test_step__escapes_liquidation_above_the_usual_gas_price(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    open_by_hand(perps, {"WETH": int(27_000 / chain.deployed_world.prices_usd["WETH"] * WAD)})
    crash(perps, "WETH", Fraction(20, 100))
    before = read_now(perps, wallet)
    changes = futures_config_changes(
        perps, {"WETH": "100%"}, emergency_distance="25%", emergency_gas_price="200 gwei", max_top_up_per_day="off"
    )
    changes["limits.gas_price"] = "0.001 gwei"
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        sent = [transaction for transaction in outcome.transactions if transaction.kind is IntentKind.FUTURES]
        assert sent, outcome.reason
        assert sent[0].succeeded, outcome.reason
        store = agent.context.store
        granted = futures_grant(store.journal.grant(sent[0].id))
        assert granted is not None
        assert granted.is_emergency
        margin_account = read_now(perps, wallet)
        base = perps.markets["WETH"].base_token
        assert 0 < margin_account.size_raw(base) <= before.size_raw(base) - before.size_raw(base) // 2
        history = store.budgets.history(chain.now_s())
        gas_wei = sum(intent.receipt.gas_cost_wei for intent in sent if intent.receipt is not None)
        assert history.emergency_gas_24h_wei == gas_wei > 0
        assert history.layer(FuturesState).reduced_notional_24h == 0 == history.budgets.turnover_24h
        assert store.journal.unbooked_intents() == () == store.journal.open_intents()


def test_delegate_s_key__trades_and_moves_no_margin(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    owner = perps.chain.accounts[3].address
    key = perps.chain.wallet.address
    perps.deposit(owner, 10_000 * UNIT)
    changes = futures_config_changes(perps, {"WETH": "100%"}, max_top_up_per_day="off")
    changes["futures"] |= {"account": owner}  # type: ignore[operator]
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        refused = require_rebalance(agent, OutcomeKind.REFUSED)
        assert "CH_SHNAOPT" in refused.reason, refused.reason
        assert refused.transactions == (), "the owner's margin moves no weight of the delegate's wallet"
        approve = venue.encode_delegate(key, is_allowed=True)
        send_data(perps, perps.addresses.delegate_approval, approve, owner)
        opened_for = require_rebalance(agent)
        assert f"this key is a delegate of {owner}; it trades and neither deposits nor withdraws margin" in opened_for.reason
        before = read_now(perps, owner)
        assert before.size_raw(perps.markets["WETH"].base_token) > 0
        assert read_now(perps, key).positions == ()
        for action in (MarginWithdrawal(UNIT), MarginDeposit(UNIT), DelegateChange(owner, is_allowed=False)):
            outcome = agent.adjust_futures(MarginAccountRequest(action), send=True, confirm=agents.yes)
            assert (outcome.kind, outcome.transactions) == (OutcomeKind.REFUSED, ()), outcome.reason
            assert "margin_move" in outcome.reason
        crash(perps, "WETH", Fraction(25, 100))
        reduced = agent.rebalance(send=True, confirm=agents.yes)
        assert IntentKind.APPROVE not in kinds(reduced), reduced.reason
        assert IntentKind.FUTURES in kinds(reduced), reduced.reason
        margin_account = read_now(perps, owner)
        assert 0 < margin_account.size_raw(perps.markets["WETH"].base_token) < before.size_raw(perps.markets["WETH"].base_token)
        assert margin_account.collateral_raw <= before.collateral_raw


def test_delegate__opens_nothing_without_the_owner_s_portfolio(perps: LocalPerps, tmp_path: Path) -> None:
    """90,000 in the delegate's own wallet are not the owner's spot portfolio, of which nothing is known."""
    owner = perps.chain.accounts[3].address
    key = perps.chain.wallet.address
    perps.deposit(owner, 10_000 * UNIT)
    send_data(perps, perps.addresses.delegate_approval, venue.encode_delegate(key, is_allowed=True), owner)
    changes = futures_config_changes(perps, {"WETH": "100%"}, spot_multiple="2x")
    changes["futures"] |= {"account": owner}  # type: ignore[operator]
    with agents.agent_on(perps.chain, tmp_path, changes, EVEN) as agent:
        outcome = agent.rebalance(send=True, confirm=agents.yes)
    assert IntentKind.FUTURES not in kinds(outcome)
    assert f"the portfolio of {owner} is not read" in outcome.reason
    assert read_now(perps, owner).positions == ()


def test_refused_deposit__is_followed_by_a_reduction(perps: LocalPerps, tmp_path: Path) -> None:
    chain = perps.chain
    wallet = perps.chain.wallet.address
    open_by_hand(perps, {"WETH": int(27_000 / chain.deployed_world.prices_usd["WETH"] * WAD)})
    crash(perps, "WETH", Fraction(12, 100))
    before = read_now(perps, wallet)
    cap = perps.contract(perps.addresses.clearing_house_config, "ClearingHouseConfig").functions.setSettlementTokenBalanceCap(1)
    chain.send(cap)
    changes = futures_config_changes(perps, {"WETH": "100%"}, max_top_up_per_day="10%")
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        outcome = require_rebalance(agent)
        assert "V_GTSTBC" in outcome.reason, outcome.reason
        sent = [transaction.note for transaction in outcome.transactions if transaction.kind is IntentKind.FUTURES]
        assert sent, sent
        assert all(note.startswith("reduce futures") for note in sent), sent
        margin_account = read_now(perps, wallet)
        leverage = margin.leverage(margin_account)
        assert leverage is not None
        assert leverage <= 3
        assert margin_account.collateral_raw <= before.collateral_raw
        assert chain.token_contract("USDC").functions.allowance(wallet, perps.addresses.vault).call() == 0
        assert agent.context.store.budgets.history(chain.now_s()).layer(FuturesState).top_up_value_24h == 0
