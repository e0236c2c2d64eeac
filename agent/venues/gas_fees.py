"""Gas fees of transactions: from the quorum's header, below the owner's ceiling, with a bounded
tip; and those of replacements.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import Refused
from agent.model import Head, UnsignedTx, Verdict
from agent.signing.terms import (
    BUMP_DENOMINATOR,
    BUMP_NUMERATOR,
    GAS_PRICE_KEY,
    replacement_fee_wei,
)

RESERVED_BUMPS = 2
"""Fee steps of 12.5 % below the ceiling, reserved for a cancel and one bump of the cancel."""

MAX_GAS_MULTIPLE = 4
"""Maximum gas cost of a transaction after all bumps and cancels, as a multiple of its initial gas
cost; without limits.gas_price also the highest gas price that a node may demand, as a multiple of
the price that it refuses.
"""


@dataclass(frozen=True, slots=True)
class GasFees:
    """Prices in wei per unit of gas; fields are named as in UnsignedTx. The first two are for
    EIP-1559, the last is for legacy chains.
    """

    max_fee_wei: int | None
    max_priority_fee_wei: int | None
    gas_price_wei: int | None

    @property
    def max_gas_price_wei(self) -> int:
        """Maximum price of one unit of gas, wei."""
        return (self.gas_price_wei if self.max_fee_wei is None else self.max_fee_wei) or 0


def gas_fees(
    head: Head,
    priority_fee_wei: int,
    gas_price_wei: int,
    *,
    limit_wei: int | None,
    priority_cap_wei: int,
    limit_key: str = GAS_PRICE_KEY,
) -> GasFees:
    """Return fees for a transaction sent now.

    With a base fee (EIP-1559) the tip is the endpoint's `priority_fee_wei`, at most
    `priority_cap_wei`, and the max fee is 2 · base fee + tip: enough for five full blocks in a row.
    It is at most what leaves room for a cancel below `limit_wei`, or what the next block may need.
    Without a base fee it is the endpoint's `gas_price_wei`. `limit_wei` is the limit `limit_key`
    (None: off). Raises Refused if the current price is above it.
    """
    if head.base_fee_wei is None:
        _require_gas_price_within(gas_price_wei, limit_wei, limit_key)
        return GasFees(None, None, max(gas_price_wei, 1))
    tip_wei = max(0, min(priority_fee_wei, priority_cap_wei))
    _require_gas_price_within(head.base_fee_wei + tip_wei, limit_wei, limit_key)
    max_fee_wei = 2 * head.base_fee_wei + tip_wei
    if limit_wei is not None:
        next_fee_wei = replacement_fee_wei(head.base_fee_wei) + tip_wei  # a full block: 1/8 more
        max_fee_wei = min(max_fee_wei, limit_wei, max(next_fee_wei, cancellable_fee_wei(limit_wei)))
    return GasFees(max(1, max_fee_wei), tip_wei, None)


def cancellable_fee_wei(limit_wei: int) -> int:
    """Return the highest fee that a cancel and a bump of the cancel can replace up to `limit_wei`."""
    fee_wei = limit_wei
    for _ in range(RESERVED_BUMPS):
        fee_wei = fee_wei * BUMP_DENOMINATOR // BUMP_NUMERATOR
    return fee_wei


def replacement_fees(pending_tx: UnsignedTx) -> GasFees:
    """Return the fees that replace a pending transaction: each 12.5 % higher, rounded up."""
    pending_fees_wei = (
        pending_tx.max_fee_wei,
        pending_tx.max_priority_fee_wei,
        pending_tx.gas_price_wei,
    )
    return GasFees(
        *(None if fee_wei is None else replacement_fee_wei(fee_wei) for fee_wei in pending_fees_wei)
    )


def _require_gas_price_within(price_wei: int, limit_wei: int | None, limit_key: str) -> None:
    if limit_wei is not None and price_wei > limit_wei:
        verdict = Verdict("gas_price", f"{price_wei} wei", f"{limit_wei} wei", False)
        raise Refused(
            f"gas costs {price_wei} wei, above {limit_key} of {limit_wei} wei",
            (verdict,),
            "wait, or raise the limit",
        )
