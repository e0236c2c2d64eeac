"""Payments of a real Safe: recipient and amount are read from the call itself, in the list, before a signature and in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import app as api
from agent.app.agent import Agent
from agent.app.money import transfers
from agent.execution.executor import AwaitingExternalSignature
from agent.localchain import LocalChain
from tests.cli.tools import in_process
from tests.support.agents import reopened_agent, yes
from tests.support.constants import ETHER, HOME
from tests.support.on_chain.proposals import safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, open_proposal, sign_and_send
from tests.support.wallets import native_of

PAYOUT = ("wallet.payout_addresses", [HOME])
COIN = (("portfolio.assets.0.address", "native"), ("portfolio.assets.0.symbol", "ETH"))


def propose_payment(agent: Agent, amount: str, symbol: str) -> None:
    with pytest.raises(AwaitingExternalSignature):
        transfers.withdraw(agent, transfers.WithdrawalRequest(amount, symbol, to=HOME), send=True, confirm=lambda _: True)


def execute(agent: Agent) -> None:
    sign_and_send(agent, FIRST, SECOND)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"


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
