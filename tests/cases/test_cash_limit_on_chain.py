"""portfolio.use_cash: 1,000 of 5,000 in the wallet are managed, and the rest is left alone, on real contracts."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.app.money import shutdown, transfers
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.units import BPS
from tests.support.agents import (
    ROOMY,
    USD,
    agent_on,
    explain_balances,
    fund,
    purse,
    reopened_agent,
    require_rebalance,
    swap_of,
    trusted_config,
    yes,
)
from tests.support.constants import HOME
from tests.support.on_chain.gifts import give
from tests.support.on_chain.strategies import books, strategies
from tests.support.text import mentions

HALVES = {"WETH": "50%", "USDC": "50%"}
CAPPED: Mapping[str, object] = {**ROOMY, "portfolio.use_cash": "1000", "portfolio.max_live_value": "off", "wallet.payout_addresses": [HOME]}


def unused(agent: Agent) -> int:
    state = agent.step_input().history.cash_flows.cash
    assert state is not None
    return state.unused_raw


def managed(agent: Agent) -> Fraction:
    return sum((drift.value for drift in agent.plan().decision_result.drifts), Fraction(0))


def near(value: Fraction | int, usd: int, within_bps: int = 60) -> bool:
    return abs(value - usd * USD) * BPS <= within_bps * usd * USD


def test_a_thousand_of_five_is_invested_once_and_never_more(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 5_000})
    with agent_on(chain, tmp_path, CAPPED, HALVES) as agent:
        assert unused(agent) == 4_000 * USD
        assert managed(agent) == 1_000 * USD
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(outcome)
        assert near(sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == chain.tokens["USDC"].address), 500)
        assert near(chain.balance("USDC"), 4_500)
        assert unused(agent) == 4_000 * USD
        for _ in range(3):
            assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        (excluded,) = status_document(agent.status())["excluded"]
        assert (excluded["symbol"], excluded["amount"]) == ("USDC", "4000")
        assert mentions(excluded["why"], "portfolio.use_cash")


def test_deposit_above_the_limit__is_left_and_names_the_setting(chain: LocalChain, tmp_path: Path) -> None:
    """All 1,000 are taken and WETH is underweight: 50 more buy nothing, also with the cash that is managed."""
    fund(chain, {"USDC": 1_000})
    with agent_on(chain, tmp_path, {**CAPPED, "limits.first_purchase": "10m"}, HALVES) as agent:
        agent.rebalance(send=True, confirm=yes)
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(4, 5)})
        give(chain, "USDC", 50)
        done = transfers.invest(agent, send=True, confirm=lambda _: True)
        assert done.outcome is not None, done.outcome
        assert done.outcome.kind is OutcomeKind.HOLD, done.outcome
        assert done.is_recorded, done.outcome
        assert mentions(done.outcome.reason, "50 USDC left alone", "trimtab edit --set portfolio.use_cash=1050")
        later = transfers.invest(agent, send=False, confirm=lambda _: True)
        assert not later.deposits
        assert "portfolio.use_cash=1050" in transfers.investment_document(later, agent, is_sent=False)["reason"]


def test_falling_prices__take_no_more_and_gains_stay_managed(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 5_000})
    with agent_on(chain, tmp_path, CAPPED, HALVES) as agent:
        agent.rebalance(send=True, confirm=yes)
        for factor in (Fraction(1, 2), Fraction(1, 2), Fraction(6)):
            chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * factor})
            before = managed(agent)
            agent.rebalance(send=True, confirm=yes)
            assert chain.balance("USDC") >= 4_000 * USD
            assert unused(agent) == 4_000 * USD
            assert abs(managed(agent) - before) * 50 <= before, "trades move no money in or out"


def test_deposits__fill_the_ceiling_and_the_rest_is_left_alone(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 400})
    with agent_on(chain, tmp_path, CAPPED, HALVES) as agent:
        agent.rebalance(send=True, confirm=yes)
        assert unused(agent) == 0
        give(chain, "USDC", 3_000)
        explain_balances(agent)
        agent.rebalance(send=True, confirm=yes)
        assert unused(agent) == 2_400 * USD
        assert near(managed(agent), 1_000)
        give(chain, "USDC", 100)
        explain_balances(agent)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert unused(agent) == 2_500 * USD


def test_a_withdrawal_and_the_end_pay_only_what_is_managed(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 5_000})
    with agent_on(chain, tmp_path, CAPPED, HALVES) as agent:
        agent.rebalance(send=True, confirm=yes)
        paid = transfers.withdraw(agent, transfers.WithdrawalRequest("700", to=HOME), send=True, confirm=lambda _: True)
        assert paid.state == "paid"
        assert paid.sale is not None, "what lacks is sold, not taken from the rest"
        assert chain.balance("USDC", HOME) == 700 * USD
        assert chain.balance("USDC") >= 4_000 * USD
        assert unused(agent) == 4_000 * USD
        done = shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=lambda _: True)
        assert done.state == "stopped", done.reason
        assert chain.balance("USDC") == 4_000 * USD
        assert near(chain.balance("USDC", HOME), 1_000)


def test_the_account_outlives_a_restart_and_follows_the_setting(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 5_000})
    with agent_on(chain, tmp_path, CAPPED, HALVES) as agent:
        agent.rebalance(send=True, confirm=yes)
    for cash, rest_usd in (("2500", 2_500), ("2000", 3_000)):
        with reopened_agent(chain, trusted_config(chain, tmp_path, {**CAPPED, "portfolio.use_cash": cash}, HALVES)) as agent:
            assert unused(agent) == rest_usd * USD
            agent.rebalance(send=True, confirm=yes)
            assert unused(agent) == rest_usd * USD
            assert chain.balance("USDC") >= rest_usd * USD
    before = purse(chain).raw["USDC"]
    with reopened_agent(chain, trusted_config(chain, tmp_path, {**CAPPED, "portfolio.use_cash": "off"}, HALVES)) as agent:
        assert agent.step_input().history.cash_flows.cash is None
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    assert chain.balance("USDC") < before


def test_manual_swap_exit_or_edit__does_not_reach_the_rest(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 5_000})
    stop = {
        **CAPPED,
        "limits.price_impact": "2%",
        "limits.plan_cost": "1%",
        "portfolio.assets.0.stop_loss": "2500",
        "policy.confirm_blocks": 0,
    }
    with agent_on(chain, tmp_path, stop, HALVES) as agent:
        agent.rebalance(send=True, confirm=yes)
        beyond = agent.swap("USDC", "WETH", "600", send=True, confirm=yes)
        assert beyond.kind is OutcomeKind.REFUSED, beyond.reason
        assert mentions(beyond.reason, "600 USDC", "portfolio.use_cash"), beyond.reason
        assert agent.swap("USDC", "WETH", "100", send=True, confirm=yes).kind is OutcomeKind.DONE
        assert unused(agent) == 4_000 * USD
        explain_balances(agent)
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(4, 5)})
        done = require_rebalance(agent)
        assert mentions(done.reason, "stop_loss"), done.reason
        assert chain.balance("WETH") == 0
        assert unused(agent) == 4_000 * USD
        assert near(managed(agent), 880, 200)
        assert chain.balance("USDC") == 4_000 * USD + managed(agent)


@pytest.mark.slow
def test_strategies_share_only_what_is_used(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"USDC": 5_000})
    with agent_on(chain, tmp_path, {**CAPPED, **strategies("50%", "50%")}, HALVES) as agent:
        agent.rebalance(send=True, confirm=yes)
        assert (
            sum(strategy_book.balance_raw(chain.tokens["USDC"].address) for strategy_book in books(agent).strategy_books)
            == chain.balance("USDC") - 4_000 * USD
        )
        give(chain, "USDC", 250)
        explain_balances(agent)
        agent.rebalance(send=True, confirm=yes)
        assert unused(agent) == 4_250 * USD
        assert (
            sum(strategy_book.balance_raw(chain.tokens["USDC"].address) for strategy_book in books(agent).strategy_books)
            == chain.balance("USDC") - 4_250 * USD
        )


def test_a_restored_store_counts_its_own_trades_as_such(chain: LocalChain, tmp_path: Path) -> None:
    """The swap that the backup lacks is read from the chain: it moved the managed part and not the rest."""
    fund(chain, {"USDC": 5_000})
    loaded = trusted_config(chain, tmp_path / "a", CAPPED, HALVES, vouched=False)
    with reopened_agent(chain, loaded) as agent:
        agent.rebalance()  # opens the account and sends nothing
        api.backup_store(loaded.path, tmp_path / "backup.db")
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
    api.restore_store(loaded.path, tmp_path / "backup.db", force=True)
    with reopened_agent(chain, loaded) as agent:
        agent.resync_nonce()
        assert unused(agent) == 4_000 * USD
        assert near(managed(agent), 1_000)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert near(chain.balance("USDC"), 4_500)
