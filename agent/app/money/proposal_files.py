"""The file of a proposal in words, for an owner of the Safe who has neither config nor store."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent import wiring
from agent.app.documents.past.step_history import proposal_end_text
from agent.app.documents.proposals import ProposalFileDocument
from agent.app.money.call_words import CallWords, config_names
from agent.app.money.transaction_builder import checksum
from agent.chain.safe import signing_json
from agent.config.build import allowed_payees
from agent.config.load import load_config
from agent.config.loaded import ConfigSource
from agent.config.networks import wrapped_native_of
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError, TrimtabError
from agent.execution.shortfall import proposal_reason
from agent.foreign_text import decode_text, read_json
from agent.model import Intent, IntentKind, UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, encode_batch, is_batch
from agent.signing.calldata import UndecodableCalldata, data_bytes
from agent.signing.safe_tx import safe_tx_hash
from agent.store.files.pause import KillSwitch
from agent.store.store import Store
from agent.units import UINT256_MAX, format_time
from agent.wiring.signed_proposals import signed_proposal_texts
from agent.wiring.waiting_proposals import (
    is_stopped_by_pause,
    open_proposal_intents,
    stored_fault,
)

_REMEDY = (
    "name a file that trimtab wrote to wallet.proposals for a Safe, or what trimtab proposal sign"
    " --export or trimtab proposal export prints; another file of the Transaction Builder has no nonce,"
    " and so no hash"
)
_NONCE_AND_HASH = re.compile(r"Set nonce ([0-9]{1,18}); the hash is then (0x[0-9a-f]{64})\.")
"""What a file for the Transaction Builder says in its description."""


@dataclass(frozen=True, slots=True)
class _WaitingProposal:
    """What the store says of a proposal that waits, as in ProposalFileDocument; empty without one."""

    id: str = ""
    description: str = ""
    why: str = ""
    fault: str = ""
    rejected: str = ""


class _ChangedFile(Exception):
    """A file for the Transaction Builder whose checksum is of another content."""


def read_proposal_file(path: Path, config: ConfigSource | None = None) -> ProposalFileDocument:
    """Return what the call in the file of a Safe's proposal, in its typed data alone, or in a file of
    `proposal export` does, and its hash, computed here; nothing else that the file says is repeated.
    `config` has names of addresses and tokens, and its store the proposals that wait. Raises
    ConfigError if its hash or typed data are of another call.
    """
    try:
        file_json: dict[str, Any] = read_json(decode_text(path.read_bytes()))
        is_builder_file = "transactions" in file_json
        if is_builder_file:
            file_json = _from_builder(file_json)
        is_typed_data = "primaryType" in file_json
        if is_typed_data:
            domain_json = file_json["domain"]
            file_json = {
                "safe": domain_json["verifyingContract"],
                "chain_id": domain_json["chainId"],
                "safe_tx": file_json["message"],
                "typed_data": file_json,
            }
        call_json = file_json["safe_tx"]
        safe = parse_address(str(file_json["safe"]), "safe")
        tx = UnsignedTx(
            _uint256(file_json["chain_id"]),
            _uint256(call_json["nonce"]),
            parse_address(str(call_json["to"]), "safe_tx.to"),
            _uint256(call_json["value"]),
            str(call_json["data"]),
            0,
            None,
            None,
            0,
        )
        document = signing_json(safe, tx)
        words = CallWords(safe, wrapped_native_of(tx.chain_id))
        lines = words.lines(tx)
        if is_batch(tx.to, tx.data) and tx.value_wei:
            raise ValueError("a batch sends no native coin")
    except _ChangedFile:
        raise ConfigError(
            f"{path}: its checksum is not that of its content: the file was changed",
            "do not sign what it holds; ask for the file again",
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", _REMEDY) from None
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, UndecodableCalldata):
        raise ConfigError(f"{path}: not the file of a Safe's proposal", _REMEDY) from None
    expected_json = {"typed_data": document["typed_data"]} if is_typed_data else document
    if is_builder_file:
        expected_json = {"safe_tx_hash": document["safe_tx_hash"]}
    if not expected_json.items() <= file_json.items():
        raise ConfigError(
            f"{path}: its hash or typed data are not those of its call, {document['safe_tx_hash']}",
            "sign neither; ask for the file again",
        )
    proposal_by_hash: dict[str, _WaitingProposal] | None = None
    ending_by_hash: dict[str, str] = {}
    config_chain_id = None if config is None else _chain_of_safe(config, safe)
    if config_chain_id not in (None, tx.chain_id):
        proposal_by_hash = {}
    elif config is not None:
        words, proposal_by_hash, ending_by_hash = _read_config(config, words, tx)
        lines = words.lines(tx)
    proposal = (proposal_by_hash or {}).get(document["safe_tx_hash"], _WaitingProposal())
    return {
        "safe": safe,
        "chain_id": tx.chain_id,
        "nonce": tx.nonce,
        "safe_tx_hash": document["safe_tx_hash"],
        "value_wei": str(tx.value_wei),
        "calls": lines,
        "waits": None if proposal_by_hash is None else bool(proposal.id),
        "config_chain_id": config_chain_id,
        "id": proposal.id,
        "description": proposal.description,
        "why": proposal.why,
        "fault": proposal.fault,
        "rejected": proposal.rejected,
        "ending": "" if proposal.id else ending_by_hash.get(document["safe_tx_hash"], ""),
    }


def _chain_of_safe(config: ConfigSource, safe: str) -> int | None:
    """Return the chain of a config whose wallet is this Safe; None for another or an unreadable one."""
    with suppress(TrimtabError):
        loaded_config = load_config(config).config
        if loaded_config.wallet.safe and loaded_config.wallet.address == safe:
            return loaded_config.chain.chain_id
    return None


def _read_config(
    config: ConfigSource, words: CallWords, tx: UnsignedTx
) -> tuple[CallWords, dict[str, _WaitingProposal] | None, dict[str, str]]:
    """Return the words with the names that a config of the Safe's chain and its store have, and by hash
    the proposals that wait there, and what became of others at the call's nonce; none if it has no
    store, cannot be read, or is of another Safe.
    """
    with suppress(TrimtabError):
        loaded_config = load_config(config)
        if loaded_config.config.chain.chain_id != tx.chain_id:
            return words, None, {}
        words = CallWords(
            words.safe,
            loaded_config.config.chain.wrapped_native,
            config_names(loaded_config.config),
        )
        if not wiring.has_store(loaded_config):
            return words, None, {}
        with wiring.open_store_offline(loaded_config, checks_and_migrates=False) as opened:
            store, kill_switch = opened
            ledger_tokens = store.ledger.ledger_tokens()
            payees = allowed_payees(loaded_config.config, store.requests.payout_addresses())
            proposal_by_hash = {
                safe_tx_hash(words.safe, intent.tx): _WaitingProposal(
                    intent.id,
                    intent.note,
                    proposal_reason(store, intent),
                    _fault_text(store, kill_switch, payees, intent),
                    _rejected_text(store, intent),
                )
                for intent in open_proposal_intents(store)
            }
            proposed_ids = store.proposals.proposal_blocks()
            ending_by_hash = {
                safe_tx_hash(words.safe, intent.tx): (
                    f"The proposal {intent.id} {proposal_end_text(store, intent)}"
                )
                for intent in store.journal.intents_at(tx.nonce)
                if intent.id in proposed_ids
            }
        tokens = () if ledger_tokens is None else ledger_tokens.tokens
        words = replace(words, token_by_address={token.address: token for token in tokens})
        wallet = loaded_config.config.wallet
        if wallet.safe and wallet.address == words.safe:
            return words, proposal_by_hash, ending_by_hash
    return words, None, {}


def _fault_text(
    store: Store, kill_switch: KillSwitch, payout_addresses: Collection[str], intent: Intent
) -> str:
    """Return why nobody should sign a proposal that waits, as a clause without its subject; "" if
    nothing in the store speaks against it.
    """
    newest = open_proposal_intents(store)[-1]
    if newest.id != intent.id:
        return f"waits for its rejection, {newest.id}"
    if intent.deadline_s is not None and time.time() >= intent.deadline_s:
        return f"has expired at {format_time(intent.deadline_s)}"
    if (fault := stored_fault(store, payout_addresses, intent)) is not None:
        return fault.text
    if is_stopped_by_pause(kill_switch, store.journal.grant(intent.id)):
        return f"is neither signed nor executed here while trimtab is paused ({kill_switch.reason_and_time()})"
    return ""


def _rejected_text(store: Store, intent: Intent) -> str:
    if intent.kind is not IntentKind.CANCEL:
        return ""
    return "; ".join(signed_proposal_texts(store))


def _uint256(json_value: Any) -> int:
    """Return a number of a file, as JSON or as text. Raises ValueError unless uint256 holds it."""
    number_text = str(json_value)
    if not re.fullmatch("[0-9]{1,78}", number_text) or int(number_text) > UINT256_MAX:
        raise ValueError("not a uint256")
    return int(number_text)


def _from_builder(builder_json: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a proposal's file from one for the Transaction Builder, with the nonce and
    hash of its description. Raises ValueError without them, _ChangedFile if its checksum is of another
    file.
    """
    meta_json = dict(builder_json["meta"])
    stated_checksum = meta_json.pop("checksum")
    nonce_and_hash = _NONCE_AND_HASH.search(str(meta_json["description"]))
    if stated_checksum != checksum({**builder_json, "meta": meta_json}):
        raise _ChangedFile
    if nonce_and_hash is None:
        raise ValueError("no nonce")
    calls_json = builder_json["transactions"]
    value_wei = sum(_uint256(call_json["value"]) for call_json in calls_json)
    call = BatchedCall(str(calls_json[0]["to"]), data_bytes(str(calls_json[0]["data"])))
    if len(calls_json) > 1:
        calls = [BatchedCall(str(item["to"]), data_bytes(str(item["data"]))) for item in calls_json]
        call = BatchedCall(BATCH_CONTRACT, data_bytes(encode_batch(calls)))
    safe = meta_json["createdFromSafeAddress"]
    nonce, safe_tx_hash = nonce_and_hash.groups()
    safe_tx_json = {"to": call.to, "value": value_wei, "data": call.data_hex, "nonce": nonce}
    return {
        "safe": safe,
        "chain_id": builder_json["chainId"],
        "safe_tx": safe_tx_json,
        "safe_tx_hash": safe_tx_hash,
    }
