"""Why nodes of every make refuse a transaction: the kind of each message, by whole words."""

from __future__ import annotations

import pytest

from agent.chain.refusals import REMEDIES, RefusalKind, is_revert, refusal_kind
from agent.chain.rpc import RpcFault

MESSAGES = {
    RefusalKind.KNOWN: ("already known", "AlreadyKnown", "Known transaction", "known transaction: 0xab", "ALREADY_EXISTS: already known",
                        "Pool(AlreadyImported)", "existing txn with same hash", "transaction was already imported", "already in pool",
                        "tx already exists in cache", "transaction already exists"),
    RefusalKind.NONCE_LOW: ("nonce too low: next nonce 8, tx nonce 7", "Nonce too low", "OldNonce, Current nonce: 8",
                            "NONCE_TOO_LOW", "the tx doesn't have the correct nonce. nonce has already been used",
                            "Transaction nonce is too low. Try incrementing the nonce.", "old nonce", "invalid transaction nonce"),
    RefusalKind.UNDERPRICED: ("replacement transaction underpriced", "FeeTooLowToCompete", "FeeTooLow, EffectivePriorityFeePerGas too low",
                              "Gas price below configured minimum gas price", "Gas price below current base fee", "ReplacementNotAllowed",
                              "transaction gas price below minimum: gas tip cap 1, minimum needed 2", "could not replace existing tx",
                              "tx with nonce 5 already exists: replacement transaction underpriced",
                              "fee too low", "max fee per gas less than block base fee: address 0xab", "max fee per gas below base fee",
                              "max fee per gas is lower than block's base fee", "gas price too low",
                              "gas price '218' is below configured minimum gas price '1140'"),
    RefusalKind.NO_FUNDS: ("insufficient funds for gas * price + value", "Upfront cost exceeds account balance",
                           "InsufficientFunds, Balance is 0", "sender doesn't have enough funds to send tx",
                           "insufficient balance for transfer", "not enough funds", "sender does not have enough balance",
                           "sender cannot afford txn gas", "transaction would cause overdraft"),
    RefusalKind.FEE_CAP: ("tx fee (1.23 ether) exceeds the configured cap (1.00 ether)", "Transaction fee cap exceeded",
                          "tx fee (1230000 wei) exceeds the configured cap (1000000 wei)", "transaction fee exceeds cap"),
    RefusalKind.IN_FLIGHT: ("in-flight transaction limit reached for delegated accounts", "gapped-nonce tx from delegated accounts",
                            "account limit exceeded", "address already reserved", "DelegatorHasPendingTx", "NotCurrentNonceForDelegation",
                            "authority already reserved", "PendingTxsOfConflictingType", "delegation nonce gap",
                            "delegation authority has pending transaction", "pending transaction type conflict", "spammer",
                            "rejected due to 0xab being identified as a spammer"),
    RefusalKind.POOL_FULL: ("txpool is full", "pending sub-pool is full", "baseFee sub-pool is full", "transaction pool is full"),
    RefusalKind.GAS_ABOVE_CAP: ("exceeds block gas limit", "transaction gas limit too high (cap: 16777216, tx: 20000000)",
                                "Transaction gas limit exceeds block gas limit",
                                "transaction gas limit (20000000) is greater than the cap (16777216)", "gas limit is too high",
                                "gas limit reached", "exceeds max transaction gas limit"),
    RefusalKind.BAD_GAS: ("intrinsic gas too low", "Intrinsic gas exceeds gas limit", "gas required exceeds allowance (21000)",
                          "insufficient gas", "out of gas", "IntrinsicGas"),
    RefusalKind.NONCE_GAP: ("nonce too high", "nonce gap", "NonceGap", "nonce too far in future",
                            "Transaction nonce is too distant from current sender nonce", "future transaction tries to replace pending"),
    RefusalKind.UNFIT: ("transaction type not supported", "unknown transaction type", "unsupported transaction type: 2",
                        "NotSupportedTxType", "Invalid transaction type", "fork supporting this transaction type is not activated yet",
                        "invalid sender",
                        "Wrong chainId", "sender is not an EOA", "oversized data", "max priority fee per gas higher than max fee per gas",
                        "invalid signature", "invalid chain", "chain ID does not match", "wrong chain", "unsupported tx type: 3",
                        "unknown tx type", "transaction type is not activated", "no fork supporting this transaction type",
                        "transaction type not allowed", "not authorized to send transactions", "sender not eoa",
                        "max priority fee exceeds max fee per gas", "transaction too large", "RLPTooLong", "initcode too large",
                        "max initcode size exceeded", "GasUintOverflow", "transaction cost overflow", "transaction invalid",
                        "failed to recover sender", "negative value"),
}  # fmt: skip
ROWS = [pytest.param(message, kind, id=message) for kind, messages in MESSAGES.items() for message in messages]


@pytest.mark.parametrize(("message", "kind"), ROWS)
def test_a_message_of_a_node_has_its_kind_and_a_remedy(message: str, kind: RefusalKind) -> None:
    assert refusal_kind(RpcFault(-32000, message)) is kind
    assert refusal_kind(RpcFault(-32000, f"rpc error: {message.upper()}.")) is kind
    assert bool(REMEDIES.get(kind)) == (kind not in (RefusalKind.KNOWN, RefusalKind.NONCE_LOW))


@pytest.mark.parametrize(
    ("fault", "reverted"),
    [
        pytest.param(RpcFault(-32000, "server error", "0x"), False, id="no data"),
        pytest.param(RpcFault(-32000, "server error", "0x08"), True, id="data"),
        pytest.param(RpcFault(3, "server error"), True, id="code of geth"),
        pytest.param(RpcFault(-32000, "execution reverted"), True, id="message"),
        pytest.param(RpcFault(-32000, "EVM error: database error"), False, id="fault of the node"),
    ],
)
def test_revert_is_known_by_code_data_or_message(fault: RpcFault, reverted: bool) -> None:
    assert is_revert(fault) is reverted


@pytest.mark.parametrize(
    "message",
    [
        "unknown transaction",  # a whole word longer than "known transaction"
        "already knowns",
        "account already exists",
        "nonce too lower",
        "underpricedness",
        "not supporteds",
        "internal error",
        "Filtered",
    ],
)
def test_a_part_of_a_word_is_no_phrase(message: str) -> None:
    assert refusal_kind(RpcFault(-32000, message)) is None
