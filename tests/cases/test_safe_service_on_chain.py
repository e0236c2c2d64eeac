"""Owners of a real Safe who meet at its transaction service: signed here, confirmed there, collected, executed; the service may lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from agent import app as api
from agent.app.agent import Agent
from agent.errors import Retryable
from agent.localchain import LocalChain
from agent.localchain.world import dev_accounts as accounts
from tests.cli.tools import in_process
from tests.support.agents import reopened_agent, yes
from tests.support.on_chain.proposals import proposal, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, hand_signature, open_proposal
from tests.support.safe_service import KEY, FakeSafeService, serving
from tests.support.text import mentions, raises_field
from tests.support.wallets import SafeWallet

OWNERS = tuple(accounts()[number].address for number in (5, 6, 7))


@dataclass
class SafeProposalScene:
    """An agent whose Safe has a proposal, and the service of its config."""

    agent: Agent
    safe: SafeWallet
    service: FakeSafeService

    @property
    def call_hash(self) -> str:
        return str(open_proposal(self.agent)["safe_tx_hash"])

    def add_by_a_wallet(self, number: int) -> str:
        """An owner confirms at the service, with a wallet of their own."""
        signature = hand_signature(self.agent, number)
        self.service.confirm(self.call_hash, signature)
        return signature


@pytest.fixture
def meeting(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SafeProposalScene]:
    monkeypatch.setenv("SAFE_KEY", KEY)
    service = FakeSafeService("", anvil_chain.chain_id, OWNERS)
    with serving(service):
        keys = ("wallet.safe_service", service.url), ("wallet.safe_service_token_env", "SAFE_KEY")
        safe, loaded = safe_of(anvil_chain, tmp_path, *keys)
        service.safe = safe.address
        with reopened_agent(anvil_chain, loaded) as agent:
            proposal(agent)
            yield SafeProposalScene(agent, safe, service)


def test_owners__sign_here_and_there__the_call_is_executed(meeting: SafeProposalScene) -> None:
    assert api.collect_from_service(meeting.agent)["added"] == []
    api.sign_proposal(meeting.agent, FIRST, None, yes)
    assert meeting.service.signers(meeting.call_hash) == [OWNERS[0]]
    meeting.add_by_a_wallet(7)
    document = api.collect_from_service(meeting.agent)
    assert (document["added"], document["signed_by"], document["left_out"]) == ([OWNERS[2]], [OWNERS[0], OWNERS[2]], [])
    assert api.collect_from_service(meeting.agent)["added"] == []
    assert api.execute_proposal(meeting.agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
    assert meeting.safe.nonce() == 1


def test_service__lists_foreign_signatures__only_owners_count(meeting: SafeProposalScene, tmp_path: Path) -> None:
    """A stranger's, one of another call, one by a contract, a file of this machine; between them an owner's."""
    agent = meeting.agent
    api.sign_proposal(agent, FIRST, None, yes)
    (tmp_path / "signature.txt").write_text(hand_signature(agent, 7))
    other = Account.sign_message(encode_defunct(b"another call"), accounts()[6].private_key).signature.hex()
    for text in (hand_signature(agent, 8), other, "0x" + "00" * 65, str(tmp_path / "signature.txt"), "0x"):
        meeting.service.confirm(meeting.call_hash, text)
    good = meeting.add_by_a_wallet(6)
    proposal_id = open_proposal(agent)["id"]
    document = api.collect_from_service(agent)
    assert document["added"] == [OWNERS[1]]
    assert [text.split(":")[0] for text in document["left_out"]] == ["signature"] * 5
    assert accounts()[8].address in document["left_out"][0]
    assert "v is 0" in document["left_out"][2]
    stored = agent.context.store.proposals.signatures(proposal_id)
    assert {owner: "0x" + signature.hex() for owner, signature in stored.items()} == {OWNERS[0]: hand_signature(agent, 5), OWNERS[1]: good}


def test_service__changes_the_call__the_journal_s_stays(meeting: SafeProposalScene) -> None:
    api.sign_proposal(meeting.agent, FIRST, None, yes)
    call = meeting.service.calls[meeting.call_hash]
    call |= {"to": accounts()[8].address, "data": "0xdead", "value": "1", "operation": 1}
    meeting.add_by_a_wallet(7)
    (intent,) = meeting.agent.context.store.journal.open_intents()
    api.collect_from_service(meeting.agent)
    assert api.execute_proposal(meeting.agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
    assert meeting.agent.context.store.journal.open_intents() == (intent,)
    chain = meeting.safe.chain
    allowance = chain.token_contract("WETH").functions.allowance(meeting.safe.address, chain.addresses.swap_router_02)
    assert allowance.call() == int(intent.tx.data[-64:], 16), "the approval of the journal"


def test_service__refuses_a_signature__it_is_offered_again(meeting: SafeProposalScene) -> None:
    agent = meeting.agent
    meeting.service.answers = [(404, {}), (422, {})]
    with pytest.raises(Retryable, match="HTTP 422") as caught:
        api.sign_proposal(agent, FIRST, None, yes)
    assert caught.value.message.startswith(
        f"signed by {OWNERS[0]}, and recorded here: 1 of 2 signatures; but the Safe's transaction service"
    )
    assert mentions(caught.value.remedy, "run the command again to offer it", "trimtab proposal sign")
    assert open_proposal(agent)["signed_by"] == [OWNERS[0]]
    assert meeting.service.calls == {}
    api.sign_proposal(agent, FIRST, None, yes)
    assert meeting.service.signers(meeting.call_hash) == [OWNERS[0]]
    api.sign_proposal(agent, SECOND, None, yes)
    assert meeting.service.signers(meeting.call_hash) == [OWNERS[0], OWNERS[1]]


def test_key_of_the_service__is_not_set__nothing_is_signed(anvil_chain: LocalChain, tmp_path: Path) -> None:
    keys = ("wallet.safe_service", "http://127.0.0.1:9"), ("wallet.safe_service_token_env", "NOT_SET")
    _, loaded = safe_of(anvil_chain, tmp_path, *keys)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        for act in (lambda: api.sign_proposal(agent, FIRST, None, yes), lambda: api.collect_from_service(agent)):
            with raises_field("wallet.safe_service_token_env", "NOT_SET"):
                act()
        assert open_proposal(agent)["signed_by"] == []


def test_collect__has_no_service_and_no_signature__names_both(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path)
    with reopened_agent(anvil_chain, loaded) as agent, raises_field("wallet.safe_service", "give signatures"):
        api.collect_from_service(agent)


def test_command__says_what_it_added_and_left_out(
    meeting: SafeProposalScene, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api.sign_proposal(meeting.agent, FIRST, None, yes)
    meeting.service.confirm(meeting.call_hash, "0xzz")
    meeting.add_by_a_wallet(7)
    config = str(meeting.agent.context.loaded_config.path)
    collect = ("proposal", "collect", "--config", config)
    collected = in_process(capfd, monkeypatch, *collect)
    assert collected.code == 0, collected.why
    assert f"Added: {OWNERS[2]}" in " ".join(collected.out.split())
    assert "Left out: signature: other characters than 0x and hex digits" in collected.out
    assert "2 of 2 signatures are collected." in collected.out
    assert in_process(capfd, monkeypatch, *collect, "--json").json["added"] == []
