#!/usr/bin/env python3
"""Compare hashes and signatures of random calls of a Safe with Safe's protocol-kit (contracts/safe-kit,
which npm installs first); print the figures as JSON, and exit with 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from eth_abi import decode as abi_decode
from eth_account import Account
from eth_utils.address import to_checksum_address

from agent.artifacts import NPM_INSTALL, run_node
from agent.chain.safe import SAFE_VERSIONS, SafeContract
from agent.model import UnsignedTx
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, encode_batch
from agent.signing.safe_tx import (
    ETH_SIGN_V,
    SAFE_TX_FIELDS,
    TYPED_DATA_V,
    safe_tx_fields,
    safe_tx_hash,
    signature_owner,
    typed_data,
)

REPO = Path(__file__).resolve().parents[2]
KIT = REPO / "contracts" / "safe-kit"
MAX_OWNERS = 5
MAX_DATA_BYTES = 600


def random_address(draw: random.Random) -> str:
    return str(to_checksum_address(draw.randbytes(20)))


def random_call(draw: random.Random, chain_id: int) -> UnsignedTx:
    """Return a plain call or a batch."""
    to = random_address(draw)
    data = "0x" + draw.randbytes(draw.randrange(MAX_DATA_BYTES)).hex()
    value_wei = draw.choice((0, draw.getrandbits(draw.randrange(1, 256))))
    if draw.random() < 0.5:
        calls = [
            BatchedCall(random_address(draw), draw.randbytes(draw.randrange(4, MAX_DATA_BYTES)))
            for _ in range(draw.randrange(1, 5))
        ]
        to = BATCH_CONTRACT
        data = encode_batch(calls)
        value_wei = 0
    return UnsignedTx(
        chain_id=chain_id,
        nonce=draw.randrange(10**6),
        to=to,
        value_wei=value_wei,
        data=data,
        gas=0,
        max_fee_wei=None,
        max_priority_fee_wei=None,
        gas_price_wei=None,
    )


def kit_question(safe: str, version: str, tx: UnsignedTx, keys: list[str]) -> dict[str, Any]:
    """Return what the kit is asked, with numbers as text."""
    fields = {name: str(value) for name, value in safe_tx_fields(tx).items()}
    fields["operation"] = int(fields["operation"])
    fields["nonce"] = tx.nonce
    return {"safe": safe, "version": version, "chainId": tx.chain_id, "tx": fields, "keys": keys}


def differences(question: dict[str, Any], tx: UnsignedTx, answer: dict[str, Any]) -> list[str]:
    """Return what differs: the hash, a signature of it, its owner, or their order in a call."""
    safe = question["safe"]
    own_signatures = {
        Account.from_key(key).address: bytes(
            Account.sign_typed_data(key, full_message=typed_data(safe, tx)).signature
        )
        for key in question["keys"]
    }
    execution = SafeContract(None, safe).execution_data(tx, own_signatures)  # type: ignore[arg-type]  # reads nothing
    argument_types = [*(abi_type for abi_type, _ in SAFE_TX_FIELDS[:-1]), "bytes"]
    packed = abi_decode(argument_types, bytes.fromhex(execution[10:]))[-1]
    pairs = {
        "hash": (safe_tx_hash(safe, tx), answer["hash"]),
        "owners": ([*own_signatures], answer["owners"]),
        "signatures": (
            ["0x" + bytes_.hex() for bytes_ in own_signatures.values()],
            answer["typed"],
        ),
        "packed": ("0x" + packed.hex(), answer["packed"]),
    }
    for kind, signatures, raised in (
        ("typed data", answer["typed"], 0),
        ("eth_sign", answer["messages"], ETH_SIGN_V[0] - TYPED_DATA_V[0]),
    ):
        signature_bytes = [bytes.fromhex(signature[2:]) for signature in signatures]
        signers = [
            signature_owner(safe, tx, bytes((*parts[:-1], parts[-1] + raised)))
            for parts in signature_bytes
        ]
        pairs[f"signer of {kind}"] = (signers, answer["owners"])
    return [name for name, (own, kits) in pairs.items() if own != kits]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    parsed = options.parse_args()
    run_node(NPM_INSTALL, KIT, program="npm")
    draw = random.Random(parsed.seed)
    calls = [random_call(draw, draw.choice((1, 10, 8453, 42161))) for _ in range(parsed.calls)]
    questions = [
        kit_question(
            random_address(draw),
            draw.choice(SAFE_VERSIONS),
            tx,
            ["0x" + draw.randbytes(32).hex() for _ in range(draw.randrange(1, MAX_OWNERS + 1))],
        )
        for tx in calls
    ]
    script = str(Path(__file__).with_suffix(".mjs"))
    answers = json.loads(run_node([script], KIT, json.dumps(questions)))
    different = {
        index: names
        for index, (question, tx, answer) in enumerate(zip(questions, calls, answers, strict=True))
        if (names := differences(question, tx, answer))
    }
    signature_count = sum(len(question["keys"]) for question in questions)
    print(
        json.dumps(
            {"calls": len(calls), "signatures": signature_count, "different": different}, indent=1
        )
    )
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
