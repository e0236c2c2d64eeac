"""The file of a proposal in words, for an owner of the Safe who has neither config nor store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from agent.app.documents.proposals import ProposalFileDocument
from agent.chain.safe import signing_json
from agent.config.tables.fields import parse_address
from agent.errors import ConfigError, kind_words
from agent.foreign_text import decode_text, read_json
from agent.model import UnsignedTx
from agent.signing.batches import BatchedCall, decode_batch, is_batch
from agent.signing.calldata import (
    Multicall,
    RebalanceCall,
    UndecodableCalldata,
    data_bytes,
    decode,
)
from agent.signing.swap_rules import ROUTER_ITSELF

_REMEDY = (
    "name a file that trimtab wrote to wallet.proposals for a Safe, or what trimtab proposal sign"
    " --export prints; a file of the Transaction Builder has no nonce, and so no hash"
)


def read_proposal_file(path: Path) -> ProposalFileDocument:
    """Return what the call in the file of a Safe's proposal, or in its typed data alone, does, and its
    hash, computed here; nothing else that the file says is repeated. Raises ConfigError if its hash or typed data are of another
    call.
    """
    try:
        file_json: dict[str, Any] = read_json(decode_text(path.read_bytes()))
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
            int(file_json["chain_id"]),
            int(call_json["nonce"]),
            parse_address(str(call_json["to"]), "safe_tx.to"),
            int(call_json["value"]),
            str(call_json["data"]),
            0,
            None,
            None,
            0,
        )
        document = signing_json(safe, tx)
        calls = [BatchedCall(tx.to, data_bytes(tx.data))]
        batch_lines = []
        if is_batch(tx.to, tx.data):
            calls = list(decode_batch(tx.data))
            batch_lines = [
                f"{tx.to}: delegate call of MultiSendCallOnly, which makes the next {len(calls)} calls,"
                " all or none"
            ]
            if tx.value_wei:
                raise ValueError("a batch sends no native coin")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", _REMEDY) from None
    except (ValueError, TypeError, KeyError, OverflowError, UndecodableCalldata):
        raise ConfigError(f"{path}: not the file of a Safe's proposal", _REMEDY) from None
    expected_json = {"typed_data": document["typed_data"]} if is_typed_data else document
    if not expected_json.items() <= file_json.items():
        raise ConfigError(
            f"{path}: its hash or typed data are not those of its call, {document['safe_tx_hash']}",
            "sign neither; ask for the file again",
        )
    return {
        "safe": safe,
        "chain_id": tx.chain_id,
        "nonce": tx.nonce,
        "safe_tx_hash": document["safe_tx_hash"],
        "value_wei": str(tx.value_wei),
        "calls": [
            *batch_lines,
            *(line for call in calls for line in _lines(call, tx.value_wei, safe)),
        ],
    }


def _lines(call: BatchedCall, value_wei: int, safe: str) -> Iterator[str]:
    """Yield what a call of the Safe does, amounts in base units, as the contract reads its calldata."""
    if value_wei:
        yield f"{call.to}: gets {value_wei} wei of native coin"
    elif not call.data and call.to == safe:
        yield f"{call.to}: empty call of the Safe itself, which changes nothing but its nonce"
    elif not call.data:
        yield f"{call.to}: call without data, which runs a contract's fallback function"
    if not call.data:
        return
    try:
        decoded_call: Any = decode(call.data)
    except UndecodableCalldata:
        own_text = ""
        if call.to == safe:
            own_text = " of the Safe itself, which can change owners, threshold and modules"
        yield f"{call.to}: unknown function {call.data_hex[:10]}{own_text}"
        return
    parts = {Multicall: "calls", RebalanceCall: "legs"}
    part_name = parts.get(type(decoded_call), "")
    yield f"{call.to}: {_words(decoded_call, part_name)}"
    for part in getattr(decoded_call, part_name, ()):
        words = _words(part)
        if isinstance(decoded_call, Multicall):
            words = words.replace(f"recipient {ROUTER_ITSELF}", "recipient the router itself")
        yield f"  {words}"


def _words(value: Any, omitted_field: str = "") -> str:
    field_texts = [
        f"{field.name} {getattr(value, field.name)}"
        for field in fields(value)
        if field.name != omitted_field
    ]
    return f"{kind_words(type(value))} {', '.join(field_texts)}"
