"""Reasons for which nodes refuse transactions, by the text of their errors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from agent.chain.rpc import RpcFault


class RefusalKind(Enum):
    """Reason why a node refuses a transaction."""

    KNOWN = "known"
    NONCE_LOW = "nonce_too_low"
    UNDERPRICED = "underpriced"
    NO_FUNDS = "no_funds"
    BAD_GAS = "gas"
    UNFIT = "unfit"


_PHRASES: Mapping[RefusalKind, tuple[str, ...]] = {
    RefusalKind.KNOWN: (
        "already known",
        "alreadyknown",
        "known transaction",
        "already imported",
        "already in pool",
        "already exists",
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
        "feetoolow",
    ),
    RefusalKind.NO_FUNDS: (
        "insufficient funds",
        "insufficientfunds",
        "insufficient balance",
        "not enough funds",
        "does not have enough balance",
        "cannot afford",
    ),
    RefusalKind.BAD_GAS: (
        "intrinsic gas",
        "gas limit",
        "gas required exceeds",
        "insufficient gas",
        "out of gas",
    ),
    RefusalKind.UNFIT: (
        "invalid sender",
        "invalid signature",
        "invalid chain",
        "chain id",
        "not supported",
        "not allowed",
        "nonce too high",
    ),
}
"""Phrases in the messages of nodes. The first kind with a match applies."""
REMEDIES = {
    RefusalKind.UNDERPRICED: "raise limits.gas_price, or wait until gas is cheaper",
    RefusalKind.NO_FUNDS: "send the wallet native coin for gas",
    RefusalKind.BAD_GAS: "the plan needs more gas than the transaction allows; plan again",
    RefusalKind.UNFIT: "the node rejects the transaction's form; check chain_id and the endpoint",
}


def refusal_kind(fault: RpcFault) -> RefusalKind | None:
    """Return the kind of a node's refusal; None if its text matches none."""
    message = fault.message.lower()
    for kind, phrases in _PHRASES.items():
        if any(phrase in message for phrase in phrases):
            return kind
    return None
