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
from agent.model import IntentKind, LegPlace, UnsignedTx
from agent.signing.batches import BATCH_CODE_HASH, BATCH_CONTRACT, MULTI_SEND, BatchedCall, decode_batch
from agent.signing.calldata import UndecodableCalldata
from agent.units import UINT256_MAX
from agent.venues.calldata import encode_multicall
from tests.support.signables import SIGNABLES, calldata
from tests.support.signing import (
    APPROVE_GRANT,
    DEADLINE_S,
    PLAN,
    ROUTER,
    STRANGER,
    SWAP,
    USDC,
    USDT,
    WALLET,
    WBTC,
    WETH,
    assert_refused_by,
    leg,
    plan_of,
    signer,
)

BATCH = SIGNABLES["batch"]
SPENT_WETH = 12 * 10**17
SPENT_USDT = 500_000_000
APPROVE_WETH = (WETH, encode_approve(ROUTER, SPENT_WETH))
APPROVE_USDT = (USDT, encode_approve(ROUTER, SPENT_USDT))
TRADE = (ROUTER, SWAP.data)
OTHER_PLAN = replace(PLAN, legs=tuple(replace(swap, amount_in_raw=swap.amount_in_raw - 1) for swap in PLAN.legs))
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


def test_batch_approves_nothing_that_a_leg_hands_to_the_next() -> None:
    """The router spends WETH of its own there: an allowance of the wallet would remain."""
    hub_plan = plan_of(
        leg(WBTC, WETH, 800_000, 2 * 10**17, sink=LegPlace.ROUTER),
        leg(WETH, USDT, 2 * 10**17, 590_000_000, source=LegPlace.ROUTER),
    )
    transaction = batch_of_calls((WETH, encode_approve(ROUTER, 2 * 10**17)), (ROUTER, encode_multicall(hub_plan, WALLET, DEADLINE_S)))
    grant = replace(BATCH.grant, plan=hub_plan, floors_raw=tuple(swap.min_out_raw for swap in hub_plan.legs))

    assert_refused_by("contract", transaction, grant, BATCH.rules)


@pytest.mark.parametrize(
    ("rule", "transaction"),
    [
        pytest.param("call", batch_of(packed_call(*APPROVE_WETH, operation=1), packed_call(*TRADE)), id="delegate call inside"),
        pytest.param("call", batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE, operation=1)), id="delegate call of the trade"),
        pytest.param("call", batch_of(packed_call(*APPROVE_WETH, value_wei=1), packed_call(*TRADE)), id="value of an approval"),
        pytest.param("call", batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE, value_wei=1)), id="value of the trade"),
        pytest.param("value", replace(BATCH.tx, value_wei=1), id="value of the batch"),
        pytest.param("call", batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE), b"\0"), id="byte after the calls"),
        pytest.param("call", batch_of(packed_call(*APPROVE_WETH), packed_call(*TRADE)[:-1]), id="call cut short"),
        pytest.param("call", batch_of(), id="nothing"),
        pytest.param("contract", batch_of_calls((STRANGER, encode_approve(ROUTER, SPENT_WETH)), TRADE), id="token that is not pinned"),
        pytest.param("contract", batch_of_calls((USDC, encode_approve(ROUTER, 1)), TRADE), id="token that the plan does not spend"),
        pytest.param(
            "spender", batch_of_calls((WETH, encode_approve(STRANGER, SPENT_WETH)), (STRANGER, SWAP.data)), id="trade of a stranger"
        ),
        pytest.param("spender", batch_of_calls(APPROVE_WETH, (STRANGER, SWAP.data)), id="trade of a stranger after good approvals"),
        pytest.param("spender", batch_of_calls((WETH, encode_approve(STRANGER, SPENT_WETH)), TRADE), id="spender"),
        pytest.param("approval_amount", batch_of_calls((WETH, encode_approve(ROUTER, SPENT_WETH + 1)), TRADE), id="one unit more"),
        pytest.param("approval_amount", batch_of_calls((WETH, encode_approve(ROUTER, SPENT_WETH - 1)), TRADE), id="one unit less"),
        pytest.param(
            "approval_amount",
            batch_of_calls((WETH, encode_approve(ROUTER, PLAN.legs[0].amount_in_raw)), TRADE),
            id="the first of two legs",
        ),
        pytest.param("approval_amount", batch_of_calls((WETH, encode_approve(ROUTER, UINT256_MAX)), TRADE), id="unlimited"),
        pytest.param("approval_amount", batch_of_calls((WETH, encode_approve(ROUTER, 0)), TRADE), id="reset"),
        pytest.param("batch", batch_of_calls(APPROVE_WETH, APPROVE_WETH, TRADE), id="approval twice"),
        pytest.param("batch", batch_of_calls(TRADE), id="no approval"),
        pytest.param("spender", batch_of_calls(APPROVE_WETH, APPROVE_USDT), id="no trade"),
        pytest.param("call", batch_of_calls(TRADE, APPROVE_WETH), id="trade before its approval"),
        pytest.param("call", batch_of_calls(APPROVE_WETH, TRADE, TRADE), id="trade twice"),
        pytest.param("call", batch_of_calls((WETH, TRANSFER), TRADE), id="transfer in place of an approval"),
        pytest.param("call", batch_of_calls(APPROVE_WETH, (ROUTER, TRANSFER)), id="transfer after the approvals"),
        pytest.param(
            "recipient",
            batch_of_calls(APPROVE_WETH, APPROVE_USDT, (ROUTER, encode_multicall(PLAN, STRANGER, DEADLINE_S))),
            id="swaps paid to a stranger",
        ),
        pytest.param(
            "amount_in",
            batch_of_calls(APPROVE_WETH, APPROVE_USDT, (ROUTER, encode_multicall(OTHER_PLAN, WALLET, DEADLINE_S))),
            id="swaps of less",
        ),
        pytest.param(
            "deadline",
            batch_of_calls(APPROVE_WETH, APPROVE_USDT, (ROUTER, encode_multicall(PLAN, WALLET, 2**32))),
            id="swaps without a deadline",
        ),
        pytest.param("call", batch_of_calls(APPROVE_WETH, (ROUTER, BATCH.tx.data)), id="batch in a batch"),
        pytest.param("call", batch_of_calls(APPROVE_WETH, (ROUTER, APPROVE_USDT[1])), id="approval in place of the trade"),
        pytest.param("contract", replace(BATCH.tx, to=ROUTER), id="another contract"),
    ],
)
def test_batch_that_is_not_approvals_and_the_trade_is_refused(rule: str, transaction: UnsignedTx) -> None:
    assert_refused_by(rule, transaction, BATCH.grant, BATCH.rules)


def test_batch_has_at_most_64_calls() -> None:
    assert len(decode_batch(batch_of_calls(*[APPROVE_WETH] * 64).data)) == 64
    with pytest.raises(UndecodableCalldata):
        decode_batch(batch_of_calls(*[APPROVE_WETH] * 65).data)


def test_batch_of_a_wallet_that_makes_none_is_refused() -> None:
    assert_refused_by("contract", BATCH.tx, BATCH.grant)


@pytest.mark.parametrize("kind", [kind for kind in IntentKind if kind is not IntentKind.SWAP])
def test_batch_granted_as_another_kind_is_refused(kind: IntentKind) -> None:
    assert_refused_by("kind", BATCH.tx, replace(BATCH.grant, kind=kind), BATCH.rules)


def test_batch_on_the_grant_of_an_approval_is_refused() -> None:
    assert_refused_by("kind", BATCH.tx, APPROVE_GRANT, BATCH.rules)


def test_batch_without_a_plan_is_refused() -> None:
    assert_refused_by("contract", BATCH.tx, replace(BATCH.grant, plan=None), BATCH.rules)


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
