"""Money taken out of a running bot: to the wei, to confirmed addresses, exactly once, sold for where it is not there."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.money import transfers
from agent.app.withdrawals.withdrawal_run import WithdrawalReport
from agent.errors import ConfigError, Refused
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentKind, Payment, RequestKind, RequestState
from tests.support.agents import USD, agent_on, allowances, fund, purse, yes
from tests.support.movements import movements
from tests.support.on_chain.withdrawing import HELD, HOME, OPEN, TARGETS, accept, bot, ended_state
from tests.support.text import raises_code


def test_withdrawal_at_hand__is_paid_to_the_wei_and_is_no_loss(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        before = purse(chain)
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("1234.567891", to=HOME), send=True, confirm=accept)
        after = purse(chain)
        assert (done.state, done.sale) == ("paid", None), done.reason
        assert chain.balance("USDC", HOME) == before.raw["USDC"] - after.raw["USDC"] == 1_234_567_891
        assert {s: raw for s, raw in after.raw.items() if s != "USDC"} == {s: raw for s, raw in before.raw.items() if s != "USDC"}
        assert [intent.kind for intent in done.transactions] == [IntentKind.PAYOUT]
        assert ended_state(agent, done.request_id) is RequestState.DONE
        history = agent.step_input().history
        assert history.budgets.outflow_24h == 1_234_567_891
        assert history.budgets.turnover_24h == 0
        assert history.cash_flows.unexplained_transfers == ()
        assert history.cash_flows.pending_payments == ()
        assert 0 < history.budgets.loss_24h < USD, "only its gas"
        assert [m.kind for m in movements(agent.context.store) if m.delta_raw == -1_234_567_891] == ["payout"]


def test_withdrawal_not_at_hand__is_raised_from_the_overweight(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path, limits__turnover="5%") as agent:
        before = purse(chain)
        planned = transfers.withdraw(agent, transfers.WithdrawalRequest("3500", to=HOME), confirm=accept)
        assert (planned.state, planned.is_refused, purse(chain)) == ("planned", False, before)
        assert planned.sale is not None
        assert planned.sale.plan is not None
        assert {leg.token_in for leg in planned.sale.plan.legs} == {chain.tokens["WETH"].address}
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("3500", to=HOME), send=True, confirm=accept)
        after = purse(chain)
        assert done.state == "paid", done.reason
        assert chain.balance("USDC", HOME) == 3_500 * USD
        assert after.raw["WBTC"] == before.raw["WBTC"]
        assert after.raw["WETH"] < before.raw["WETH"]
        assert 0 <= after.raw["USDC"] < 20 * USD, "sold is what was lacking, and little more"
        assert set(allowances(chain).values()) == {0}
        assert agent.step_input().history.cash_flows.unexplained_transfers == ()


def test_other_asset__is_raised_beside_the_turnover_limits(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path, limits__turnover="2%", limits__daily_turnover="2%") as agent:
        before = purse(chain)
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("2.5", "WETH", to=HOME), send=True, confirm=accept)
        assert done.state == "paid", done.reason
        assert chain.balance("WETH", HOME) == 25 * 10**17
        assert purse(chain).raw["USDC"] + purse(chain).raw["WBTC"] < before.raw["USDC"] + before.raw["WBTC"]
        assert agent.step_input().history.budgets.turnover_24h == 0


def test_same_part_of_everything__goes_to_the_wei_unsold(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        before = purse(chain)
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("1000", pro_rata=True, to=HOME), send=True, confirm=accept)
        assert done.state == "paid", done.reason
        assert {intent.kind for intent in done.transactions} == {IntentKind.PAYOUT}
        whole = 10_000
        for symbol in TARGETS:
            assert abs(chain.balance(symbol, HOME) - before.raw[symbol] * 1_000 // whole) <= before.raw[symbol] // 10**5
            assert chain.balance(symbol, HOME) == next(p.raw for p in done.payments if p.token == chain.tokens[symbol].address)
            assert purse(chain).raw[symbol] + chain.balance(symbol, HOME) == before.raw[symbol]


def test_withdrawal_without_address__is_set_aside_until_paid(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path, **{"policy__cooldown": "0s"}) as agent:
        withdrawal = transfers.withdraw(agent, transfers.WithdrawalRequest("2000"), send=True, confirm=accept)
        assert (withdrawal.state, withdrawal.transactions) == ("reserved", ()), withdrawal.reason
        drift = {drift.symbol: drift for drift in agent.status().decision_result.drifts}["USDC"]
        assert drift.investable_raw == 700 * USD
        rebalanced = agent.rebalance(send=True, confirm=lambda _: True)
        assert rebalanced.kind is OutcomeKind.DONE, rebalanced.reason
        assert purse(chain).raw["USDC"] >= 2_000 * USD + 2_390 * USD
        for send in (False, True):
            resumed = transfers.resume_withdrawal(agent, withdrawal.request_id or 0, send=send, confirm=pytest.fail)
            assert (resumed.state, resumed.reason) == ("reserved", withdrawal.reason)
        assert transfers.resume_withdrawal(agent, withdrawal.request_id or 0, to=HOME, confirm=accept).state == "planned"
        paid = transfers.resume_withdrawal(agent, withdrawal.request_id or 0, to=HOME, send=True, confirm=accept)
        assert (paid.state, chain.balance("USDC", HOME)) == ("paid", 2_000 * USD), paid.reason
        again = transfers.resume_withdrawal(agent, withdrawal.request_id or 0, send=True, confirm=accept)
        assert (again.state, again.transactions, chain.balance("USDC", HOME)) == ("paid", (), 2_000 * USD)


def test_a_run_ends_a_withdrawal_once_its_payment_is_final(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path, chain__confirmations=64) as agent:
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), send=True, confirm=accept)
        assert done.state == "waiting", done.reason
        assert ended_state(agent, done.request_id) is RequestState.OPEN, done.reason
        chain.mine(64)
        before = chain.balance("USDC", HOME)
        list(agent.run(send=True, confirm=yes, once=True))
        assert ended_state(agent, done.request_id) is RequestState.DONE
        assert chain.balance("USDC", HOME) == before


def test_what_was_set_aside_is_released_into_the_portfolio(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        withdrawal = transfers.withdraw(agent, transfers.WithdrawalRequest("2000"), send=True, confirm=accept)
        transfers.release_withdrawal(agent, withdrawal.request_id or 0)
        assert {drift.symbol: drift for drift in agent.status().decision_result.drifts}["USDC"].investable_raw == 2_700 * USD


def test_more_than_there_is_is_refused_with_both_numbers(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        for more, pro_rata in ({"amount": "10001"}, False), ({"amount": "10001"}, True):
            with raises_code(Refused, "holdings", "1 USDC") as refused:
                transfers.withdraw(agent, transfers.WithdrawalRequest(**more, pro_rata=pro_rata, to=HOME), send=True, confirm=accept)
            assert [(v.guard, v.measured_text, v.limit) for v in refused.value.verdicts] == [("holdings", "10001 USDC", "10000 USDC")]
            assert ("7300 USDC of it only by sales" in refused.value.message) is not pro_rata, refused.value.message
        with pytest.raises(ConfigError, match="AMOUNT"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("0", to=HOME), send=True, confirm=accept)
        assert agent.context.store.requests.newest() == ()


def test_unconfirmed_address_or_excess__is_refused_before_sales(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path, limits__payout_per_day="1500") as agent:
        before = purse(chain)
        stranger = "0x00000000000000000000000000000000000B0b00"
        for to, amount, guard in (
            (stranger, "100", "payout_address"),
            (HOME, "1500.000001", "payout_per_day"),
            (HOME, "3500", "payout_per_day"),
        ):
            looked = transfers.withdraw(agent, transfers.WithdrawalRequest(amount, to=to), confirm=accept)
            assert looked.state == "refused"
            assert [v.guard for v in looked.verdicts if not v.passed] == [guard]
            with raises_code(Refused, guard):
                transfers.withdraw(agent, transfers.WithdrawalRequest(amount, to=to), send=True, confirm=accept)
        assert purse(chain) == before
        assert agent.context.store.requests.newest() == ()
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("1500", to=HOME), send=True, confirm=accept).state == "paid"
        with raises_code(Refused, "payout_per_day"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("0.000001", to=HOME), send=True, confirm=accept)
        agent.context.store.requests.confirm_payout_address(stranger, 0)
        with raises_code(Refused, "payout_address"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1", to=stranger), send=True, confirm=accept)


def test_a_no_and_a_pause_send_nothing(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        before = purse(chain)
        for amount in ("100", "3500"):
            assert (
                transfers.withdraw(agent, transfers.WithdrawalRequest(amount, to=HOME), send=True, confirm=lambda _: False).state
                == "declined"
            )
        agent.context.kill_switch.pause("holiday", 0)
        with raises_code(Refused, "kill_switch"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("100", to=HOME), send=True, confirm=accept)
        assert purse(chain) == before
        assert agent.context.store.requests.newest() == ()


def test_declined_or_refused_withdrawal__lowers_no_recorded_value(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        valuations = agent.context.store.valuations

        def weight() -> tuple[Fraction, Fraction]:
            newest = valuations.newest(1)[0]
            (usdc,) = [holding for holding in newest.holdings if holding.token == anvil_chain.tokens["USDC"].address]
            return newest.managed_value, usdc.reserved_raw * usdc.price

        for state, is_paused in ("declined", False), ("refused", True):
            assert transfers.withdraw(agent, transfers.WithdrawalRequest("100", to=HOME), send=True, confirm=accept).state == "paid"
            anvil_chain.warp(3_601)
            before = max((valuation.block for valuation in valuations.newest(1)), default=-1)
            if is_paused:
                agent.context.kill_switch.pause("holiday", 0)
            withdrawal = transfers.withdraw(agent, transfers.WithdrawalRequest("3500"), send=True, confirm=lambda _: False)
            assert withdrawal.state == state, withdrawal.reason
            assert agent.context.store.requests.newest(open_only=True) == ()
            assert valuations.newest(1)[0].block > before, "an hour makes a valuation due"
            managed, set_aside = weight()
            assert set_aside == 0
            assert managed > 9_700 * USD


def test_earlier_reserve__stays_when_a_sale_for_it_is_refused(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        before = purse(chain)
        payments = (Payment(chain.tokens["USDC"].address, 3_500 * USD),)
        number = agent.context.store.requests.record(RequestKind.WITHDRAW, payments, None, False, 0).id

        def yes_and_pause(_: WithdrawalReport) -> bool:
            agent.context.kill_switch.pause("second thoughts", 0)
            return True

        withdrawal_report = transfers.resume_withdrawal(agent, number, to=HOME, send=True, confirm=yes_and_pause)
        assert withdrawal_report.state == "refused", withdrawal_report.reason
        assert "pause" in withdrawal_report.reason, withdrawal_report.reason
        assert ended_state(agent, number) is RequestState.OPEN
        assert purse(chain) == before


def test_a_store_that_is_deleted_gives_no_new_day_of_payouts(chain: LocalChain, tmp_path: Path) -> None:
    """What the wallet gave away for nothing in the last 24 h, by whatever program, the chain tells a new store."""
    limit = {**OPEN, "limits.payout_per_day": "500"}
    fund(chain, HELD)
    with agent_on(chain, tmp_path / "first", limit, TARGETS, vouched=False) as agent:
        before = agent.step_input().history.budgets.outflow_24h  # what was done to set the world up
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("400", to=HOME), send=True, confirm=accept).state == "paid"
        known = agent.step_input().history.budgets.outflow_24h - before
        assert known == 400 * USD
    with agent_on(chain, tmp_path / "second", limit, TARGETS, vouched=False) as agent:
        assert agent.step_input().history.budgets.outflow_24h - before == known
        refused = transfers.withdraw(agent, transfers.WithdrawalRequest("200", to=HOME), confirm=accept)
        assert refused.state == "refused"
        assert "payout_per_day" in refused.reason
        with raises_code(Refused, "payout_per_day"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("200", to=HOME), send=True, confirm=accept)
        chain.warp(86_401)
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("200", to=HOME), send=True, confirm=accept).state == "paid"
    assert chain.balance("USDC", HOME) == 600 * USD
