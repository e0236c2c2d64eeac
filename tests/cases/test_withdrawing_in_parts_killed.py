"""SIGKILL of a process that raises a part of a withdrawal: the next run goes on by itself, counts the part once, and pays once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from agent.app.money import transfers
from agent.app.withdrawals.withdrawal_run import WithdrawalReport
from agent.config.loaded import LoadedConfig
from agent.errors import Refused
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentKind, RequestState
from tests.faults.probe import heard
from tests.faults.rig import in_child
from tests.support.agents import USD, fund, reopened_agent, trusted_config
from tests.support.on_chain.withdrawing import HOME, TARGETS, accept, ended_state
from tests.support.on_chain.withdrawing_in_parts import LARGE, PARTS, TEN_MINUTES, look, restore_pools
from tests.support.text import raises_code


def killed_in_part(chain: LocalChain, loaded: LoadedConfig, command: str, moment: str) -> None:
    """Raises the next part by this command, in a process that a SIGKILL ends at that moment of it."""
    chain.__dict__.pop("transport", None)  # a connection of its own
    with reopened_agent(chain, loaded) as agent:
        store = agent.context.store
        before = len([intent for intent in store.journal.intents(limit=100) if intent.kind is IntentKind.SWAP])

        def hear(passed: str) -> None:
            if not passed.startswith(moment):
                return
            swaps = [intent for intent in store.journal.intents(limit=100) if intent.kind is IntentKind.SWAP]
            if len(swaps) > before and ("send" in moment or all(swap.succeeded for swap in swaps)):
                os.kill(os.getpid(), signal.SIGKILL)

        with heard(hear):
            if command == "withdraw":
                transfers.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept)
            elif command == "resume":
                transfers.resume_withdrawal(agent, 1, send=True, confirm=accept)
            else:
                look(agent)


ASKED = "2400000"
"""What three parts raise."""
BOOKED = "before:write a part of a withdrawal"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "moment"),
    [
        pytest.param("withdraw", BOOKED, marks=pytest.mark.slow),
        ("withdraw", "after:send"),
        ("run", BOOKED),
        pytest.param("resume", BOOKED, marks=pytest.mark.slow),
    ],
)
def test_part_mined_before_a_kill__is_counted_once(chain: LocalChain, tmp_path: Path, command: str, moment: str) -> None:
    """Sold and mined, and the process ends before the part is written down: no other hand is needed, and nothing is sold at once again."""
    raised = 1
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, PARTS, TARGETS)
    if command != "withdraw":
        with reopened_agent(chain, loaded) as agent:
            assert transfers.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
        restore_pools(chain, TEN_MINUTES)
        raised = 2
    assert in_child(lambda: killed_in_part(chain, loaded, command, moment)) == -signal.SIGKILL
    weth_after = chain.balance("WETH")

    with reopened_agent(chain, loaded) as agent:
        early = look(agent)
        assert early.kind is OutcomeKind.HOLD, early.reason
        assert f"part {raised + 1}" in early.reason, early.reason
        assert "next at" in early.reason, early.reason
        with raises_code(Refused, "part_not_due", f"{raised} of about"):
            transfers.resume_withdrawal(agent, 1, send=True, confirm=accept)
        assert chain.balance("WETH") == weth_after, "the next part keeps its distance"

    for part in range(raised + 1, 40):
        restore_pools(chain, TEN_MINUTES)
        with reopened_agent(chain, loaded) as agent:
            outcome = look(agent)
            assert outcome.kind is OutcomeKind.DONE, outcome.reason
            if any(transaction.kind is IntentKind.PAYOUT for transaction in outcome.transactions):
                break
            assert f"part {part}" in outcome.reason, outcome.reason
    with reopened_agent(chain, loaded) as agent:
        look(agent)
        assert chain.balance("USDC", HOME) == 2_400_000 * USD, "paid once"
        assert ended_state(agent, 1) is RequestState.DONE
        assert agent.step_input().history.cash_flows.pending_payments == ()


def test_a_part_that_was_not_sold_after_all_puts_nothing_off(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, LARGE)
    loaded = trusted_config(chain, tmp_path, PARTS, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        assert transfers.withdraw(agent, transfers.WithdrawalRequest(ASKED, to=HOME), send=True, confirm=accept).state == "part"
        restore_pools(chain, TEN_MINUTES)
        before = agent.context.store.requests.newest()

        def paused(_: WithdrawalReport) -> bool:
            agent.context.kill_switch.pause("while it is asked for", 0)
            return True

        withdrawal_report = transfers.resume_withdrawal(agent, 1, send=True, confirm=paused)
        assert withdrawal_report.state == "refused", withdrawal_report.reason
        assert "kill switch" in withdrawal_report.reason, withdrawal_report.reason
        assert agent.context.store.requests.newest() == before
