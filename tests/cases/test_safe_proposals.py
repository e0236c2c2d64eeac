"""Proposals to a real Safe from start to end: signed as owners, collected, executed by an account that pays, settled from the chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_typing import HexStr

from agent import app as api
from agent.app.agent import Agent
from agent.app.money.transaction_builder import checksum
from agent.app.records import maintenance
from agent.chain.sender import QuorumSender
from agent.cli import portfolio as portfolio_commands
from agent.cli.display.terminal import show_spinner
from agent.errors import EXIT_REFUSED, ConfigError, OperatorNeeded, PassingFault, Refused
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.world import dev_accounts as accounts
from agent.model import IntentState, SignedTx, UnsignedTx
from agent.ports import TransactionStatus
from agent.signing.calldata import Approve, decode
from agent.signing.safe_tx import safe_tx_fields, typed_data
from agent.signing.secret import PrivateKey
from tests.cli.tools import in_process
from tests.support.agents import fund, reopened_agent, trusted_config, yes
from tests.support.commands.sending import shown_part
from tests.support.on_chain.proposals import PROPOSING, TWO, proposal, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, SECOND, hand_signature, open_proposal, sign_and_send
from tests.support.signing import CHAIN_ID
from tests.support.text import mentions, raises_field
from tests.support.wallets import SafeWallet, native_of

STRANGER = {"test_account": 8}


@pytest.fixture
def scene(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[tuple[Agent, SafeWallet]]:
    """An agent whose Safe, with two of three owners, has a proposal that waits."""
    safe, loaded = safe_of(anvil_chain, tmp_path)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        yield agent, safe


def test_owners__sign_and_an_executor_pays_until_it_is_done(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    purposes = []
    executor = accounts()[9].address
    for _ in range(3):
        before = native_of(anvil_chain, executor)
        document = open_proposal(agent)
        purposes.append(document["purpose"])
        assert (document["state"], document["threshold"], document["signed_by"]) == ("waiting", 2, [])
        sign_and_send(agent, FIRST)
        api.collect_signatures(agent, [hand_signature(agent, 7)])
        assert api.execute_proposal(agent, {})["outcome"] == "planned"
        assert safe.nonce() == len(purposes) - 1
        executed = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        assert (executed["outcome"], executed["executor"]) == ("executed", executor)
        assert 0 < before - native_of(anvil_chain, executor) <= int(executed["max_cost_wei"])
        again = api.execute_proposal(agent, {})
        assert (again["outcome"], again["transaction"]) == ("executed", executed["transaction"])
        used = open_proposal(agent)
        assert (used["state"], used["ending"]) == ("used", f"executed from here in {executed['transaction']}")
        try:
            outcome = agent.rebalance(send=True, confirm=yes)
        except AwaitingExternalSignature:
            continue
        break
    assert outcome.kind is OutcomeKind.HOLD
    assert purposes == ["approve", "swap"]
    for intent in agent.context.store.journal.intents():
        settled = api.execute_proposal(agent, EXECUTOR, intent.id, send=True, confirm=yes)
        assert (settled["outcome"], settled["transaction"], safe.nonce()) == ("executed", intent.tx_hash, 2)
    assert all(anvil_chain.balance(symbol, safe.address) for symbol in TWO)
    assert api.list_proposals(agent) == {"proposals": [], "held_up": ""}
    assert all(intent.state is IntentState.FINAL for intent in agent.context.store.journal.intents())


def test_the_list_says_the_call_with_its_addresses(scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    approval = open_proposal(agent)
    (intent,) = agent.context.store.journal.open_intents()
    call = decode(intent.tx.data)
    assert isinstance(call, Approve)
    assert (approval["to"], approval["function"], approval["spender"]) == (intent.tx.to, "approve", call.spender)
    sign_and_send(agent, FIRST, SECOND)
    api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    swap = proposal(agent)
    document = open_proposal(agent)
    assert swap["purpose"] == "swap"
    assert (document["to"], document["spender"], document["recipients"]) == (call.spender, None, [safe.address])
    assert approval["why"] == document["why"] != "", "an approval has the reason of the trade that it is for"


def test_waiting_proposal__names_missing_signatures_and_a_pause(scene: tuple[Agent, SafeWallet]) -> None:
    agent, _ = scene

    def waiting() -> AwaitingExternalSignature:
        with pytest.raises(AwaitingExternalSignature) as caught:
            agent.rebalance(send=True, confirm=yes)
        return caught.value

    for count, awaited, instruction in (
        (0, "2 signatures", "have 2 of 3 owners sign it"),
        (1, "1 more signature (1 signature collected, 2 needed)", "have 1 more of 3 owners sign it"),
        (2, "its execution (2 signatures collected, 2 needed)", "have anyone execute it with trimtab proposal execute {} --send"),
    ):
        sign_and_send(agent, *[FIRST, SECOND][max(0, count - 1) : count])
        assert f"awaits {awaited} until" in waiting().message
        assert waiting().remedy.startswith(instruction.format(open_proposal(agent)["id"]))
    agent.context.store.pause_switch.pause("test", agent.context.clock.now_s())
    assert waiting().remedy.startswith("end the pause (test, ")
    assert " UTC) with trimtab resume, then have anyone execute it" in waiting().remedy


def test_plan_for_a_safe__is_said_to_be_proposed_and_what_waits_is_named(
    anvil_chain: LocalChain, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path)
    questions: list[str] = []
    monkeypatch.setattr(portfolio_commands, "ask_with_changes", lambda _, question: bool(questions.append(question)))

    def dry_text() -> str:
        return " ".join(in_process(capfd, monkeypatch, "rebalance", "--config", str(loaded.path)).out.split())

    assert dry_text().endswith(
        "Dry run: nothing was proposed. Add --send to propose it to the owners. Who executes it pays its gas, not the Safe."
    )
    with reopened_agent(anvil_chain, loaded) as agent, show_spinner("") as spinner:
        assert agent.rebalance(send=True, confirm=portfolio_commands.confirmer(agent, False, spinner)).kind is OutcomeKind.DECLINED
        assert questions == ["Propose this?"]
        waiting = proposal(agent)
    waiting_text = dry_text()
    assert mentions(waiting_text, f"The proposal {waiting['id']}", "waits, and nothing else is proposed meanwhile: trimtab status")
    assert "Add --send" not in waiting_text


def test_the_status_names_what_waits_and_what_to_do(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = scene
    monkeypatch.setenv("COLUMNS", "400")
    document = open_proposal(agent)

    def sentence() -> str:
        return next(text for text in agent.status().warnings if document["id"] in text)

    assert mentions(sentence(), document["description"], "awaits 2 signatures until", "have 2 of 3 owners sign it")
    sign_and_send(agent, FIRST, SECOND)
    assert mentions(
        sentence(),
        "awaits its execution (2 signatures collected, 2 needed)",
        f"trimtab proposal execute {open_proposal(agent)['id']} --send",
    )
    tx_hash = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["transaction"]
    listed = in_process(capfd, monkeypatch, "txs", "--config", str(agent.context.loaded_config.path)).out
    assert f"execution sent: {tx_hash}" in " ".join(listed.split())
    assert "not sent" not in listed
    assert (
        f"its nonce is used (its execution was sent in {tx_hash}): trimtab rebalance --send settles it and goes on, or says what else"
        in sentence()
    )
    with pytest.raises(AwaitingExternalSignature):
        agent.rebalance(send=True, confirm=yes)
    assert not [text for text in agent.status().warnings if document["id"] in text]
    anvil_chain.warp(1_801)
    assert [text for text in agent.status().warnings if "has expired" in text]


def test_a_signature_by_eth_sign_counts(scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    message = encode_defunct(hexstr=open_proposal(agent)["safe_tx_hash"])
    signature = bytearray(Account.sign_message(message, accounts()[6].private_key).signature)
    signature[-1] += 4
    assert api.collect_signatures(agent, ["0x" + signature.hex()])["added"] == [accounts()[6].address]
    sign_and_send(agent, FIRST)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
    assert safe.nonce() == 1


@pytest.mark.parametrize("layout", ["{}\n", '"{}"\n'], ids=["plain", "in quotes"])
def test_a_signature_comes_from_a_file_too(scene: tuple[Agent, SafeWallet], tmp_path: Path, layout: str) -> None:
    agent, _ = scene
    document = api.sign_proposal(agent, FIRST, None, yes)
    text = hand_signature(agent, 6)
    (tmp_path / "alone.txt").write_text(layout.format(text))
    assert api.collect_signatures(agent, [str(tmp_path / "alone.txt")])["added"] == [accounts()[6].address]
    (tmp_path / "third.json").write_text(json.dumps({"safe_tx_hash": document["safe_tx_hash"], "signature": hand_signature(agent, 7)}))
    assert api.collect_signatures(agent, [str(tmp_path / "third.json")])["signed_by"] == [
        accounts()[number].address for number in (5, 6, 7)
    ]


def test_foreign_signature__is_refused_whole(scene: tuple[Agent, SafeWallet], tmp_path: Path) -> None:
    agent, _ = scene
    good = hand_signature(agent, 6)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"safe_tx_hash": "0x" + "ab" * 32, "signature": good}))
    message = encode_defunct(hexstr=open_proposal(agent)["safe_tx_hash"])
    personal = "0x" + bytes(Account.sign_message(message, accounts()[6].private_key).signature).hex()
    for text, field, word in (
        (hand_signature(agent, 8), "signature", "not an owner"),
        (personal, "signature", "by eth_signTypedData_v4 and not by personal_sign"),
        (good[:-2] + ("1c" if good.endswith("1b") else "1b"), "signature", "not an owner"),
        (str(other), "safe_tx_hash", "waits"),
        (good[:-2] + "00", "signature", "v is 0"),
        (good[:-2] + "01", "signature", "write 1c as the last two digits"),
        (good[:-2], "signature", "64 bytes"),
        ("0x" + "zz" * 65, "signature", "other characters than 0x and hex digits"),
        (str(tmp_path / "missing"), "signature", "no file has this name"),
    ):
        with raises_field(field, word):
            api.collect_signatures(agent, [hand_signature(agent, 5), text])
        assert open_proposal(agent)["signed_by"] == []
    api.collect_signatures(agent, [good])
    with raises_field("signature", "signed already"):
        api.collect_signatures(agent, [good])


def test_signature_that_is_there_already__is_left_out_beside_a_new_one(scene: tuple[Agent, SafeWallet], tmp_path: Path) -> None:
    agent, _ = scene
    first, second, third = (accounts()[number].address for number in (5, 6, 7))
    both = tmp_path / "both.txt"
    both.write_text(f"{hand_signature(agent, 5)}\n{hand_signature(agent, 6)}\n")
    api.collect_signatures(agent, [hand_signature(agent, 5)])
    collected = api.collect_signatures(agent, [str(both)])
    assert (collected["added"], collected["left_out"]) == ([second], [f"signature: {first} has signed already"])
    collected = api.collect_signatures(agent, [hand_signature(agent, 7)] * 2)
    assert (collected["added"], collected["left_out"]) == ([third], [f"signature: {third} has signed already"])
    assert collected["signed_by"] == [first, second, third]


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_owners_key_in_a_wrong_place__is_not_repeated(
    scene: tuple[Agent, SafeWallet], form: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = scene
    key = accounts()[5].private_key
    for command in (
        ("sign", "--key", key),
        ("sign", "--key", f"test_account={key}"),
        ("sign", "--key", f"keystore={key}"),
        ("sign", "--key", f"key_env={key}"),
        ("sign", key),
        ("collect", key[2:]),
        ("collect", key),
    ):
        config_path = str(agent.context.loaded_config.path)
        result = in_process(capfd, monkeypatch, "proposal", *command, "--config", config_path, *form)
        assert result.code
        assert not shown_part(key, result.out + result.err), (command, result.why)


def test_only_an_owner_signs_and_only_the_proposal_that_waits(scene: tuple[Agent, SafeWallet], monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _ = scene
    with raises_field("--key", "not an owner"):
        api.sign_proposal(agent, STRANGER, None, yes)
    for act in (lambda: api.sign_proposal(agent, FIRST, "f" * 16, yes), lambda: api.export_proposal(agent, "f" * 16)):
        with raises_field("PROPOSAL", "not the proposal that waits") as refusal:
            act()
        assert refusal.value.remedy == f"see trimtab proposal list; if you mean that one, write {open_proposal(agent)['id']}"
    with raises_field("--key", "exclude each other"):
        api.sign_proposal(agent, FIRST | {"keyring": "trimtab/main"}, None, yes)
    monkeypatch.setenv("OWNER", accounts()[5].private_key)
    with raises_field("--key", "OWNER", "TRIMTAB_OWNER"):
        api.sign_proposal(agent, {"key_env": "OWNER"}, None, yes)
    with raises_field("--key", "TRIMTAB_OWNER is not set"):
        api.sign_proposal(agent, {"key_env": "TRIMTAB_OWNER"}, None, yes)
    with pytest.raises(ConfigError, match=r"the key must be typed, .*or set --key keystore"):
        api.sign_proposal(agent, {}, None, yes)
    assert api.sign_proposal(agent, FIRST, None, lambda _: False)["signature"] == ""
    assert open_proposal(agent)["signed_by"] == []


def test_sign__no_terminal__shows_the_call_and_labels_the_signature(
    scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = scene
    waiting = open_proposal(agent)
    sign = ("proposal", "sign", "--key", "test_account=5", "--config", str(agent.context.loaded_config.path))
    refused = in_process(capfd, monkeypatch, *sign)
    assert refused.code == 2
    assert mentions(refused.err, waiting["description"], waiting["safe_tx_hash"], "add --yes")
    assert open_proposal(agent)["signed_by"] == []
    assert "\nSignature: 0x" in in_process(capfd, monkeypatch, *sign, "--yes").out


def test_nothing_is_signed_or_executed_while_paused(scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    agent.context.store.pause_switch.pause("test", agent.context.clock.now_s())
    for act in (
        lambda: api.sign_proposal(agent, {"test_account": 7}, None, yes),
        lambda: api.proposal_typed_data(agent, None),
        lambda: api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes),
    ):
        with pytest.raises(Refused, match=r"the kill switch is on \(paused: test, 20.* UTC\); nothing is sent"):
            act()
    assert safe.nonce() == 0


def test_proposal_past_its_deadline__is_not_signed_or_executed(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    anvil_chain.warp(1_801)
    assert open_proposal(agent)["state"] == "expired"
    third = by_hand_unchecked(agent, 7)
    for act in (
        lambda: api.sign_proposal(agent, {"test_account": 7}, None, yes),
        lambda: api.collect_signatures(agent, [third]),
        lambda: api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes),
    ):
        with pytest.raises(Refused, match="is expired"):
            act()
    assert safe.nonce() == 0


def by_hand_unchecked(agent: Agent, number: int) -> str:
    """The signature of an owner who asks nobody."""
    (intent,) = agent.context.store.journal.open_intents()
    path = agent.context.loaded_config.proposals_path / f"{intent.id}.json"
    data = json.loads(path.read_text())["typed_data"]
    return "0x" + bytes(Account.sign_typed_data(accounts()[number].private_key, full_message=data).signature).hex()


def test_a_file_alone_shows_its_call_and_hash_and_no_other(scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    (path,) = agent.context.loaded_config.proposals_path.iterdir()
    proposed = open_proposal(agent)
    file_document = api.read_proposal_file(path)
    assert (file_document["safe"], file_document["nonce"], file_document["safe_tx_hash"]) == (safe.address, 0, proposed["safe_tx_hash"])
    (call,) = proposed["calls"]
    assert file_document["calls"] == [
        f"lets {call['spender']} (unknown) spend {call['amount_raw']} base units of the token {call['to']} (unknown)"
    ]
    document = json.loads(path.read_text())
    for changes, words in (
        ({"safe_tx_hash": "0x" + "ab" * 32}, "not those of its call"),
        ({"safe_tx": document["safe_tx"] | {"to": accounts()[8].address}}, "not those of its call"),
        ({"typed_data": {}}, "not those of its call"),
        ({"safe_tx": 7}, "not the file of a Safe's proposal"),
    ):
        path.write_text(json.dumps(document | changes))
        with pytest.raises(ConfigError, match=words):
            api.read_proposal_file(path)


def test_shown_file__says_whether_its_hash_waits_here(
    scene: tuple[Agent, SafeWallet],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wallet shows the hash of a changed file too, so that the wallet alone proves nothing."""
    agent, _ = scene
    monkeypatch.setenv("COLUMNS", "400")
    proposal_id = open_proposal(agent)["id"]
    typed_data_json = api.proposal_typed_data(agent, None)
    file = tmp_path / "typed.json"
    config = agent.context.loaded_config.path

    def shown(*, nonce: int = 0, config_path: Path = config, chain_id: int = CHAIN_ID) -> tuple[bool | None, str, str]:
        message = typed_data_json["message"] | {"nonce": str(nonce)}
        domain = typed_data_json["domain"] | {"chainId": chain_id}
        file.write_text(json.dumps(typed_data_json | {"message": message, "domain": domain}))
        document = api.read_proposal_file(file, config_path)
        output = in_process(capfd, monkeypatch, "proposal", "show", str(file), "--config", str(config_path))
        assert output.code == (EXIT_REFUSED if document["waits"] is False else 0)
        return document["waits"], document["id"], output.out

    waits, waiting_id, text = shown()
    assert (waits, waiting_id) == (True, proposal_id)
    assert mentions(text, f'It is the proposal {proposal_id} ("approve', "), which waits. Its prices are not checked here: sign it only if")
    waits, waiting_id, text = shown(nonce=9)
    assert (waits, waiting_id) == (False, "")
    assert "No proposal that waits here has this hash: do not sign it" in text
    waits, waiting_id, text = shown(chain_id=1)
    assert (waits, waiting_id) == (False, "")
    assert f"The Safe of the config is on chain {CHAIN_ID}, this call is for chain 1: do not sign it." in text
    other_config = tmp_path / "other.toml"
    other_config.write_text(config.read_text().replace(typed_data_json["domain"]["verifyingContract"], accounts()[8].address))
    for config_without_store in (tmp_path / "missing.toml", other_config):
        waits, waiting_id, text = shown(config_path=config_without_store)
        assert (waits, waiting_id) == (None, "")
        assert "Compare it with what proposal list shows on the agent's machine" in text
    maintenance.cancel(agent)
    waits, waiting_id, text = shown()
    assert (waits, waiting_id) == (False, "")
    assert mentions(text, f"The proposal {proposal_id} was not executed: cancelled by trimtab cancel", "; do not sign it.")


def test_ended_proposal__is_named_with_its_end(scene: tuple[Agent, SafeWallet], tmp_path: Path) -> None:
    """An owner who comes late sees that it was executed or withdrawn, from each command and from its file."""
    agent, _ = scene
    executed_id = open_proposal(agent)["id"]
    file = tmp_path / "typed.json"
    file.write_text(json.dumps(api.proposal_typed_data(agent, None)))
    sign_and_send(agent, FIRST, SECOND)
    transaction = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["transaction"]
    waiting_id = proposal(agent)["id"]
    signature = hand_signature(agent, 7)
    with pytest.raises(Refused) as refused:
        api.sign_proposal(agent, FIRST, executed_id, yes)
    assert mentions(refused.value.message, f"the proposal {waiting_id} waits; {executed_id}", f"was executed in {transaction}")
    document = api.read_proposal_file(file, agent.context.loaded_config.path)
    assert (document["waits"], document["ending"]) == (False, f"The proposal {executed_id} was executed in {transaction}")
    maintenance.cancel(agent)
    for act in (
        lambda: api.sign_proposal(agent, FIRST, waiting_id, yes),
        lambda: api.export_proposal(agent, waiting_id),
        lambda: api.execute_proposal(agent, {}, waiting_id),
        lambda: api.collect_signatures(agent, [signature]),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert mentions(refused.value.message, f"no proposal waits; {waiting_id}", "was not executed: cancelled by trimtab cancel")


@pytest.mark.parametrize("words", ["rebalance", "invest", "swap --in WETH --out USDC --amount 0.01"], ids=lambda words: words.split()[0])
def test_command_beside_a_proposal__has_the_title_waiting(
    scene: tuple[Agent, SafeWallet], words: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It proposes nothing: the one that waits is an earlier one."""
    agent, _ = scene
    config = str(agent.context.loaded_config.path)
    output = in_process(capfd, monkeypatch, *words.split(), "--send", "--yes", "--config", config)
    assert (output.code, output.err.strip()[:9]) == (11, "Waiting: "), output.why


def test_executed_proposal__is_named_by_history_and_by_what_books_it(
    scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By rebalance, which then proposes the swap, and by another command, whatever that does itself."""
    agent, _ = scene
    config = agent.context.loaded_config.path
    monkeypatch.setenv("COLUMNS", "400")
    for words in ("rebalance", "swap --in WETH --out USDC --amount 0.01"):
        (step,) = api.history(config, 1)["steps"]
        assert "owners sign it" in step["reason"]
        waiting = open_proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
        transaction = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["transaction"]
        (step,) = api.history(config, 1)["steps"]
        assert (
            step["reason"]
            == f'{waiting["why"]}; the execution of "{waiting["description"]}" was sent in {transaction}; the next cycle settles it'
        )
        output = in_process(capfd, monkeypatch, *words.split(), "--send", "--yes", "--config", str(config))
        booked_text = output.err if words == "rebalance" else output.out
        assert mentions(booked_text, f"Booked: executed in {transaction} at ", waiting["id"])
        assert ("Proposed: " in output.err) == (words == "rebalance")


def test_file_that_says_another_call__stops_the_signing(scene: tuple[Agent, SafeWallet]) -> None:
    agent, _ = scene
    (path,) = agent.context.loaded_config.proposals_path.iterdir()
    document = json.loads(path.read_text())
    for changes in ({"safe_tx_hash": "0x" + "ab" * 32}, {"safe": accounts()[8].address}, {"safe_tx": document["safe_tx"] | {"value": "1"}}):
        path.write_text(json.dumps(document | changes))
        with pytest.raises(OperatorNeeded, match="another call"):
            api.sign_proposal(agent, FIRST, None, yes)
    path.unlink()
    sign_and_send(agent, FIRST)


def test_a_safe_that_answers_another_hash_is_not_signed_for(scene: tuple[Agent, SafeWallet], monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _ = scene
    monkeypatch.setattr("agent.chain.safe.safe_tx_hash", lambda *_: "0x" + "ab" * 32)
    with pytest.raises(PassingFault, match="returns another hash"):
        api.sign_proposal(agent, FIRST, None, yes)


def test_too_few_signatures_are_not_executed(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    for count in (0, 1):
        with pytest.raises(Refused, match=f"{count} of 2 signatures"):
            api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        sign_and_send(agent, FIRST)
    sign_and_send(agent, SECOND)
    call = safe.contract.encode_abi("removeOwner", [accounts()[5].address, accounts()[6].address, 1])
    anvil_chain.node.rpc("anvil_impersonateAccount", safe.address)
    anvil_chain.node.rpc("anvil_setBalance", safe.address, hex(10**18))
    anvil_chain.node.rpc("eth_sendTransaction", {"from": safe.address, "to": safe.address, "data": call})
    anvil_chain.mine()
    document = open_proposal(agent)
    assert document["threshold"] == 1
    assert len(document["signed_by"]) == len(document["owners"]) - 1 == 1, "a former owner's signature does not count"


def test_an_executor_without_money_records_and_sends_nothing(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    anvil_chain.node.rpc("anvil_setBalance", accounts()[9].address, "0x0")
    with pytest.raises(Refused, match=r"(?i)funds"):
        api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    assert agent.context.store.proposals.execution(open_proposal(agent)["id"]) is None
    assert safe.nonce() == 0


def test_an_unconfirmed_execution_records_and_sends_nothing(scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=lambda _: False)["outcome"] == "declined"
    assert agent.context.store.proposals.execution(open_proposal(agent)["id"]) is None
    assert safe.nonce() == 0


def test_pause_stored_during_the_signing__stops_an_execution(scene: tuple[Agent, SafeWallet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine confirms it after all checks, before the write that precedes the send."""
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    sign = PrivateKey.sign_transaction

    def pause_and_sign(key: PrivateKey, tx: UnsignedTx) -> SignedTx:
        agent.context.store.pause_switch.pause("by another process", agent.context.clock.now_s())
        return sign(key, tx)

    monkeypatch.setattr(PrivateKey, "sign_transaction", pause_and_sign)
    with pytest.raises(Refused, match="kill switch"):
        api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    assert agent.context.store.proposals.execution(open_proposal(agent)["id"]) is None
    assert safe.nonce() == 0


OTHER_EXECUTOR = {"test_account": 4}


@pytest.mark.parametrize(
    ("key", "is_underpriced"),
    [(EXECUTOR, True), (EXECUTOR, False), (OTHER_EXECUTOR, True), (OTHER_EXECUTOR, False)],
    ids=["replaced", "awaited", "beside an underpriced one", "beside one that a node makes up"],
)
def test_execution_that_stays_pending__is_replaced_or_made_beside_it(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet], monkeypatch: pytest.MonkeyPatch, key: dict[str, int], is_underpriced: bool
) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    rpc = anvil_chain.node.rpc

    def die(text: str) -> None:
        if text.startswith("waiting"):
            raise KeyboardInterrupt

    rpc("evm_setAutomine", False)
    try:
        with pytest.raises(KeyboardInterrupt):
            api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes, progress=die)
        pending = agent.context.store.proposals.execution(open_proposal(agent)["id"])
        assert pending is not None
        if is_underpriced:
            rpc("anvil_setNextBlockBaseFeePerGas", hex(2 * pending.tx.max_gas_price_wei))
            rpc("evm_mine")
        elif key == OTHER_EXECUTOR:
            rpc("anvil_dropAllTransactions")
            status_of = QuorumSender.status_of

            def made_up(sender: QuorumSender, tx_hash: str) -> TransactionStatus:
                return TransactionStatus("pending", None) if tx_hash == pending.tx_hash else status_of(sender, tx_hash)

            monkeypatch.setattr(QuorumSender, "status_of", made_up)
        assert safe.nonce() == 0
        mine_at_wait = partial(mine_when_waiting, rpc)
        executed = api.execute_proposal(agent, key, send=True, confirm=yes, progress=mine_at_wait)
    finally:
        rpc("anvil_dropAllTransactions")
        rpc("evm_setAutomine", True)
    is_own = key == EXECUTOR
    assert (executed["outcome"], executed["executor"]) == ("executed", accounts()[9 if is_own else 4].address)
    assert (executed["transaction"] == pending.tx_hash) is (is_own and not is_underpriced)
    sent_tx = anvil_chain.w3.eth.get_transaction(HexStr(executed["transaction"]))
    if is_own:
        assert sent_tx["nonce"] == pending.tx.nonce
    assert safe.nonce() == 1
    assert api.list_proposals(agent)["proposals"][0]["ending"] == f"executed from here in {executed['transaction']}"


def test_execution_beside_a_pending_one__names_who_executed(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    rpc = anvil_chain.node.rpc

    def die(text: str) -> None:
        if text.startswith("waiting"):
            raise KeyboardInterrupt

    rpc("evm_setAutomine", False)
    try:
        with pytest.raises(KeyboardInterrupt):
            api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes, progress=die)
        first = agent.context.store.proposals.execution(open_proposal(agent)["id"])
        assert first is not None
        with pytest.raises(KeyboardInterrupt):
            api.execute_proposal(agent, OTHER_EXECUTOR, send=True, confirm=yes, progress=die)
        awaited = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes, progress=partial(mine_when_waiting, rpc))
    finally:
        rpc("evm_setAutomine", True)
    own_results = (awaited["outcome"], awaited["executor"], awaited["transaction"])
    assert own_results == ("executed", first.executor, first.tx_hash)
    other = api.execute_proposal(agent, OTHER_EXECUTOR, send=True, confirm=yes)
    assert (other["outcome"], other["executor"], other["transaction"]) == own_results
    assert api.list_proposals(agent)["proposals"][0]["ending"] == f"executed from here in {first.tx_hash}"
    assert safe.nonce() == 1


def mine_when_waiting(rpc: Callable[..., object], text: str) -> None:
    if text.startswith("waiting"):
        rpc("evm_mine")


@pytest.mark.parametrize("dies_at", ["before the send", "after the send"])
def test_a_process_that_ends_around_the_send_executes_once(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path)
    executor = accounts()[9].address
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        sign_and_send(agent, FIRST, SECOND)
        nonce = anvil_chain.w3.eth.get_transaction_count(executor)
        with monkeypatch.context() as patch:
            patch.setattr("agent.chain.sender.QuorumSender.send", dying(dies_at))
            with pytest.raises(KeyboardInterrupt):
                api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        recorded = agent.context.store.proposals.execution(open_proposal(agent)["id"])
        assert recorded is not None
        assert (recorded.executor, recorded.tx.nonce) == (executor, nonce)
    with reopened_agent(anvil_chain, loaded) as agent:
        executed = api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
        assert executed["outcome"] == "executed"
        assert executed["transaction"] == recorded.tx_hash, "the same nonce and fees, signed again to the same bytes"
        assert safe.nonce() == 1
        assert anvil_chain.w3.eth.get_transaction_count(executor) == nonce + 1


def test_execution_that_is_not_mined__is_not_offered_again(
    anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    words = ("proposal", "execute", "--config", str(agent.context.loaded_config.path))
    anvil_chain.node.rpc("evm_setAutomine", False)
    with monkeypatch.context() as patch:
        patch.setattr("agent.chain.sender.QuorumSender.send", dying("after the send"))
        with pytest.raises(KeyboardInterrupt):
            api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    output = in_process(capfd, monkeypatch, *words)
    assert mentions(output.out, "Sent in transaction 0x", "not mined yet")
    assert "It can be executed" not in output.out
    anvil_chain.mine()
    anvil_chain.node.rpc("evm_setAutomine", True)
    output = in_process(capfd, monkeypatch, *words)
    assert mentions(output.out, "Already executed in transaction 0x", f"Next: trimtab rebalance --config {words[-1]} --send")
    assert safe.nonce() == 1


def dying(moment: str) -> Callable[[Any, Any], None]:
    from agent.chain.sender import QuorumSender

    real = QuorumSender.send

    def send(self: Any, signed: Any) -> None:
        if moment == "after the send":
            real(self, signed)
        raise KeyboardInterrupt

    return send


def test_transaction_builder_file__is_the_proposed_call(
    scene: tuple[Agent, SafeWallet], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, safe = scene
    (intent,) = agent.context.store.journal.open_intents()
    document = api.export_proposal(agent)
    assert (document["version"], document["chainId"]) == ("1.0", "31337")
    assert document["meta"]["createdFromSafeAddress"] == safe.address
    assert document["transactions"] == [{"to": intent.tx.to, "value": "0", "data": intent.tx.data}]
    proposed = open_proposal(agent)
    assert mentions(
        document["meta"]["description"],
        f"Set nonce {proposed['nonce']}",
        proposed["safe_tx_hash"],
        "Executable until another call uses nonce 0",
    )
    exported = in_process(capfd, monkeypatch, "proposal", "export", "--config", str(agent.context.loaded_config.path))
    assert exported.json == document
    assert " ".join(document["meta"]["description"].split()) in " ".join(exported.err.split())
    stated = document["meta"].pop("checksum")
    assert stated == checksum(document)


def test_what_used_the_nonce_is_named(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    (intent,) = agent.context.store.journal.open_intents()
    rejects = UnsignedTx(anvil_chain.chain_id, 0, safe.address, 0, "0x", 0, None, None, 1)
    other = replace(rejects, to=accounts()[8].address)
    for tx, ending in ((intent.tx, "executed by somebody else in 0x"), (rejects, "rejected in 0x"), (other, "not executed: 0x")):
        before = anvil_chain.node.rpc("evm_snapshot")
        safe.execute({"safe_tx": safe_tx_fields(tx), "typed_data": typed_data(safe.address, tx)})
        assert open_proposal(agent)["ending"].startswith(ending)
        with pytest.raises(Refused, match="or says what else used the nonce"):
            sign_and_send(agent, FIRST)
        anvil_chain.node.rpc("evm_revert", before)


def test_a_call_that_would_fail_is_named_and_not_executed(anvil_chain: LocalChain, scene: tuple[Agent, SafeWallet]) -> None:
    """Once the allowance is there: the market moves away from the swap's minimums."""
    agent, safe = scene
    sign_and_send(agent, FIRST, SECOND)
    api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    swap = proposal(agent)
    assert swap["purpose"] == "swap"
    sign_and_send(agent, FIRST, SECOND)
    prices = anvil_chain.deployed_world.prices_usd
    anvil_chain.move_market({"WETH": prices["WETH"] * 9 / 10}, twap_follows=False)
    document = open_proposal(agent)
    assert (document["state"], bool(document["failure"])) == ("failing", True)
    with pytest.raises(Refused, match="would fail now"):
        api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    assert safe.nonce() == 1


def test_a_wallet_that_is_no_safe_has_no_owners(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, {"WETH": 10_000})
    with reopened_agent(anvil_chain, trusted_config(anvil_chain, tmp_path, PROPOSING, TWO)) as agent:
        proposal(agent)
        for act in (api.list_proposals, api.export_proposal, lambda path: api.collect_signatures(path, [])):
            with raises_field("wallet.safe", "no Safe"):
                act(agent)


def test_without_a_proposal_there_is_nothing_to_sign(anvil_chain: LocalChain, tmp_path: Path) -> None:
    _, loaded = safe_of(anvil_chain, tmp_path)
    with reopened_agent(anvil_chain, loaded) as agent:
        assert api.list_proposals(agent) == {"proposals": [], "held_up": ""}
        for act in (lambda: sign_and_send(agent, FIRST), lambda: api.export_proposal(agent), lambda: api.execute_proposal(agent, {})):
            with pytest.raises(Refused, match="no proposal waits"):
                act()
