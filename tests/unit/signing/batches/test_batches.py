"""Batches of a Safe before the signer: exact approvals, then the trade of the granted plan, and no other byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi import encode as abi_encode
from eth_abi.packed import encode_packed
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.artifacts import npm_artifact
from agent.chain.tokens import encode_approve
from agent.localchain.safe import BATCH_ARTIFACT
from agent.model import IntentKind, UnsignedTx
from agent.signing.batches import BATCH_CODE_HASH, BATCH_CONTRACT, MULTI_SEND, BatchedCall, decode_batch
from agent.signing.calldata import UndecodableCalldata
from agent.signing.rules import LocalSigner
from agent.units import UINT256_MAX
from agent.venues.calldata import encode_multicall
from tests.support.signables import SIGNABLES, calldata, cut_or_lengthened, signs
from tests.support.signing import (
    APPROVE_GRANT,
    DEADLINE_S,
    KEY,
    NONCES,
    PLAN,
    ROUTER,
    STRANGER,
    SWAP,
    USDC,
    USDT,
    WALLET,
    WETH,
    assert_refused_by,
    signer,
)

BATCH = SIGNABLES["batch"]
SPENT_WETH = 12 * 10**17
SPENT_USDT = 500_000_000
APPROVE_WETH = (WETH, encode_approve(ROUTER, SPENT_WETH))
APPROVE_USDT = (USDT, encode_approve(ROUTER, SPENT_USDT))
TRADE = (ROUTER, SWAP.data)
OTHER_PLAN = replace(PLAN, legs=tuple(replace(leg, amount_in_raw=leg.amount_in_raw - 1) for leg in PLAN.legs))
TRANSFER = "0xa9059cbb" + abi_encode(["address", "uint256"], [STRANGER, 1]).hex()


def packed_call(to: str, data: str, operation: int = 0, value_wei: int = 0) -> bytes:
    """A call as MultiSendCallOnly documents it, by another encoder than ours."""
    call_bytes = bytes.fromhex(data[2:])
    types = ["uint8", "address", "uint256", "uint256", "bytes"]
    return bytes(encode_packed(types, [operation, to, value_wei, len(call_bytes), call_bytes]))


def batch_of(*parts: bytes) -> UnsignedTx:
    """The transaction with these parts one after another."""
    return replace(BATCH.tx, data="0x" + (MULTI_SEND + abi_encode(["bytes"], [b"".join(parts)])).hex())


def batch_of_calls(*calls: tuple[str, str]) -> UnsignedTx:
    return batch_of(*(packed_call(*pair) for pair in calls))


def test_batch_is_that_of_another_encoder() -> None:
    assert batch_of_calls(APPROVE_WETH, APPROVE_USDT, TRADE) == BATCH.tx
    assert signer(BATCH.rules).sign(BATCH.tx, BATCH.grant).hash
    expected = [BatchedCall(to, bytes.fromhex(data[2:])) for to, data in (APPROVE_WETH, APPROVE_USDT, TRADE)]
    assert list(decode_batch(BATCH.tx.data)) == expected


def test_batch_may_leave_out_an_approval_that_is_there() -> None:
    assert signer(BATCH.rules).sign(batch_of_calls(APPROVE_WETH, TRADE), BATCH.grant).hash


SHAPES: dict[str, tuple[UnsignedTx, str]] = {
    "delegate call inside": (batch_of(packed_call(*APPROVE_WETH, operation=1), packed_call(*TRADE)), "call"),
    "delegate call of the trade": (batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE, operation=1)), "call"),
    "value of an approval": (batch_of(packed_call(*APPROVE_WETH, value_wei=1), packed_call(*TRADE)), "call"),
    "value of the trade": (batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE, value_wei=1)), "call"),
    "value of the batch": (replace(BATCH.tx, value_wei=1), "value"),
    "byte after the calls": (batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE), b"\0"), "call"),
    "call cut short": (batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE)[:-1]), "call"),
    "nothing": (batch_of(), "call"),
    "token that is not pinned": (batch_of_calls((STRANGER, encode_approve(ROUTER, SPENT_WETH)), TRADE), "contract"),
    "token that the plan does not spend": (batch_of_calls((USDC, encode_approve(ROUTER, 1)), TRADE), "contract"),
    "trade of a stranger": (batch_of_calls((WETH, encode_approve(STRANGER, SPENT_WETH)), (STRANGER, SWAP.data)), "spender"),
    "trade of a stranger after good approvals": (batch_of_calls(APPROVE_WETH, (STRANGER, SWAP.data)), "spender"),
    "spender": (batch_of_calls((WETH, encode_approve(STRANGER, SPENT_WETH)), TRADE), "spender"),
    "one unit more": (batch_of_calls((WETH, encode_approve(ROUTER, SPENT_WETH + 1)), TRADE), "approval_amount"),
    "unlimited": (batch_of_calls((WETH, encode_approve(ROUTER, UINT256_MAX)), TRADE), "approval_amount"),
    "reset": (batch_of_calls((WETH, encode_approve(ROUTER, 0)), TRADE), "approval_amount"),
    "approval twice": (batch_of_calls(APPROVE_WETH, APPROVE_WETH, TRADE), "batch"),
    "no approval": (batch_of_calls(TRADE), "batch"),
    "no trade": (batch_of_calls(APPROVE_WETH, APPROVE_USDT), "spender"),
    "trade before its approval": (batch_of_calls(TRADE, APPROVE_WETH), "call"),
    "trade twice": (batch_of_calls(APPROVE_WETH, TRADE, TRADE), "call"),
    "transfer in place of an approval": (batch_of_calls((WETH, TRANSFER), TRADE), "call"),
    "transfer after the approvals": (batch_of_calls(APPROVE_WETH, (ROUTER, TRANSFER)), "call"),
    "swaps paid to a stranger": (
        batch_of_calls(APPROVE_WETH, APPROVE_USDT, (ROUTER, encode_multicall(PLAN, STRANGER, DEADLINE_S))),
        "recipient",
    ),
    "swaps of less": (batch_of_calls(APPROVE_WETH, APPROVE_USDT, (ROUTER, encode_multicall(OTHER_PLAN, WALLET, DEADLINE_S))), "amount_in"),
    "swaps without a deadline": (batch_of_calls(APPROVE_WETH, APPROVE_USDT, (ROUTER, encode_multicall(PLAN, WALLET, 2**32))), "deadline"),
    "batch in a batch": (batch_of_calls(APPROVE_WETH, (ROUTER, BATCH.tx.data)), "call"),
    "approval in place of the trade": (batch_of_calls(APPROVE_WETH, (ROUTER, APPROVE_USDT[1])), "call"),
    "another contract": (replace(BATCH.tx, to=ROUTER), "contract"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_batch_that_is_not_approvals_and_the_trade_is_refused(name: str) -> None:
    transaction, rule = SHAPES[name]
    assert_refused_by(rule, transaction, BATCH.grant, BATCH.rules)


def test_batch_of_a_wallet_that_makes_none_is_refused() -> None:
    assert_refused_by("contract", BATCH.tx, BATCH.grant)


@pytest.mark.parametrize("kind", [kind for kind in IntentKind if kind is not IntentKind.SWAP])
def test_batch_granted_as_another_kind_is_refused(kind: IntentKind) -> None:
    assert_refused_by("kind", BATCH.tx, replace(BATCH.grant, kind=kind), BATCH.rules)


def test_batch_on_the_grant_of_an_approval_is_refused() -> None:
    assert_refused_by("kind", BATCH.tx, APPROVE_GRANT, BATCH.rules)


def test_batch_without_a_plan_is_refused() -> None:
    assert_refused_by("contract", BATCH.tx, replace(BATCH.grant, plan=None), BATCH.rules)


@pytest.mark.parametrize("name", ["batch", "batch, rebalancer"])
def test_batch_cut_or_lengthened_is_refused(name: str) -> None:
    signable = SIGNABLES[name]
    gate = LocalSigner(KEY, signable.rules, lambda: NONCES)
    assert not any(signs(gate, transaction, signable.grant) for transaction in cut_or_lengthened(signable.tx))


def test_batch_another_encoding_of_the_same_calls_is_not_read() -> None:
    """Words moved behind the calls; a decoder that follows the offset would see the same batch."""
    batch_bytes = calldata(BATCH.tx)
    moved_words = MULTI_SEND + (64).to_bytes(32, "big") + bytes(32) + batch_bytes[36:]
    with pytest.raises(UndecodableCalldata):
        decode_batch("0x" + moved_words.hex())


def test_pinned_contract_is_that_of_the_npm_package() -> None:
    """CREATE2 by the Safe singleton factory, without salt (safe-deployments 1.4.1)."""
    artifact = npm_artifact(BATCH_ARTIFACT)
    factory = bytes.fromhex("914d7Fec6aaC8cd542e72Bca78B30650d45643d7")
    address_bytes = keccak(b"\xff" + factory + bytes(32) + keccak(hexstr=artifact.bytecode))[12:]
    assert to_checksum_address(address_bytes) == BATCH_CONTRACT
    assert "0x" + keccak(hexstr=artifact.runtime_code).hex() == BATCH_CODE_HASH
