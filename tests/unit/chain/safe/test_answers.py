"""What stands where a Safe should: answers that no Safe returns are errors of ours, never a guess."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from agent.chain.endpoints import EndpointPool
from agent.chain.quorum import NoQuorum
from agent.chain.rpc import RpcFault
from agent.chain.safe import SafeContract, SafeOwnersSigner
from agent.chain.sender import NodeSender
from agent.errors import ErrorCode, PassingFault, Retryable
from tests.support.fakes.transport import ScriptedTransport
from tests.support.signing import NONCES, RULES, WALLET, tx
from tests.support.text import raises_code, raises_field

WORD = "0x" + (5).to_bytes(32, "big").hex()


@pytest.mark.parametrize("answer", ["0x", "0x05", None, 7, "0xzz"])
def test_a_nonce_that_is_none_is_an_error_of_ours(answer: object) -> None:
    """Found by fuzzing: an account without code answers 0x."""
    with raises_code(Retryable, "answer"):
        SafeContract(ScriptedTransport(eth_call=answer), WALLET).nonce()
    with raises_code(Retryable, "answer"):
        SafeContract(ScriptedTransport(eth_call=answer), WALLET).require_hash(tx(WALLET, "0x"))


@pytest.mark.parametrize("answer", ["0x", "0x05", WORD, RpcFault(3, "execution reverted"), RpcFault(-32015, "VM execution error")])
def test_wallet_without_version__is_no_safe(answer: object) -> None:
    with raises_field("wallet.safe", "not a Safe"):
        SafeContract(ScriptedTransport(eth_call=answer), WALLET).require_supported()


UNREAD = [
    RpcFault(-32005, "limit exceeded"),
    RpcFault(-32000, "header not found"),
    Retryable("timed out", code=ErrorCode.TIMEOUT),
    NoQuorum("endpoints disagree", code=ErrorCode.QUORUM),
    PassingFault("no access", code=ErrorCode.ACCESS),
    None,
    "0xzz",
]
"""Answers that say nothing of a contract."""


@pytest.mark.parametrize("answer", UNREAD, ids=str)
def test_version__that_cannot_be_read_is_no_fault_of_the_config(answer: object) -> None:
    with pytest.raises((Retryable, PassingFault)):
        SafeContract(ScriptedTransport(eth_call=answer), WALLET).require_supported()


def test_a_nonce_is_read() -> None:
    assert SafeContract(ScriptedTransport(eth_call=WORD), WALLET).nonce() == 5


def test_wallet_of_53_bit_numbers__signs_what_is_shown() -> None:
    """Wallets are JavaScript: a whole number of JSON beyond that is rounded, and its hash is another."""
    call = replace(tx(WALLET, "0x"), value_wei=1_234_567_890_123_456_789)
    node = ScriptedTransport()
    owners = SafeOwnersSigner(RULES, lambda: NONCES, EndpointPool([node], 1), NodeSender(node), SafeContract(node, WALLET))
    document = json.loads(json.dumps(owners.signing_json(call)), parse_int=lambda digits: int(float(digits)))
    message = encode_typed_data(full_message=document["typed_data"])
    assert "0x" + keccak(b"\x19" + message.version + message.header + message.body).hex() == document["safe_tx_hash"]
