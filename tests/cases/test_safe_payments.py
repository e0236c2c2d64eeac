"""Payments of a real Safe: recipient and amount are read from the call itself, in the list, before a signature and in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.money import hard_pause, transfers
from agent.chain.safe import SafeContract
from agent.execution.executor import AwaitingExternalSignature
from agent.localchain import LocalChain
from tests.cli.tools import in_process
from tests.support.agents import reopened_agent, yes
from tests.support.constants import ETHER, HOME
from tests.support.on_chain.proposals import safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, open_proposal, sign_and_send
from tests.support.text import mentions
from tests.support.wallets import native_of

PAYOUT = ("wallet.payout_addresses", [HOME])
COIN = (("portfolio.assets.0.address", "native"), ("portfolio.assets.0.symbol", "ETH"))


def propose_payment(agent: Agent, amount: str, symbol: str) -> None:
    with pytest.raises(AwaitingExternalSignature):
        transfers.withdraw(agent, transfers.WithdrawalRequest(amount, symbol, to=HOME), send=True, confirm=lambda _: True)


def execute(agent: Agent) -> None:
    sign_and_send(agent, FIRST, SECOND)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"


def pause_hard(agent: Agent, *, send: bool = True) -> dict[str, Any]:
    report = hard_pause.pause_hard(agent.context.loaded_config, "test", send=send, is_confirmed=send, confirm=yes)
    return dict(hard_pause.hard_pause_document(report, send))


def file_lines(agent: Agent) -> list[str]:
    (path,) = agent.context.loaded_config.proposals_path.iterdir()
    return api.read_proposal_file(path)["calls"]


def test_payment_of_a_token__names_recipient_and_amount(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path, PAYOUT)
    weth = anvil_chain.tokens["WETH"].address
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        document = open_proposal(agent)
        (call,) = document["calls"]
        assert (call["to"], call["function"], call["value_wei"], call["recipients"]) == (weth, "transfer", "0", [HOME])
        assert (call["token"], call["amount_raw"]) == ("WETH", str(ETHER // 4))
        assert document["recipients"] == [HOME]
        assert file_lines(agent) == [f"{weth}: transfer call recipient {HOME}, raw {ETHER // 4}"]
        shown = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path)).out
        assert f"  pays {HOME} exactly 0.25 WETH ({weth})\n" in shown
        assert "at any time" in shown
        execute(agent)
        assert anvil_chain.balance("WETH", HOME) == ETHER // 4
        shown = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path)).out
        assert "(used, " in shown
        assert "at any time" not in shown


def test_payment_of_native_coin__is_no_empty_call(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, *COIN)
    anvil_chain.node.rpc("anvil_setBalance", safe.address, hex(ETHER))
    with reopened_agent(anvil_chain, loaded) as agent:
        there = native_of(anvil_chain, HOME)
        propose_payment(agent, "0.25", "ETH")
        (call,) = open_proposal(agent)["calls"]
        assert (call["to"], call["value_wei"], call["recipients"]) == (HOME, str(ETHER // 4), [HOME])
        assert file_lines(agent) == [f"{HOME}: gets {ETHER // 4} wei of native coin"]
        shown = in_process(capfd, monkeypatch, "proposal", "list", "--config", str(loaded.path)).out
        assert f"  pays {HOME} exactly 0.25 of native coin\n" in shown
        assert "empty call" not in shown
        execute(agent)
        assert native_of(anvil_chain, HOME) - there == ETHER // 4


@pytest.mark.parametrize("is_dropped", [False, True], ids=["still listed", "dropped"])
def test_signed_payment_past_its_deadline__is_rejected_by_a_hard_pause(anvil_chain: LocalChain, tmp_path: Path, is_dropped: bool) -> None:
    """The chain knows no deadline of a payment: whoever has the signatures could execute it after the owner stopped everything."""
    safe, loaded = safe_of(anvil_chain, tmp_path, PAYOUT, targets={"WETH": "100%", "USDC": "0%"})
    with reopened_agent(anvil_chain, loaded) as agent:
        propose_payment(agent, "0.25", "WETH")
        sign_and_send(agent, FIRST, SECOND)
        (intent,) = agent.context.store.journal.open_intents()
        payment = agent.context.store.proposals.signatures(intent.id)
        anvil_chain.warp(1_801)
        if is_dropped:
            agent.rebalance(send=True, confirm=yes)
            assert api.list_proposals(agent) == {"proposals": []}
            assert [text for text in api.pause(loaded.path, "test")["signed"] if intent.id in text]
            shown = pause_hard(agent, send=False)
            assert shown["outcome"] == "planned"
            assert mentions(shown["message"], intent.id, "at any time", "trimtab pause --hard --send")
        document = pause_hard(agent)
        assert document["outcome"] == "unfinished"
        assert mentions(document["message"], "2 of 2 signatures", intent.id, "at any time", f"empty call of {safe.address}")
        sign_and_send(agent, FIRST)
        assert pause_hard(agent)["outcome"] == "unfinished"
        assert len(api.list_proposals(agent)["proposals"][-1]["signed_by"]) == 1, "the next look keeps the rejection and its signatures"
        execute(agent)
        assert pause_hard(agent)["outcome"] in ("done", "clear")
        assert "signed" not in api.pause(loaded.path, "test")
        execution = SafeContract(agent.context.transport, safe.address).execution_data(intent.tx, payment)
        with pytest.raises(RuntimeError, match="GS026"):
            anvil_chain.node.rpc("eth_call", {"from": HOME, "to": safe.address, "data": execution}, "latest")
        assert anvil_chain.balance("WETH", HOME) == 0
