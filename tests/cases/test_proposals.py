"""Whole rebalances that somebody else signs: proposed, signed, mined by anybody, settled from the chain (design 9, R6.1)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import ignore_progress
from agent.app.records import maintenance
from agent.app.start.doctor.checks import doctor
from agent.app.start.setup import NewConfig, write_new_config
from agent.chain.safe import SafeContract
from agent.errors import OperatorNeeded
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.world import WALLET_INDEX
from agent.localchain.world import dev_accounts as accounts
from agent.model import IntentKind, IntentState, UnsignedTx
from agent.signing.safe_tx import safe_tx_fields, safe_tx_hash, typed_data
from agent.units import format_time
from agent.venues import composer
from tests.support.agents import ROOMY, agent_config, fund, off_target, reopened_agent, require_rebalance, trusted_config, yes
from tests.support.builders import address
from tests.support.on_chain.proposals import PROPOSING, TWO, Signs, killer_at_event, proposal, rounds, safe_of
from tests.support.samples import slow
from tests.support.text import mentions, raises_code, raises_field
from tests.support.wallets import deploy_safe

OWNER = accounts()[WALLET_INDEX]


def by_owner(chain: LocalChain, **changes: object) -> Signs:
    """The wallet's owner signs what the file says, with fees of his own, and sends it; anvil mines after its answer."""

    def sign(document: dict[str, Any]) -> str:
        fields = {name: int(value, 16) if name not in ("to", "data") else value for name, value in document["transaction"].items()}
        fields["maxPriorityFeePerGas"] = fields["maxFeePerGas"] = 10 * fields["maxFeePerGas"]
        signed = Account.sign_transaction({**fields, **changes}, OWNER.private_key)
        sent = chain.w3.eth.send_raw_transaction(signed[0])
        return str(chain.w3.to_hex(chain.w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)["transactionHash"]))

    return sign


def require_settled(agent: Agent, proposals: list[dict[str, Any]], folder: Path) -> None:
    """Each proposal is final in the journal, by its receipt, and its file is gone."""
    intents = {intent.id: intent for intent in agent.context.store.journal.intents()}
    assert [proposal["purpose"] for proposal in proposals] == ["approve", "swap"]
    for safe_proposal in proposals:
        intent = intents[safe_proposal["id"]]
        assert intent.state is IntentState.FINAL
        assert intent.receipt is not None
        assert intent.receipt.status == 1
    assert not list((folder / "proposals").glob("*"))
    assert agent.context.store.budgets.history(agent.context.clock.now_s()).budgets.turnover_24h > 0


def test_owner_signing_elsewhere__is_settled_from_the_chain(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    loaded = trusted_config(chain, tmp_path, PROPOSING, TWO)
    with reopened_agent(chain, loaded) as agent:
        proposals = rounds(agent, by_owner(chain))
        require_settled(agent, proposals, tmp_path)
        assert max(off_target(chain, TWO).values()) < 50
        assert proposals[1]["plan"]["legs"]
        assert proposals[1]["from"] == OWNER.address
        gas = agent.context.store.budgets.history(agent.context.clock.now_s()).budgets.gas_24h_wei
        assert gas > 0, "the wallet paid the gas of what was sent for it"


def test_the_owners_of_a_safe_sign_and_anybody_executes(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The portfolio is the Safe's: real contracts, two signatures of three, executed by a stranger to it."""
    chain, safe, loaded = anvil_chain, *safe_of(anvil_chain, tmp_path)
    with reopened_agent(chain, loaded) as agent:
        proposals = rounds(agent, safe.execute)
        require_settled(agent, proposals, tmp_path)
        assert safe.nonce() == 2
        balances = [chain.balance(symbol, safe.address) for symbol in TWO]
        assert all(balances)
        assert chain.balance("USDC") == 0 == chain.balance("WETH")
        assert agent.context.store.budgets.history(agent.context.clock.now_s()).budgets.gas_24h_wei == 0, "others paid"
        router = chain.addresses.swap_router_02
        assert chain.token_contract("WETH").functions.allowance(safe.address, router).call() == 0, "approvals are exact"


def test_a_safe_is_deployed_without_a_warning(anvil_chain: LocalChain) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        deploy_safe(anvil_chain)


def test_the_hash_shown_is_the_one_that_the_safe_works_out(chain: LocalChain) -> None:
    safe = deploy_safe(chain, owners=(5,), threshold=1)
    contract = SafeContract(chain.transport, safe.address)
    contract.require_supported()
    for nonce, value, data in ((0, 0, "0x"), (1, 10**18, "0x1234"), (2**40, 2**200, "0x" + "ab" * 333)):
        tx = UnsignedTx(chain.chain_id, nonce, address(f"target {nonce}"), value, data, 0, None, None, 1)
        safe_hash = safe.contract.functions.getTransactionHash(
            tx.to, value, bytes.fromhex(data[2:]), 0, 0, 0, 0, "0x" + "0" * 40, "0x" + "0" * 40, nonce
        )
        assert safe_tx_hash(safe.address, tx) == "0x" + bytes(safe_hash.call()).hex() == contract.require_hash(tx)


def test_an_address_that_is_no_safe_is_refused_by_name(anvil_chain: LocalChain, tmp_path: Path) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, PROPOSING | {"wallet.safe": True}, TWO)
    with reopened_agent(anvil_chain, loaded) as agent, raises_field("wallet.safe", "Safe"):
        agent.resync_nonce()


def test_init_and_doctor__name_a_safe_taken_for_a_key(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "the wallet is a Safe of 2 of 3 owners"
    safe = deploy_safe(anvil_chain)
    fund(anvil_chain, {})
    loaded = trusted_config(anvil_chain, tmp_path, PROPOSING | {"wallet.address": safe.address}, TWO, vouched=False)
    (row,) = [check for check in doctor(loaded, [anvil_chain.transport])["checks"] if check["check"] == "wallet"]
    assert row["state"] == "fail"
    assert words in row["finding"]
    assert "--safe" in row["remedy"]
    endpoints = (("RPC_SAFE", "one"), ("RPC_SAFE_2", "two"))
    for variable, _ in endpoints:
        monkeypatch.setenv(variable, anvil_chain.url)
    new_config = NewConfig(wallet=safe.address, targets=(("WETH", "50%"), ("USDC", "50%")), endpoints=endpoints)
    (tmp_path / "key").mkdir()
    (tmp_path / "safe").mkdir()
    assert [
        text for text in write_new_config(tmp_path / "key" / "trimtab.toml", new_config)["warnings"] if words in text and "--safe" in text
    ]
    known = write_new_config(tmp_path / "safe" / "trimtab.toml", replace(new_config, is_safe=True))
    assert not [text for text in known["warnings"] if words in text]


def test_doctor__names_who_may_act_for_a_safe(anvil_chain: LocalChain, tmp_path: Path) -> None:
    safe, loaded = safe_of(anvil_chain, tmp_path, makes_batches=True)

    def wallet_row() -> tuple[str, str, list[str]]:
        (row,) = [check for check in doctor(loaded, [anvil_chain.transport])["checks"] if check["check"] == "wallet"]
        return row["state"], f"{row['finding']}; {row['remedy']}", row.get("addresses", [])

    def call(function: str, *arguments: object) -> None:
        data = safe.contract.encode_abi(function, list(arguments))
        tx = UnsignedTx(anvil_chain.chain_id, safe.nonce(), safe.address, 0, data, 0, None, None, 1)
        safe.execute({"safe_tx": safe_tx_fields(tx), "typed_data": typed_data(safe.address, tx)})

    owners = [accounts()[number].address for number in (5, 6, 7)]
    shortened_text = ", ".join(f"{owner[:6]}…{owner[-4:]}" for owner in owners)
    assert wallet_row() == ("ok", f"a Safe of 2 of 3 owners: {shortened_text}; ", owners)
    module = accounts()[8].address
    call("enableModule", module)
    state, text, addresses = wallet_row()
    assert (state, addresses) == ("warn", owners)
    assert mentions(text, shortened_text, f"without a signature: {module}", "disableModule")
    call("setFallbackHandler", f"0x{0:040x}")
    assert mentions(wallet_row()[1], "approvals are proposals of their own, since the Safe has no fallback handler that simulates")


def test_proposal__waits_until_it_expires_and_is_given_up(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    loaded = trusted_config(chain, tmp_path, PROPOSING, TWO)
    with reopened_agent(chain, loaded) as agent:
        first = proposal(agent)
        assert proposal(agent) == first, "nothing new is proposed while one waits"
        path = tmp_path / "proposals" / f"{first['id']}.json"
        path.unlink()
        assert proposal(agent) == first
        assert path.exists(), "what is lost is written again from the journal"
        chain.warp(1_801)
        second = proposal(agent)
        assert second["id"] != first["id"]
        assert second["transaction"]["nonce"] == first["transaction"]["nonce"]
        assert not path.exists()
        (given_up,) = [intent for intent in agent.context.store.journal.intents() if intent.id == first["id"]]
        assert given_up.state is IntentState.CANCELLED
        note = agent.context.store.journal.transitions(first["id"])[-1].note
        assert first["id"] in note
        assert "expired" in note
        assert "unsent" in note


def test_paused__status_names_the_pause_before_the_signature(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        proposal(agent)
        warnings = " ".join(agent.status().warnings)
        assert mentions(warnings, "awaits its signature until", ": have the transaction in its file signed and sent.")
        now_s = agent.context.clock.now_s()
        agent.context.store.pause_switch.pause("test", now_s)
        advice = f"end the pause (test, {format_time(now_s)}) with trimtab resume, then have the transaction"
        assert advice in " ".join(agent.status().warnings)


def test_an_expired_approval_that_was_sent_after_all_is_booked(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        late = proposal(agent)
        store = agent.context.store
        chain.warp(1_801)
        store.pause_switch.pause("so that nothing is proposed in its place", agent.context.clock.now_s())
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.REFUSED
        store.pause_switch.resume("", agent.context.clock.now_s())
        by_hash = by_owner(chain)(late)
        assert proposal(agent)["purpose"] == "swap", "the allowance is there"
        (booked,) = [intent for intent in store.journal.intents() if intent.id == late["id"]]
        assert (booked.state, booked.tx_hash) == (IntentState.FINAL, by_hash)
        assert store.journal.unbooked_intents() == ()


def test_other_transaction_in_its_place__is_named_with_both(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        shown_proposal = proposal(agent)
        other = by_owner(chain, to=accounts()[8].address, data="0x")(shown_proposal)
        with pytest.raises(OperatorNeeded) as caught:
            agent.rebalance(send=True, confirm=yes)
        assert other in str(caught.value)
        assert shown_proposal["id"] in str(caught.value)
        assert "trimtab adopt" in caught.value.remedy
        agent.resync_nonce()
        assert proposal(agent)["id"] != shown_proposal["id"]


def test_cancel_in_the_owners_wallet__frees_the_nonce_and_is_booked(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        shown_proposal = proposal(agent)
        cancel = by_owner(chain, to=OWNER.address, data="0x")(shown_proposal)
        renewed = proposal(agent)
        assert int(renewed["transaction"]["nonce"], 16) == int(shown_proposal["transaction"]["nonce"], 16) + 1
        store = agent.context.store
        (booked,) = [intent for intent in store.journal.intents() if intent.tx_hash]
        assert (booked.kind, booked.tx_hash, booked.state) == (IntentKind.CANCEL, cancel, IntentState.FINAL)
        assert booked.receipt is not None
        assert booked.receipt.gas_cost_wei > 0
        assert store.journal.unbooked_intents() == ()


def test_other_safe_call_in_its_place__is_reported(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain, safe, loaded = anvil_chain, *safe_of(anvil_chain, tmp_path)
    with reopened_agent(chain, loaded) as agent:
        shown_proposal = proposal(agent)
        tx = UnsignedTx(chain.chain_id, 0, OWNER.address, 0, "0x", 0, None, None, 1)
        safe.execute({"safe_tx": safe_tx_fields(tx), "typed_data": typed_data(safe.address, tx)})
        with raises_code(OperatorNeeded, "nonce_used") as caught:
            agent.rebalance(send=True, confirm=yes)
        assert shown_proposal["id"] in str(caught.value)


def test_safe_with_a_past__trades_once_its_owner_vouches(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """What its owners had it do today is told by no nonce of its account: no limit of a day begins empty."""
    chain, safe, loaded = anvil_chain, *safe_of(anvil_chain, tmp_path)
    tx = UnsignedTx(chain.chain_id, 0, OWNER.address, 0, "0x", 0, None, None, 1)
    safe.execute({"safe_tx": safe_tx_fields(tx), "typed_data": typed_data(safe.address, tx)})
    with reopened_agent(chain, loaded) as agent:
        refused = agent.rebalance(send=True, confirm=yes)
        assert refused.kind in (OutcomeKind.REFUSED, OutcomeKind.HALT)
        assert "last 24 h are not known" in refused.reason
        agent.context.store.balances.record_prior_day((), 1)
        assert proposal(agent)["safe_tx"]["nonce"] == "1"


def test_what_a_signer_here_would_refuse_is_never_shown(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same gate: a composer that pays a stranger proposes nothing, and nothing is written down."""
    fund(chain, {"WETH": 10_000})
    real = composer.tokens.encode_approve
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        monkeypatch.setattr(composer.tokens, "encode_approve", lambda spender, raw: real(accounts()[8].address, raw))
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert outcome.refusal_verdicts[0].guard == "signer.spender"
        assert agent.context.store.journal.intents() == ()
        assert not (tmp_path / "proposals").exists()


def test_nothing_is_proposed_without_send_or_while_paused(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        assert agent.rebalance().kind is OutcomeKind.PLANNED
        agent.context.store.pause_switch.pause("test", agent.context.clock.now_s())
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.REFUSED
        assert agent.context.store.journal.intents() == ()
        assert not (tmp_path / "proposals").exists()


def test_local_signing__waits_for_what_is_proposed_elsewhere(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 10_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        shown_proposal = proposal(agent)
    signing = agent_config(chain, tmp_path, ROOMY | {"execution.deadline": "30m"}, TWO)
    with reopened_agent(chain, signing) as agent:
        for act in (
            lambda: agent.rebalance(send=True, confirm=yes),
            lambda: maintenance.reconcile(agent),
            lambda: maintenance.cancel(agent),
        ):
            with raises_code(OperatorNeeded, "proposal_open") as caught:
                act()
            assert shown_proposal["id"] in str(caught.value)
        assert [intent.state for intent in agent.context.store.journal.intents()] == [IntentState.PLANNED]


@pytest.mark.parametrize("number", [1, *slow([4]), 6])
def test_process_ended_in_a_proposal__goes_on_from_the_journal(chain: LocalChain, tmp_path: Path, number: int) -> None:
    """Around the intent's first write, and around each move of its settling: signed, broadcast, mined."""
    fund(chain, {"WETH": 10_000})
    loaded = trusted_config(chain, tmp_path, PROPOSING, TWO)
    with reopened_agent(chain, loaded) as agent, pytest.raises((KeyboardInterrupt, AwaitingExternalSignature)):
        agent.rebalance(send=True, confirm=yes, progress=killer_at_event(number))
    with reopened_agent(chain, loaded) as agent:
        by_owner(chain)(proposal(agent))
        with pytest.raises(KeyboardInterrupt):
            agent.rebalance(send=True, confirm=yes, progress=killer_at_event(number))
    with reopened_agent(chain, loaded) as agent:
        proposals = rounds(agent, by_owner(chain))
        done = [intent for intent in agent.context.store.journal.intents() if intent.state is IntentState.FINAL]
        assert sorted(intent.kind.value for intent in done) == ["approve", "swap"]
        assert [transaction["purpose"] for transaction in proposals] == ["swap"]
        assert max(off_target(chain, TWO).values()) < 50


def test_what_is_proposed_is_taken_back_on_request(chain: LocalChain, tmp_path: Path) -> None:
    """By `trimtab cancel`; a hard pause does the same."""
    fund(chain, {"WETH": 10_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, PROPOSING, TWO)) as agent:
        for take_back in (lambda: maintenance.cancel(agent), lambda: abandoned(agent)):
            shown_proposal = proposal(agent)
            take_back()
            (given_up,) = [intent for intent in agent.context.store.journal.intents() if intent.id == shown_proposal["id"]]
            assert given_up.state is IntentState.CANCELLED
            assert not list((tmp_path / "proposals").iterdir())


def abandoned(agent: Agent) -> None:
    """What a hard pause does with what waits."""
    agent.context.store.pause_switch.pause("test", agent.context.clock.now_s(), hard=True)
    with wiring.open_transactor(agent.context, yes, ignore_progress) as transactor:
        assert len(transactor.executor.cancel_pending("the owner took it back")) == 1
