"""Reasons for which nodes refuse transactions, and whether a call reverted, by the text of their
errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from agent.chain.rpc import RpcFault, Transport, require_result


class RefusalKind(Enum):
    """Reason why a node refuses a transaction."""

    KNOWN = "known"
    NONCE_LOW = "nonce_too_low"
    UNDERPRICED = "underpriced"
    NO_FUNDS = "no_funds"
    FEE_CAP = "fee_cap"
    """The node's own cap on the fee of a transaction."""
    IN_FLIGHT = "in_flight"
    """The node's limit on pending transactions of one wallet, one for a delegated account."""
    POOL_FULL = "pool_full"
    GAS_ABOVE_CAP = "gas_cap"
    """The chain's own cap on the gas of a transaction (EIP-7825) or of a block."""
    BAD_GAS = "gas"
    NONCE_GAP = "nonce_gap"
    UNFIT = "unfit"


_PHRASES: Mapping[RefusalKind, tuple[str, ...]] = {
    RefusalKind.KNOWN: (
        "already known",
        "alreadyknown",
        "known transaction",
        "already imported",
        "alreadyimported",
        "already in pool",
        "tx already exists",
        "transaction already exists",
        "existing txn with same hash",
    ),
    RefusalKind.NONCE_LOW: (
        "nonce too low",
        "nonce is too low",
        "oldnonce",
        "old nonce",
        "invalid transaction nonce",
        "nonce has already been used",
    ),
    RefusalKind.UNDERPRICED: (
        "underpriced",
        "fee too low",
        "less than block base fee",
        "below base fee",
        "lower than block's base fee",
        "gas price too low",
        "gas price below",
        "below configured minimum gas price",
        "feetoolow",
        "feetoolowtocompete",
        "replacementnotallowed",
        "could not replace existing tx",
    ),
    RefusalKind.NO_FUNDS: (
        "insufficient funds",
        "insufficientfunds",
        "insufficient balance",
        "not enough funds",
        "does not have enough balance",
        "cannot afford",
        "exceeds account balance",
        "enough funds to send tx",
        "would cause overdraft",
    ),
    RefusalKind.FEE_CAP: (
        "exceeds the configured cap",
        "fee cap exceeded",
        "fee exceeds cap",
    ),
    RefusalKind.IN_FLIGHT: (
        "in-flight transaction limit",
        "gapped-nonce tx from delegated accounts",
        "account limit exceeded",
        "address already reserved",
        "authority already reserved",
        "delegatorhaspendingtx",
        "notcurrentnoncefordelegation",
        "pendingtxsofconflictingtype",
        "delegation authority has pending transaction",
        "delegation nonce gap",
        "pending transaction type conflict",
        "spammer",
    ),
    RefusalKind.POOL_FULL: (
        "txpool is full",
        "transaction pool is full",
        "sub-pool is full",
    ),
    RefusalKind.GAS_ABOVE_CAP: (
        "exceeds block gas limit",
        "exceeds the block gas limit",
        "gas limit too high",
        "gas limit is too high",
        "gas limit reached",
        "exceeds max transaction gas limit",
        "is greater than the cap",
    ),
    RefusalKind.BAD_GAS: (
        "intrinsic gas",
        "intrinsicgas",
        "gas limit",
        "gas required exceeds",
        "insufficient gas",
        "out of gas",
    ),
    RefusalKind.NONCE_GAP: (
        "nonce too high",
        "nonce gap",
        "noncegap",
        "nonce too far in future",
        "too distant from current sender nonce",
        "future transaction tries to replace pending",
    ),
    RefusalKind.UNFIT: (
        "invalid sender",
        "invalid signature",
        "invalid chain",
        "chain id",
        "wrong chainid",
        "wrong chain",
        "not supported",
        "notsupportedtxtype",
        "unsupported transaction type",
        "unsupported tx type",
        "unknown transaction type",
        "unknown tx type",
        "invalid transaction type",
        "transaction type is not activated",
        "supporting this transaction type",
        "not allowed",
        "not authorized to send",
        "not an eoa",
        "not eoa",
        "oversized data",
        "transaction too large",
        "rlptoolong",
        "initcode",
        "gasuintoverflow",
        "transaction cost overflow",
        "transaction invalid",
        "failed to recover sender",
        "negative value",
        "higher than max fee per gas",
        "exceeds max fee per gas",
    ),
}
"""Phrases in the messages of geth, erigon, nethermind, besu, reth and their copies, as whole words:
"unknown transaction type" is no "known transaction". The first kind with a match applies.
"""
GAS_REFUSALS = frozenset({RefusalKind.GAS_ABOVE_CAP, RefusalKind.BAD_GAS})
"""Kinds of which a call without a gas limit, run with all that there is, has burned it."""
REMEDIES = {
    RefusalKind.UNDERPRICED: "raise limits.gas_price, or wait until gas is cheaper",
    RefusalKind.NO_FUNDS: "send the wallet native coin for gas",
    RefusalKind.FEE_CAP: "lower limits.gas_price, or use an endpoint without this cap on fees",
    RefusalKind.IN_FLIGHT: "wait until the wallet's other transactions are mined: nodes take one at a"
    " time from a delegated account (EIP-7702)",
    RefusalKind.POOL_FULL: "wait, or use another endpoint",
    RefusalKind.GAS_ABOVE_CAP: "the chain takes no transaction of this much gas; lower"
    " limits.turnover, so that a plan has fewer swaps",
    RefusalKind.BAD_GAS: "the plan needs more gas than the transaction allows; plan again",
    RefusalKind.NONCE_GAP: "the endpoint does not know the wallet's earlier transactions yet; wait, or"
    " use another endpoint",
    RefusalKind.UNFIT: "the node rejects the transaction's form, such as its type; check chain_id and"
    " the endpoint",
}


def refusal_kind(fault: RpcFault) -> RefusalKind | None:
    """Return the kind of a node's refusal; None if its text matches none."""
    message_words = _words(fault.message)
    for kind, phrases in _PHRASES.items():
        if any(_words(phrase) in message_words for phrase in phrases):
            return kind
    return None


_REVERTED_CODES = (3, -32015)
"""Codes of a call that ran and failed: of geth, and of Parity, Nethermind and Gnosis."""
_REVERT_PHRASES = (
    "revert",
    "invalid opcode",
    "out of gas",
    "outofgas",
    "memoryoog",
    "memorylimitoog",
    "precompileoog",
    "invalidoperandoog",
    "invalid jump",
    "stack underflow",
    "stack limit",
    "write protection",
    "return data out of bounds",
    "gas uint64 overflow",
    "evm error",
)
"""Texts of geth (core/vm/errors.go) and of nodes on revm, "EVM error" and its name."""
_DATABASE_PHRASE = "database"
"""Word of revm's errors that are the node's own."""


def is_revert(fault: RpcFault) -> bool:
    """Return whether the call ran and failed. The texts differ between nodes."""
    message = fault.message.lower()
    return (
        fault.code in _REVERTED_CODES
        or fault.revert_data not in ("", "0x")
        or (
            any(phrase in message for phrase in _REVERT_PHRASES) and _DATABASE_PHRASE not in message
        )
    )


def has_reverted(transport: Transport, answer: object, call_name: str) -> bool:
    """Return whether a call reverted. Raises CallFailed if the node could not run it, which says
    nothing about the contract.
    """
    if isinstance(answer, RpcFault) and is_revert(answer):
        return True
    require_result(transport.name, call_name, answer)
    return False


def _words(text: str) -> str:
    """Return the words of a text in lower case, with a space around each."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
