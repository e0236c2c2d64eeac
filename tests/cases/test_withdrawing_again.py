"""The same withdrawal a second time, after its payment, after a kill or by a control: it is paid once unless the owner says again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.documents.status import status_document
from agent.app.money import transfers
from agent.app.records import maintenance
from agent.config.loaded import LoadedConfig
from agent.errors import Refused
from agent.localchain import LocalChain
from agent.model import ControlState, RequestState
from agent.store.files.locks import wallet_lock
from agent.units import utc_text
from agent.wiring.transactor import wallet_locks
from tests.faults.probe import heard
from tests.faults.rig import in_child
from tests.support.agents import USD, fund, reopened_agent, trusted_config, yes
from tests.support.on_chain.controls import ControlledRun, die_in_cycle, result
from tests.support.on_chain.withdrawing import HELD, HOME, OPEN, TARGETS, accept, bot, ended_state
from tests.support.samples import slow
from tests.support.text import raises_code

REPEATED = "repeated_payment"


def test_a_payment_that_is_not_final_is_not_made_again(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path, chain__confirmations=64) as agent:
        first = transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), send=True, confirm=accept)
        assert first.state == "waiting", first.reason
        with raises_code(Refused, REPEATED, f"--resume {first.request_id}"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), send=True, confirm=accept)
        assert chain.balance("USDC", HOME) == 1_000 * USD
        dry = transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), confirm=accept)
        paid_text = f"already paid in {first.transactions[0].tx_hash}"
        assert dry.state == "planned"
        assert dry.repeats.startswith(f"withdrawal {first.request_id} is open and pays the same, {paid_text}, recorded 20")
        with wallet_lock(wallet_locks(agent.context.loaded_config)):  # that process settles it
            resumed = transfers.resume_withdrawal(agent, first.request_id or 0, confirm=accept)
        assert (resumed.state, paid_text in resumed.reason) == ("waiting", True)
        with raises_code(Refused, "not_open", first.transactions[0].tx_hash):
            transfers.release_withdrawal(agent, first.request_id or 0)
        second = transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME, again=True), send=True, confirm=accept)
        assert second.state == "waiting", second.reason
        assert chain.balance("USDC", HOME) == 2_000 * USD
        chain.mine(64)
        list(agent.run(send=True, confirm=yes, once=True))
        assert {ended_state(agent, first.request_id), ended_state(agent, second.request_id)} == {RequestState.DONE}


def test_payment_that_is_seen_to_be_final_later__is_dated(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    request = transfers.WithdrawalRequest("1000", to=HOME)
    with bot(chain, tmp_path, chain__confirmations=64) as agent:
        assert transfers.withdraw(agent, request, send=True, confirm=accept).state == "waiting"
        day = utc_text(chain.now_s())[:10]
        chain.warp(10 * 86_400)
        chain.mine(64)
        maintenance.reconcile(agent)
        assert ended_state(agent, 1) is RequestState.DONE
        with raises_code(Refused, REPEATED, "withdrawal 1 has paid the same in 0x", f"recorded {day}"):
            transfers.withdraw(agent, request, send=True, confirm=accept)


@pytest.mark.parametrize("send", [pytest.param(False, id="dry"), pytest.param(True, id="send")])
def test_payment_that_became_final__ends_its_withdrawal_when_resumed(anvil_chain: LocalChain, tmp_path: Path, send: bool) -> None:
    chain = anvil_chain
    with bot(chain, tmp_path, chain__confirmations=64) as agent:
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), send=True, confirm=accept).state == "waiting"
        assert transfers.resume_withdrawal(agent, 1, send=send, confirm=accept).state == "paid"
        assert ended_state(agent, 1) is RequestState.DONE


def test_payment_that_is_not_final__is_a_withdrawal_in_the_profit(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    with bot(chain, tmp_path, chain__confirmations=64) as agent:
        api.refresh_ledger(agent)
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), send=True, confirm=accept).state == "waiting"
        api.refresh_ledger(agent)
        document = api.pnl(agent.context.loaded_config)
        (period,) = document["periods"]
        assert (document["not_final"], period["withdrawals"]) == (1, "1000")
        assert abs(Fraction(period["profit"])) < 5, "gas alone"
        assert abs(Fraction(document["unrealised"])) < 5


def test_shares_and_reserves_are_not_withdrawn_again(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as agent:
        assert (
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", pro_rata=True, to=HOME), send=True, confirm=accept).state
            == "paid"
        )
        paid = {symbol: chain.balance(symbol, HOME) for symbol in TARGETS}
        with raises_code(Refused, REPEATED, "has paid the same in 0x"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", pro_rata=True, to=HOME), send=True, confirm=accept)
        assert {symbol: chain.balance(symbol, HOME) for symbol in TARGETS} == paid
        reserved = transfers.withdraw(agent, transfers.WithdrawalRequest("500"), send=True, confirm=accept)
        with raises_code(Refused, REPEATED, f"--resume {reserved.request_id} --to ADDRESS"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("500", to=HOME), send=True, confirm=accept)
        chain.warp(3_601)
        assert (
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", pro_rata=True, to=HOME), send=True, confirm=accept).state
            == "paid"
        )


def killed_in_withdrawal(chain: LocalChain, loaded: LoadedConfig, moment: str, *, pro_rata: bool = False) -> None:
    """Withdraws in a process that a SIGKILL ends at that moment."""
    chain.__dict__.pop("transport", None)  # a connection of its own

    def hear(passed: str) -> None:
        if passed.startswith(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    with reopened_agent(chain, loaded) as agent, heard(hear):
        transfers.withdraw(agent, transfers.WithdrawalRequest("1000", pro_rata=pro_rata, to=HOME), send=True, confirm=accept)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("after:write a request", marks=pytest.mark.slow),
        "before:send",
        "after:send",
        pytest.param("before:write the end of a request", marks=pytest.mark.slow),
        "after:write the end of a request",
    ],
)
def test_a_killed_withdrawal_that_is_repeated_pays_once(chain: LocalChain, tmp_path: Path, moment: str) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    assert in_child(lambda: killed_in_withdrawal(chain, loaded, moment)) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        with raises_code(Refused, REPEATED, "withdrawal 1 "):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), send=True, confirm=accept)
        continued = transfers.resume_withdrawal(agent, 1, send=True, confirm=accept)
        assert continued.state == "paid", continued.reason
        assert chain.balance("USDC", HOME) == 1_000 * USD
        assert ended_state(agent, 1) is RequestState.DONE


SETTLING: dict[str, Callable[[Agent], object]] = {
    "rebalance": lambda agent: agent.rebalance(send=True, confirm=yes),
    "run": lambda agent: list(agent.run(send=True, confirm=yes, once=True)),
    "reconcile": maintenance.reconcile,
    "resume, dry": lambda agent: transfers.resume_withdrawal(agent, 1, confirm=accept),
    "release": lambda agent: transfers.release_withdrawal(agent, 1),
}


@pytest.mark.parametrize("command", SETTLING)
def test_payment_of_a_killed_withdrawal__ends_it_once_settled(chain: LocalChain, tmp_path: Path, command: str) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    assert in_child(lambda: killed_in_withdrawal(chain, loaded, "after:send")) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        if command == "release":
            with raises_code(Refused, "not_open", "withdrawal 1", "0x"):
                SETTLING[command](agent)
        else:
            SETTLING[command](agent)
        assert ended_state(agent, 1) is RequestState.DONE
        with raises_code(Refused, REPEATED, "withdrawal 1 has paid the same in 0x"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("1000", to=HOME), send=True, confirm=accept)
        assert chain.balance("USDC", HOME) == 1_000 * USD


def test_payment_of_a_killed_withdrawal__is_no_reserve_before_it_is_booked(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        value = Fraction(str(status_document(agent.status())["total_value"]))
    assert in_child(lambda: killed_in_withdrawal(chain, loaded, "after:send")) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        status = status_document(agent.status())
        assert 0 <= value - 1_000 - Fraction(str(status["total_value"])) < 5, "less gas"
        assert "withdrawal 1: 1000 USDC may be paid and is not booked yet" in status["decision"]["reason"]


def test_released_share_of_a_killed_withdrawal__is_repeated_only_with_again(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """One of its payments was sent; the share of the rest has other amounts."""
    chain = anvil_chain
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    assert in_child(lambda: killed_in_withdrawal(chain, loaded, "after:send", pro_rata=True)) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        transfers.release_withdrawal(agent, 1)
        request = transfers.WithdrawalRequest("1000", pro_rata=True, to=HOME)
        with raises_code(Refused, REPEATED, "withdrawal 1, since released, has paid part of the same"):
            transfers.withdraw(agent, request, send=True, confirm=accept)
        document = ControlledRun(chain, loaded, agent).shown("withdraw", ("amount", "1000"), ("pro-rata", "yes"), ("to", HOME))
        assert (document["state"], "has paid part of the same" in document["reason"]) == ("refused", True)


@pytest.mark.parametrize(
    ("moment", "arguments", "own"),
    [
        pytest.param("after:take a control", (("amount", "100"),), [], id="control taken"),
        pytest.param("after:send", (("amount", "100"),), ["3"], id="payment sent"),
        *slow([("after:send", (("resume", "2"),), ["2"]), ("before:finish a control", (("amount", "100"),), ["3"])]),
    ],
)
def test_an_interrupted_control_names_its_own_withdrawal_alone(
    chain: LocalChain, tmp_path: Path, moment: str, arguments: tuple[tuple[str, str], ...], own: list[str]
) -> None:
    """One was paid just before, another is set aside: neither is the control's."""
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("50", to=HOME), send=True, confirm=accept).state == "paid"
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("60"), send=True, confirm=accept).state == "reserved"
        control = ControlledRun(chain, loaded, agent).ask("withdraw", *arguments, ("to", HOME))
    assert in_child(lambda: die_in_cycle(chain, loaded, moment)) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        record = ControlledRun(chain, loaded, agent).ended(control)
        assert (record.state, record.code) == (ControlState.FAILED, "interrupted"), record
        assert result(record, "request") == own
        assert ("see withdrawal" in record.reason) is bool(own), record.reason


def test_a_control_repeats_a_withdrawal_only_with_again(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        run = ControlledRun(chain, loaded, agent)
        withdraw_document = run.ask("withdraw", ("amount", "100"), ("to", HOME))
        assert run.ended(withdraw_document).state is ControlState.DONE
        shown_plan_document = run.shown("withdraw", ("amount", "100"), ("to", HOME))
        assert (shown_plan_document["state"], shown_plan_document["plan_hash"]) == ("refused", "")
        assert "has paid the same in 0x" in shown_plan_document["reason"]
        second = run.ask("withdraw", ("amount", "100"), ("to", HOME), ("again", "yes"))
        assert run.ended(second).state is ControlState.DONE
        assert chain.balance("USDC", HOME) == 200 * USD


def test_plan_shown_before_an_equal_payment__confirms_nothing(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, OPEN, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        run = ControlledRun(chain, loaded, agent)
        controls = [run.ask("withdraw", ("amount", "100"), ("to", HOME), *more) for more in ((), (("again", "yes"),))]
        assert transfers.withdraw(agent, transfers.WithdrawalRequest("100", to=HOME), send=True, confirm=accept).state == "paid"
        run.look()
        records = [run.store.controls.find(control.id) for control in controls]
        assert [record and (record.state, record.code) for record in records] == [
            (ControlState.REFUSED, REPEATED),
            (ControlState.REFUSED, "plan_changed"),
        ]
        assert chain.balance("USDC", HOME) == 100 * USD
