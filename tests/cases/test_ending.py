"""The end of a bot: kept, sold, or paid out; refused afterwards until it is resumed; gone on with where a process ended in the middle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent import app as api
from agent import engine
from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.app.money import sales_of_stop, shutdown, transfers
from agent.app.positions.orders import standing_orders
from agent.errors import ConfigError, PassingFault, Refused, Retryable, TrimtabError
from agent.execution import approvals
from agent.execution.executor import JournaledExecutor
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind, IntentState, RequestKind, RequestState
from agent.store.store import ConfigChanged
from agent.wiring import transactor
from tests.support.agents import USD, agent_on, allow, allowances, fund, purse, reopened_agent, trusted_config, yes
from tests.support.constants import HOME
from tests.support.samples import slow
from tests.support.stores import dying
from tests.support.text import raises_code
from tests.support.transactions import Killed

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
HELD = {"WETH": 5_600, "WBTC": 1_700, "USDC": 2_700}
OPEN = {"wallet.payout_addresses": [HOME]}


@contextmanager
def bot(chain: LocalChain, folder: Path) -> Iterator[Agent]:
    fund(chain, HELD)
    with agent_on(chain, folder, OPEN, TARGETS) as agent:
        yield agent


def test_bot_kept__takes_back_what_it_may_and_trades_on_resume(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        allow(chain, "WETH", raw=10**18)
        before = purse(chain)
        looked = shutdown.stop(agent, confirm=yes)
        assert (looked.state, [open_allowance.token_label for open_allowance in looked.open_allowances], looked.payments) == (
            "planned",
            ["WETH"],
            (),
        )
        assert shutdown.stop(agent, send=True, confirm=lambda _: False).state == "declined"
        assert agent.context.store.requests.active_stop() is None
        assert allowances(chain)["WETH"] == 10**18
        done = shutdown.stop(agent, send=True, confirm=yes)
        assert (done.state, {intent.kind for intent in done.transactions}) == ("stopped", {IntentKind.APPROVE}), done.reason
        assert set(allowances(chain).values()) == {0}
        assert purse(chain).raw == before.raw
        outcome = agent.rebalance(send=True, confirm=lambda _: True)
        assert outcome.kind is OutcomeKind.HALT
        assert "stopped" in outcome.reason
        with raises_code(Refused, "stopped"):
            next(agent.run(send=True, confirm=lambda _: True, once=True))
        api.resume(tmp_path / "trimtab.toml", lambda _: True)
        assert agent.rebalance(send=True, confirm=lambda _: True).kind is OutcomeKind.DONE


@pytest.mark.parametrize(
    "error", [Refused("no"), Retryable("no answer"), PassingFault("HTTP 403")], ids=["refusal", "no answer", "no access"]
)
def test_stop__part_that_fails_stops_no_other(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: TrimtabError
) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    with bot(anvil_chain, tmp_path) as agent:
        allow(anvil_chain, "WETH", raw=10**18)
        monkeypatch.setattr(JournaledExecutor, "cancel_pending", fail)
        report = shutdown.stop(agent, send=True, confirm=yes)
        assert (report.state, report.reason.startswith(str(error))) == ("unfinished", True)
        assert set(allowances(anvil_chain).values()) == {0}


def test_stop_that_cannot_read_after_it_sent__names_what_it_sent(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first swap, and again after the first payout."""
    with bot(anvil_chain, tmp_path) as agent:
        journal = agent.context.store.journal
        evaluate = engine.record_and_evaluate
        read = approvals.current_step_input

        def fail_after(kind: IntentKind) -> None:
            if any(intent.kind is kind for intent in journal.intents()):
                raise Retryable("no endpoint answers")

        def evaluate_before_swap(*parts: Any) -> Any:
            fail_after(IntentKind.SWAP)
            return evaluate(*parts)

        def read_before_payout(*parts: Any) -> Any:
            fail_after(IntentKind.PAYOUT)
            return read(*parts)

        monkeypatch.setattr(engine, "record_and_evaluate", evaluate_before_swap)
        monkeypatch.setattr(approvals, "current_step_input", read_before_payout)
        report = shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=yes)
        assert (report.state, "no endpoint answers" in report.reason) == ("unfinished", True)
        assert [intent.kind for intent in report.transactions] == [intent.kind for intent in reversed(journal.intents())]
        assert {IntentKind.SWAP, IntentKind.PAYOUT} <= {intent.kind for intent in report.transactions}


def test_run__ends_once_stopped_or_its_file_is_unconfirmed(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        looks = agent.run(send=True, confirm=lambda _: False, every="28d")
        assert next(looks).kind is OutcomeKind.DECLINED  # type: ignore[union-attr]  # an outcome
        agent.context.store.configs.record("another", 0, origin="edit")
        with raises_code(ConfigChanged, "config"):
            next(looks)
        with raises_code(ConfigChanged, "config"):  # nor does another one of the same program
            next(agent.run(send=True, confirm=lambda _: False, every="28d"))
        agent.context.store.configs.record(agent.context.loaded_config.digest, 0, origin="edit")  # taken back
        again_looks = agent.run(send=True, confirm=lambda _: False, every="28d")
        next(again_looks)
        agent.context.store.requests.record(RequestKind.STOP, (), None, False, 0)
        with pytest.raises(StopIteration):
            next(again_looks)


def test_a_store_that_is_adopted_pays_no_withdrawal_of_before(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        withdrawal = transfers.withdraw(agent, transfers.WithdrawalRequest("100"), send=True, confirm=lambda _: True)
        agent.resync_nonce()
        with raises_code(ConfigError, "not_open"):
            transfers.resume_withdrawal(agent, withdrawal.request_id or 0, to=HOME, send=True, confirm=lambda _: True)


def test_stop_that_sells_and_pays_nobody__says_where_the_money_is(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        done = shutdown.stop(agent, to_stable=True, send=True, confirm=yes)
        assert done.state == "stopped", done.reason
        assert "nothing is paid out: what the sales brought stays in the wallet; " in done.reason
        stop = status_document(agent.status())["stop"]
        assert (stop["done"], stop["to_stable"], stop["to"]) == (True, True, None)
        assert "stopped by its owner" in standing_orders(agent)["stopped"]


def test_everything_is_sold_for_the_numeraire_and_paid_out(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        looked = shutdown.stop(agent, to_stable=True, send_to=HOME, confirm=yes)
        assert looked.state == "planned", looked.reason
        assert {sale_outcome.kind for sale_outcome in looked.sale_outcomes} == {OutcomeKind.PLANNED}, looked.reason
        assert [payment.token for payment in looked.payments] == [chain.tokens["USDC"].address]
        done = shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=yes)
        assert (done.state, done.unpaid_holding_texts) == ("stopped", ()), done.reason
        assert re.search("allowances; [0-9.]+ of native coin for gas stays in the wallet; trimtab resume", done.reason), done.reason
        after = purse(chain)
        assert after.raw["USDC"] == 0
        assert after.raw["WETH"] < 1_000
        assert after.raw["WBTC"] < 10, "but for dust"
        assert 9_900 * USD < chain.balance("USDC", HOME) < 10_000 * USD
        assert set(allowances(chain).values()) == {0}
        profit = api.pnl(tmp_path / "trimtab.toml")
        assert profit["not_final"] == 0
        assert Fraction(profit["value"]) < 1
        assert Fraction(profit["periods"][-1]["withdrawals"]) * USD == chain.balance("USDC", HOME)
        assert agent.step_input().history.cash_flows.unexplained_transfers == ()
        assert agent.step_input().history.budgets.outflow_24h == chain.balance("USDC", HOME)


def test_stop_interrupted_before_payment__pays_once(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    moments = 0
    with reopened_agent(chain, loaded) as agent, dying(agent, None) as progress:

        def sold(event: str) -> None:
            nonlocal moments
            progress(event)
            moments += event == "before:send"
            if agent.context.store.requests.active_stop() is not None and purse(chain).raw["WETH"] == 0:
                raise Killed

        with pytest.raises(Killed):
            shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=yes, progress=sold)
    assert chain.balance("USDC", HOME) == 0
    assert purse(chain).raw["WETH"] == 0
    with reopened_agent(chain, loaded) as agent:
        assert agent.plan().kind is OutcomeKind.HALT
        with raises_code(ConfigError, "stop_open"):
            shutdown.stop(agent, to_stable=True, send=True, confirm=yes)
        done = shutdown.stop(agent, send=True, confirm=yes)
        assert (done.state, done.payout_address, done.to_stable) == ("stopped", HOME, True), done.reason
        paid = chain.balance("USDC", HOME)
        assert paid > 9_900 * USD
        assert purse(chain).raw["USDC"] == 0
        assert (
            len(
                [
                    intent
                    for intent in agent.context.store.journal.intents(limit=100)
                    if intent.kind is IntentKind.PAYOUT and intent.succeeded
                ]
            )
            == 1
        )
        assert shutdown.stop(agent, send=True, confirm=yes).transactions == ()
        assert chain.balance("USDC", HOME) == paid


def test_a_stop_waits_until_what_it_sent_is_final(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction is final after its own wait; blocks come while the stop waits for all of them."""
    settings = transactor.submission_settings
    reconcile = JournaledExecutor.reconcile

    def slow_blocks(executor: JournaledExecutor, *, may_send: bool = True) -> list[Intent]:
        if not may_send:
            chain.mine()
        return reconcile(executor, may_send=may_send)

    monkeypatch.setattr(transactor, "submission_settings", lambda *args: replace(settings(*args), final_timeout_s=0))
    monkeypatch.setattr(JournaledExecutor, "reconcile", slow_blocks)
    fund(chain, HELD)
    with agent_on(chain, tmp_path, {**OPEN, "chain.confirmations": 3}, TARGETS) as agent:
        allow(chain, "WETH", raw=10**18)
        done = shutdown.stop(agent, send=True, confirm=yes)
        assert done.state == "stopped", done.reason
        assert [intent.state for intent in done.transactions] == [IntentState.FINAL]


def test_stop_resumed_during_confirmations__stays_resumed(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = transactor.submission_settings
    reconcile = JournaledExecutor.reconcile

    def reconcile_after_resume(executor: JournaledExecutor, *, may_send: bool = True) -> list[Intent]:
        if not may_send:
            api.resume(tmp_path / "trimtab.toml", lambda _: True)
            anvil_chain.mine(3)
        return reconcile(executor, may_send=may_send)

    monkeypatch.setattr(transactor, "submission_settings", lambda *args: replace(settings(*args), final_timeout_s=0))
    monkeypatch.setattr(JournaledExecutor, "reconcile", reconcile_after_resume)
    fund(anvil_chain, HELD)
    with agent_on(anvil_chain, tmp_path, {**OPEN, "chain.confirmations": 3}, TARGETS) as agent:
        allow(anvil_chain, "WETH", raw=10**18)
        report = shutdown.stop(agent, send=True, confirm=yes)
        assert report.state == "unfinished"
        assert "resumed in the meantime" in report.reason
        assert agent.context.store.requests.active_stop() is None
        assert agent.plan().kind is not OutcomeKind.HALT


def test_payout_beyond_the_day__is_paid_on_the_days_after(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, {**OPEN, "limits.payout_per_day": "6000"}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        allow(chain, "WETH", raw=10**18)
        shutdown_report = shutdown.stop(agent, to_stable=True, send_to=HOME, confirm=yes)
        assert shutdown_report.state == "planned"
        assert "the payout waits: payout_per_day" in shutdown_report.reason
        done = shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=yes)
        assert done.state == "unfinished"
        assert "payout_per_day" in done.reason
        assert "trimtab stop --send continues" in done.reason
        assert purse(chain).raw["WETH"] < 1_000
        assert set(allowances(chain).values()) == {0}
        assert chain.balance("USDC", HOME) == 6_000 * USD
        with raises_code(Refused, "stopped"):
            next(agent.run(send=True, confirm=lambda _: True, once=True))
        assert shutdown.stop(agent, send=True, confirm=yes).transactions == ()
    chain.warp(86_401)
    with reopened_agent(chain, loaded) as agent:
        done = shutdown.stop(agent, send=True, confirm=yes)
        assert done.state == "stopped", done.reason
        assert purse(chain).raw["USDC"] == 0, done.reason


STRANGER = "0x000000000000000000000000000000000000bEEF"


def test_stop_to_unconfirmed_address__is_refused_before_it_sells(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        before = purse(chain).raw
        for sends in (False, True):
            with pytest.raises(Refused, match=f"payout_address: {STRANGER} is not a confirmed payout address"):
                shutdown.stop(agent, to_stable=True, send_to=STRANGER, send=sends, confirm=yes)
        assert purse(chain).raw == before
        assert agent.context.store.requests.active_stop() is None
        assert agent.plan().kind is not OutcomeKind.HALT


def test_open_stop__waits_for_its_unconfirmed_address_alone_and_takes_another(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        agent.context.store.requests.record(RequestKind.STOP, (), STRANGER, True, 0)
        done = shutdown.stop(agent, send=True, confirm=yes)
        assert done.state == "unfinished"
        assert "payout_address" in done.reason
        assert purse(chain).raw["WETH"] < 1_000
        assert chain.balance("USDC", STRANGER) == 0
        assert agent.plan().kind is OutcomeKind.HALT
        with pytest.raises(Refused, match="is not a confirmed payout address"):
            shutdown.stop(agent, send_to="0x00000000000000000000000000000000DeaDBeef", send=True, confirm=yes)
        assert shutdown.stop(agent, send_to=HOME, send=True, confirm=lambda _: False).state == "declined"
        open_request = agent.context.store.requests.active_stop()
        assert open_request is not None
        assert open_request.to == STRANGER, "a preview changes nothing"
        done = shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=yes)
        assert (done.state, done.payout_address) == ("stopped", HOME), done.reason
        assert chain.balance("USDC", HOME) > 9_900 * USD
        ended_request = agent.context.store.requests.active_stop()
        assert ended_request is not None
        assert ended_request.to == HOME


@pytest.mark.parametrize("part", ["pay", *slow(["sell", "preview", "cancel", "revoke"])])
def test_a_part_of_a_stop_that_is_refused_prevents_no_other(
    chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise Refused(f"{part} is refused here")

    places = {
        "cancel": (JournaledExecutor, "cancel_pending"),
        "revoke": (shutdown, "revoke_allowances"),
        "sell": (shutdown.engine, "run_cycle"),
        "pay": (shutdown, "pay"),
        "preview": (sales_of_stop.evaluation, "evaluate"),
    }
    with bot(chain, tmp_path) as agent:
        allow(chain, "WETH", raw=10**18)
        with monkeypatch.context() as patched:
            patched.setattr(*places[part], refuses)
            shutdown_report = shutdown.stop(agent, to_stable=True, send_to=HOME, confirm=yes)
            assert part != "preview" or "the sale waits: preview is refused here" in shutdown_report.reason
            done = shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=yes)
        if part == "preview":
            assert done.state == "stopped", done.reason
            assert chain.balance("USDC", HOME) > 9_900 * USD, done.reason
            return
        assert done.state == "unfinished"
        assert f"{part} is refused here" in done.reason
        assert agent.plan().kind is OutcomeKind.HALT
        assert "stopped" in agent.plan().reason
        assert allowances(chain)["WETH"] == 0 or part == "revoke"
        assert (purse(chain).raw["WETH"] < 1_000) == (part != "sell")
        paid = chain.balance("USDC", HOME)
        assert paid == (0 if part == "pay" else 2_700 * USD if part == "sell" else paid)
        assert part == "pay" or paid >= 2_700 * USD
        assert chain.balance("WETH", HOME) == 0
        done = shutdown.stop(agent, send=True, confirm=yes)
        assert done.state == "stopped"
        assert set(allowances(chain).values()) == {0}
        assert chain.balance("USDC", HOME) > 9_900 * USD


def test_stop__names_what_is_not_worth_its_sale_and_why(chain: LocalChain, tmp_path: Path) -> None:
    """The only LINK pools cost 0.3 % each way of two hops; 20 bps are allowed, and WETH costs five."""
    fund(chain, {"WETH": 5_000, "LINK": 300, "USDC": 2_000})
    with agent_on(chain, tmp_path, {"limits.plan_cost": "20bps"}, {"WETH": "50%", "LINK": "10%", "USDC": "40%"}) as agent:
        shutdown_report = shutdown.stop(agent, to_stable=True, confirm=yes)
        done = shutdown.stop(agent, to_stable=True, send=True, confirm=yes)
        for report in (shutdown_report, done):
            assert "LINK stays: 300 USDC off target: plan_cost allows 0.6; " in report.reason, report.reason
        assert (shutdown_report.state, len(shutdown_report.sale_outcomes), done.state) == ("planned", 1, "stopped")
        assert len(done.unpaid_holding_texts) == 1
        assert done.unpaid_holding_texts[0].endswith(" LINK")
        assert purse(chain).raw["WETH"] == 0


def test_resume_asks_before_a_run_buys_back_what_a_stop_sold(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with bot(anvil_chain, tmp_path) as agent:
        shutdown.stop(agent, to_stable=True, send=True, confirm=yes)
        with pytest.raises(Refused, match="buys back"):
            api.resume(tmp_path / "trimtab.toml", lambda _: False)
        assert agent.plan().kind is OutcomeKind.HALT
        questions: list[str] = []
        api.resume(tmp_path / "trimtab.toml", lambda message: not questions.append(message))
        assert len(questions) == 1
        assert re.search("in at least [0-9]+ rebalances over [0-9]+ (d|h|min)", questions[0]), questions[0]
        assert agent.plan().kind is not OutcomeKind.HALT
        shutdown.stop(agent, send=True, confirm=yes)
        api.resume(tmp_path / "trimtab.toml", lambda _: pytest.fail("nothing was sold"))


def test_coins_are_paid_out_as_they_are(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    with agent_on(chain, tmp_path, OPEN, TARGETS) as agent:
        before = purse(chain)
        done = shutdown.stop(agent, send_to=HOME, send=True, confirm=yes)
        assert (done.state, {intent.kind for intent in done.transactions}) == ("stopped", {IntentKind.PAYOUT}), done.reason
        assert all(chain.balance(symbol, HOME) == before.raw[symbol] for symbol in TARGETS)


KILLS = (7, 10, 13)


@pytest.mark.parametrize("moment", [KILLS[0], *(pytest.param(kill, marks=pytest.mark.slow) for kill in KILLS[1:])])
def test_withdrawal_killed_at_any_write__pays_exactly_once(chain: LocalChain, tmp_path: Path, moment: int) -> None:
    """The writes: request, openings, step, planned, signed, broadcast; the send; mined, final and what is booked."""
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        agent.plan()
    with reopened_agent(chain, loaded) as agent, dying(agent, moment) as progress, pytest.raises(Killed):
        transfers.withdraw(agent, transfers.WithdrawalRequest("500", to=HOME), send=True, confirm=lambda _: True, progress=progress)
    with reopened_agent(chain, loaded) as agent:
        for request in agent.context.store.requests.newest(open_only=True):
            done = transfers.resume_withdrawal(agent, request.id, send=True, confirm=lambda _: True)
            assert done.state == "paid", done.reason
        requests = agent.context.store.requests.newest()
        assert chain.balance("USDC", HOME) == (500 * USD if requests else 0)
        assert [request.state for request in requests] in ([], [RequestState.DONE])
        assert len(
            [intent for intent in agent.context.store.journal.intents(limit=100) if intent.kind is IntentKind.PAYOUT and intent.succeeded]
        ) == len(requests)
        assert agent.step_input().history.cash_flows.pending_payments == ()
        assert agent.context.store.journal.open_intents() == ()
