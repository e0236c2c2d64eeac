"""Files of the Transaction Builder of the Safe's website, with their checksum.

Form and checksum follow apps/tx-builder of safe-react-apps (src/typings/models.ts, src/lib/checksum.ts):
without the checksum, the site warns that the file was changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eth_utils.crypto import keccak

from agent.app.documents.proposals import ProposalDocument
from agent.figures import reader_text
from agent.model import Intent
from agent.signing.batches import BatchedCall
from agent.units import decimal_text, format_time


def builder_file(
    intent: Intent, document: ProposalDocument, calls: Sequence[BatchedCall]
) -> dict[str, Any]:
    """Return the calls of a proposal as a file; its description has what the file has no place for:
    reason, nonce, hash, until when the chain accepts it, and minimums.
    """
    until_s = document["executable_until_s"]
    until_text = f"another call uses nonce {intent.tx.nonce}"
    if until_s is not None:
        until_text = format_time(until_s)
    minimums_text = "".join(
        f" At least {decimal_text(int(leg['min_out_raw']), leg['decimals_out'])} {leg['token_out']} for"
        f" {decimal_text(int(leg['amount_in_raw']), leg['decimals_in'])} {leg['token_in']}."
        for leg in document["legs"]
    )
    why_text = f" Why: {reader_text(document['why'])}." if document["why"] else ""
    builder_json: dict[str, Any] = {
        "version": "1.0",
        "chainId": str(intent.tx.chain_id),
        "createdAt": intent.created_s * 1000,
        "meta": {
            "name": f"trimtab {intent.id}",
            "description": f"{intent.note}.{why_text} Set nonce {intent.tx.nonce}; the hash is then"
            f" {document['safe_tx_hash']}."
            f" Executable until {until_text}.{minimums_text}",
            "createdFromSafeAddress": document["safe"],
        },
        "transactions": [
            {"to": call.to, "value": str(intent.tx.value_wei), "data": call.data_hex}
            for call in calls
        ],
    }
    builder_json["meta"]["checksum"] = checksum(builder_json)
    return builder_json


def checksum(builder_json: Mapping[str, Any]) -> str:
    """Return the checksum of a file without one, 0x-hex; its name does not count."""
    unnamed_json = {**builder_json, "meta": {**builder_json["meta"], "name": None}}
    return "0x" + keccak(text=_serialized(unnamed_json)).hex()


def _serialized(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_serialized, value))}]"
    if isinstance(value, dict):
        keys = sorted(value)
        values_text = "".join(f"{_serialized(value[key])}," for key in keys)
        return f"{{{_json_text(keys)}{values_text}}}"
    return _json_text(value)


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
