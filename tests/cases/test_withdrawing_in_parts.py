"""A withdrawal that pools do not give at once within price_impact: raised part by part over looks, then paid once, on real contracts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.money import transfers
from agent.app.money import transfers as withdrawing
from agent.app.withdrawals import withdrawal_run
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, Refused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import Halt, Hold, IntentKind, LegPlace, LimitOrder, Payment, RequestKind, RequestState, StepInput, WithdrawalProgress
from agent.planning import proposals, requests
from agent.policy.cash_flows import transfers as outflow
from agent.policy.native_coin import held_balances
from tests.support.agents import USD, fund, reopened_agent, swap_of, trusted_config, when_approved, yes
from tests.support.on_chain.gifts import give
from tests.support.on_chain.withdrawing import HOME, TARGETS, accept, ended_state
from tests.support.on_chain.withdrawing_in_parts import LARGE, PARTS, TEN_MINUTES, look, restore_pools
from tests.support.text import mentions, raises_code

ASKED = "3000000"
STRANGER = "0x" + "5e" * 20


@contextmanager
def rich(chain: LocalChain, loaded: LoadedConfig) -> Iterator[Agent]:
    with reopened_agent(chain, loaded) as agent:
        yield agent


def weth(step: StepInput) -> str:
    return next(asset.token.address for asset in step.portfolio.assets if asset.token.symbol == "WETH")


def test_sixty_percent__is_raised_over_looks_and_paid_once(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, PARTS, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        preview = withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), confirm=accept)
        assert preview.state == "planned", preview.reason
        assert preview.sale is not None, preview.reason
        assert "part 1" in preview.sale.reason, preview.reason
        first = withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept)
        assert first.state == "part", first.reason
        assert "part 1" in first.reason
        assert "next at" in first.reason
        assert chain.balance("USDC", HOME) == 0, "nothing is paid before all of it is there"
        prices = chain.deployed_world.prices_usd
        sold = {
            symbol: LARGE[symbol] - chain.balance(symbol) * prices[symbol] / 10 ** chain.tokens[symbol].decimals
            for symbol in ("WETH", "WBTC")
        }
        assert min(sold.values()) > 1_000, "every asset that is sold gives a part"
        early = look(agent)
        assert early.kind is OutcomeKind.HOLD, early.reason
        assert "part 2" in early.reason, early.reason
        assert "next at" in early.reason, early.reason
        assert "part 2" in agent.status().decision_result.decision.reason

    parts = 1
    paid = None
    while paid is None and parts < 40:
        restore_pools(chain, TEN_MINUTES)
        with reopened_agent(chain, loaded) as agent:  # a run that was ended in between goes on
            outcome = look(agent)
            assert outcome.kind is OutcomeKind.DONE, outcome.reason
            parts += any(transaction.kind is IntentKind.SWAP for transaction in outcome.transactions)
            paid = next((transaction for transaction in outcome.transactions if transaction.kind is IntentKind.PAYOUT), None)
    assert parts > 2
    assert chain.balance("USDC", HOME) == 3_000_000 * USD
    with reopened_agent(chain, loaded) as agent:
        assert ended_state(agent, first.request_id) is RequestState.DONE
        assert agent.step_input().history.budgets.turnover_24h < 20 * USD, "no part is drift"
        look(agent)
        assert chain.balance("USDC", HOME) == 3_000_000 * USD, "paid once"
        assert agent.step_input().history.cash_flows.pending_payments == ()


def test_a_thin_pool_slows_no_sale_of_another_asset(chain: LocalChain, tmp_path: Path) -> None:
    """The same part of everything sold 188,000 dollars of WETH first, and took 12 parts instead of 8."""
    fund(chain, {"WETH": 2_500_000, "LINK": 1_000_000, "USDC": 1_500_000})
    loaded = trusted_config(chain, tmp_path, PARTS, {"WETH": "50%", "LINK": "20%", "USDC": "30%"})

    with reopened_agent(chain, loaded) as agent:
        preview = withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), confirm=accept)
        assert preview.sale is not None
        assert preview.sale.plan is not None
        assert "part 1" in preview.sale.reason
        legs = [leg for leg in preview.sale.plan.legs if leg.token_in == weth(agent.step_input()) and leg.source is LegPlace.WALLET]
        sold = sum(leg.amount_in_raw for leg in legs) * chain.deployed_world.prices_usd["WETH"] / 10**18
        assert sold > 300_000, float(sold)


@pytest.mark.slow
def test_the_owner_goes_on_with_it_himself_or_takes_it_back(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, PARTS, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        first = withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept)
        number = first.request_id or 0
        with raises_code(Refused, "part_not_due", f"withdrawal {number}", "1 of about 5"):
            withdrawing.resume_withdrawal(agent, number, send=True, confirm=accept)
        restore_pools(chain, TEN_MINUTES)
        second = withdrawing.resume_withdrawal(agent, number, send=True, confirm=accept)
        assert second.state == "part", second.reason
        assert "part 2" in second.reason, second.reason
        withdrawing.release_withdrawal(agent, number)
        assert ended_state(agent, number) is RequestState.RELEASED
        assert agent.step_input().history.cash_flows.pending_payments == ()
        restore_pools(chain, TEN_MINUTES)
        assert "withdrawal" not in look(agent).reason
        assert chain.balance("USDC", HOME) == 0


@pytest.mark.slow
def test_withdrawal_in_parts__ends_after_its_time(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, PARTS, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        first = withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept)
    restore_pools(chain, 8 * 86_400)
    with reopened_agent(chain, loaded) as agent:
        late = look(agent)
        assert late.kind is OutcomeKind.HALT, late.reason
        assert f"trimtab withdraw --resume {first.request_id}" in late.reason, late.reason
        assert chain.balance("USDC", HOME) == 0, "a command of long ago pays nothing by itself"
        assert withdrawing.resume_withdrawal(agent, first.request_id or 0, send=True, confirm=accept).state == "part"


@pytest.mark.slow
def test_withdrawal_in_parts_of_eight_days__goes_on_by_itself(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, {**PARTS, "limits.first_purchase": "8d"}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        assert withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
    restore_pools(chain, 8 * 86_400)
    with reopened_agent(chain, loaded) as agent:
        outcome = look(agent)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason


def test_where_parts_are_off_it_is_refused_whole_with_the_remedy(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, {**PARTS, "limits.first_purchase": "off"}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        refused = withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), confirm=accept)
        assert refused.state == "refused"
        assert "raised now" in refused.reason
        with raises_code(ConfigError, "not_open"):
            withdrawing.resume_withdrawal(agent, 1, send=True, confirm=accept)


def test_an_exit_goes_before_the_next_part(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    changes = {**PARTS, "portfolio.assets.0.stop_loss": "2500", "policy.confirm_blocks": 2}
    loaded = trusted_config(chain, tmp_path, changes, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        assert withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
        restore_pools(chain, TEN_MINUTES)
        chain.move_market({"WETH": 2_400})
        chain.mine(3)
        fired = look(agent)
        plan, _, _ = swap_of(fired)
        assert plan.is_exit
        assert "stop_loss" in fired.reason


@pytest.mark.slow
def test_a_gift_that_holds_purchases_back_stops_no_part(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, PARTS, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        assert withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
        restore_pools(chain, TEN_MINUTES)
        give(chain, "WETH", 400_000)
        outcome = look(agent)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert "part 2" in outcome.reason, outcome.reason
        assert [flow.blocks_trading for flow in agent.step_input().history.cash_flows.unexplained_transfers] == [True]


def test_sale_beyond_the_day_s_loss__is_refused_whole(chain: LocalChain, tmp_path: Path) -> None:
    """Else a part would be sold, nothing paid, and the rest would halt the agent."""
    fund(chain, LARGE)
    bounds = {**PARTS, "limits.first_purchase": "off", "limits.price_impact": "300bps", "limits.plan_cost": "200bps"}
    with rich(chain, trusted_config(chain, tmp_path, {**bounds, "limits.daily_loss": "0.05%"}, TARGETS)) as agent:
        preview = withdrawing.withdraw(agent, transfers.WithdrawalRequest("2500000", to=HOME), confirm=accept)
        assert preview.state == "refused", preview.reason
        assert "daily_loss" in preview.reason, preview.reason
        before = {symbol: chain.balance(symbol) for symbol in LARGE}
        assert withdrawing.withdraw(agent, transfers.WithdrawalRequest("2500000", to=HOME), send=True, confirm=accept).state == "refused"
        assert {symbol: chain.balance(symbol) for symbol in LARGE} == before
        assert agent.context.store.requests.newest(10, open_only=True) == ()


def test_orders_edits_and_withdrawals__wait_while_parts_follow(chain: LocalChain, tmp_path: Path) -> None:
    """They would sell what raises the withdrawal, or raise its next part at once."""
    fund(chain, LARGE)
    with rich(chain, trusted_config(chain, tmp_path, PARTS, TARGETS)) as agent:
        assert withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
        with raises_code(Refused, "withdrawal_open", "withdrawal 1", "1 of about"):
            withdrawing.withdraw(agent, transfers.WithdrawalRequest("100", to=HOME), send=True, confirm=accept)
        step = agent.step_input()
        assert isinstance(requests.rebalance_wholly_to_targets(step).decision_result.decision, Halt)
        at_any_price = LimitOrder("order", step.portfolio.numeraire.address, weth(step), 10**9, Fraction(1), 2**40, 0)
        filled = proposals.orders_proposer((at_any_price,))(step)
        assert filled.plan is None
        assert isinstance(filled.decision_result.decision, Hold)


def test_a_withdrawal_whose_time_is_over_holds_no_younger_one_up(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, PARTS, TARGETS)
    with rich(chain, loaded) as agent:
        assert withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
        store = agent.context.store
        (old,) = store.requests.newest(10, open_only=True)
        assert old.progress is not None
        raised = replace(old.progress, until_s=agent.step_input().snapshot.head.timestamp_s)
        store.requests.record_progress(old.id, raised)
        young = store.requests.record(RequestKind.WITHDRAW, (Payment(weth(agent.step_input()), 10**18),), HOME, False, raised.until_s)
        store.requests.record_progress(young.id, replace(raised, next_s=raised.until_s, until_s=raised.until_s + 10**6))
        due = [
            request.id
            for request in store.requests.newest(10, open_only=True)
            if withdrawal_run.is_continuable(request, agent.step_input())
        ]
        assert due == [young.id]
        assert look(agent).kind is OutcomeKind.DONE
        assert chain.balance("WETH", HOME) == 10**18
        assert chain.balance("USDC", HOME) == 0


def record_raised(agent: Agent, to: str, weth_raw: int, usdc_raw: int = 0) -> None:
    """Record a withdrawal in parts whose next part or payment is due."""
    step = agent.step_input()
    now_s = step.snapshot.head.timestamp_s
    payments = (Payment(weth(step), weth_raw), Payment(step.portfolio.numeraire.address, usdc_raw))[: 1 + bool(usdc_raw)]
    request = agent.context.store.requests.record(RequestKind.WITHDRAW, payments, to, False, now_s)
    agent.context.store.requests.record_progress(request.id, WithdrawalProgress(2, 2, now_s, now_s + 10**6))


def test_payment_that_is_refused__waits_and_leaves_the_cycle_held(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    daily = trusted_config(chain, tmp_path, {**PARTS, "limits.payout_per_day": "1000"}, TARGETS)
    with reopened_agent(chain, daily) as agent:
        record_raised(agent, STRANGER, 10**17)
        unconfirmed = look(agent)
        assert (unconfirmed.kind, unconfirmed.transactions) == (OutcomeKind.HOLD, ())
        assert mentions(unconfirmed.reason, "withdrawal 1 waits: ", "payout_address")
        withdrawing.release_withdrawal(agent, 1)
        record_raised(agent, HOME, 10**17, 10**3 * USD)
        beyond = look(agent)
        assert (beyond.kind, beyond.transactions) == (OutcomeKind.HOLD, ()), "all payments are judged first"
        assert mentions(beyond.reason, "withdrawal 2 waits: ", "payout_per_day")
        agent.context.kill_switch.pause("lunch", 1)
        paused = look(agent)
        assert (paused.kind, paused.transactions) == (OutcomeKind.HOLD, ())
        assert mentions(paused.reason, "withdrawal 2 waits: ", "kill_switch")


def test_payment_refused_after_another__names_what_was_paid(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    with rich(chain, trusted_config(chain, tmp_path, PARTS, TARGETS)) as agent:
        record_raised(agent, HOME, 10**17, USD)
        pauses = when_approved(lambda: agent.context.kill_switch.pause("lunch", 1))
        outcome = next(iter(agent.run(send=True, confirm=yes, once=True, progress=pauses)))
        assert isinstance(outcome, StepOutcome), outcome
        assert outcome.kind is OutcomeKind.DONE
        assert [intent.kind for intent in outcome.transactions] == [IntentKind.PAYOUT]
        assert "withdrawal 1 waits: " in outcome.reason
        assert chain.balance("WETH", HOME) == 10**17


def test_parts_switched_off__what_is_raised_is_paid_and_the_rest_waits(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    with rich(chain, trusted_config(chain, tmp_path, {**PARTS, "limits.first_purchase": "off"}, TARGETS)) as agent:
        record_raised(agent, HOME, 10**30)
        late = look(agent)
        assert late.kind is OutcomeKind.HOLD
        assert "withdrawal 1 waits: limits.first_purchase is off" in late.reason, late.reason
        withdrawing.release_withdrawal(agent, 1)
        record_raised(agent, HOME, 10**18)
        assert look(agent).kind is OutcomeKind.DONE
        assert chain.balance("WETH", HOME) == 10**18


def test_what_is_raised_is_paid_without_another_wait(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    with rich(chain, trusted_config(chain, tmp_path, {**PARTS, "limits.first_purchase": "1d"}, TARGETS)) as agent:
        assert withdrawing.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
        step = agent.step_input()
        lacks = outflow.shortfall_raw(step.portfolio, step.limits, held_balances(step), chain.tokens["USDC"].address)
        with raises_code(Refused, "part_not_due", "1 of about"):
            withdrawing.resume_withdrawal(agent, 1, send=True, confirm=accept)
        give(chain, "USDC", lacks // USD + 1)
        transfers.list_transfers(agent)
        agent.context.store.balances.classify(None, None, agent.context.clock.now_s())
        assert withdrawing.resume_withdrawal(agent, 1, send=True, confirm=accept).state in ("paid", "waiting")
        assert chain.balance("USDC", HOME) == 3_000_000 * USD
