"""Why nodes of every make refuse a transaction: the kind of each message, by whole words."""

from __future__ import annotations

import pytest

from agent.chain.refusals import REMEDIES, RefusalKind, refusal_kind
from agent.chain.rpc import RpcFault

MESSAGES = {
    RefusalKind.KNOWN: ("already known", "AlreadyKnown", "Known transaction", "known transaction: 0xab", "ALREADY_EXISTS: already known",
                        "Pool(AlreadyImported)", "existing txn with same hash"),
    RefusalKind.NONCE_LOW: ("nonce too low: next nonce 8, tx nonce 7", "Nonce too low", "OldNonce, Current nonce: 8",
                            "NONCE_TOO_LOW", "the tx doesn't have the correct nonce. nonce has already been used"),
    RefusalKind.UNDERPRICED: ("replacement transaction underpriced", "FeeTooLowToCompete", "FeeTooLow, EffectivePriorityFeePerGas too low",
                              "Gas price below configured minimum gas price", "Gas price below current base fee", "ReplacementNotAllowed",
                              "transaction gas price below minimum: gas tip cap 1, minimum needed 2", "could not replace existing tx"),
    RefusalKind.NO_FUNDS: ("insufficient funds for gas * price + value", "Upfront cost exceeds account balance",
                           "InsufficientFunds, Balance is 0", "sender doesn't have enough funds to send tx"),
    RefusalKind.FEE_CAP: ("tx fee (1.23 ether) exceeds the configured cap (1.00 ether)", "Transaction fee cap exceeded",
                          "tx fee (1230000 wei) exceeds the configured cap (1000000 wei)"),
    RefusalKind.IN_FLIGHT: ("in-flight transaction limit reached for delegated accounts", "gapped-nonce tx from delegated accounts",
                            "account limit exceeded", "address already reserved", "DelegatorHasPendingTx", "NotCurrentNonceForDelegation"),
    RefusalKind.POOL_FULL: ("txpool is full", "pending sub-pool is full", "baseFee sub-pool is full"),
    RefusalKind.BAD_GAS: ("intrinsic gas too low", "exceeds block gas limit", "Intrinsic gas exceeds gas limit",
                          "transaction gas limit too high (cap: 16777216, tx: 20000000)"),
    RefusalKind.UNFIT: ("transaction type not supported", "unknown transaction type", "unsupported transaction type: 2",
                        "NotSupportedTxType", "Invalid transaction type", "fork supporting this transaction type is not activated yet",
                        "invalid sender",
                        "Wrong chainId", "sender is not an EOA", "oversized data", "max priority fee per gas higher than max fee per gas"),
}  # fmt: skip
ROWS = [pytest.param(message, kind, id=message) for kind, messages in MESSAGES.items() for message in messages]


@pytest.mark.parametrize(("message", "kind"), ROWS)
def test_a_message_of_a_node_has_its_kind_and_a_remedy(message: str, kind: RefusalKind) -> None:
    assert refusal_kind(RpcFault(-32000, message)) is kind
    assert refusal_kind(RpcFault(-32000, f"rpc error: {message.upper()}.")) is kind
    assert bool(REMEDIES.get(kind)) == (kind not in (RefusalKind.KNOWN, RefusalKind.NONCE_LOW))


@pytest.mark.parametrize(
    "message",
    [
        "unknown transaction",  # a whole word longer than "known transaction"
        "already knowns",
        "nonce too lower",
        "underpricedness",
        "not supporteds",
        "internal error",
        "Filtered",
    ],
)
def test_a_part_of_a_word_is_no_phrase(message: str) -> None:
    assert refusal_kind(RpcFault(-32000, message)) is None
