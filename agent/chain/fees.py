"""Gas fees of a transaction: from the agreed header, under the owner's ceiling, with a bounded
tip.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import Refused
from agent.model import Head, Verdict
from agent.signing.base import replacement_fee_wei


@dataclass(frozen=True, slots=True)
class GasFees:
    """Wei per gas, named as in UnsignedTx: the first two for EIP-1559, the last for legacy
    chains.
    """

    max_fee_wei: int | None
    max_priority_fee_wei: int | None
    gas_price_wei: int | None

    @property
    def most_wei(self) -> int:
        """Maximum price of one unit of gas, wei."""
        most = self.max_fee_wei if self.max_fee_wei is not None else self.gas_price_wei
        return most if most is not None else 0


def gas_fees(
    head: Head,
    priority_fee_wei: int,
    gas_price_wei: int,
    *,
    limit_wei: int | None,
    priority_cap_wei: int,
) -> GasFees:
    """Return fees for a transaction sent now.

    With a base fee (EIP-1559): tip = the endpoint's `priority_fee_wei`, at most `priority_cap_wei`;
    max fee = 2 · base fee + tip, at most `limit_wei`, which outlasts six full blocks. Without: the
    endpoint's `gas_price_wei`. `limit_wei` is limits.gas_price (None: off). Raises Refused if the
    present price is above it.
    """
    if head.base_fee_wei is None:
        _within(gas_price_wei, limit_wei)
        return GasFees(None, None, max(gas_price_wei, 1))
    tip = max(0, min(priority_fee_wei, priority_cap_wei))
    now = head.base_fee_wei + tip
    _within(now, limit_wei)
    most = 2 * head.base_fee_wei + tip
    return GasFees(max(1, most if limit_wei is None else min(most, limit_wei)), tip, None)


def bump_fees(paid: GasFees, *, limit_wei: int | None) -> GasFees:
    """Fees that replace a pending transaction: every field 12.5 % more, rounded up. Raises Refused
    above `limit_wei`.
    """
    more = GasFees(
        *(
            None if wei is None else replacement_fee_wei(wei)
            for wei in (paid.max_fee_wei, paid.max_priority_fee_wei, paid.gas_price_wei)
        )
    )
    _within(more.most_wei, limit_wei)
    return more


def _within(price_wei: int, limit_wei: int | None) -> None:
    if limit_wei is not None and price_wei > limit_wei:
        verdict = Verdict("gas_price", f"{price_wei} wei", f"{limit_wei} wei", False)
        raise Refused(
            f"gas costs {price_wei} wei, above limits.gas_price of {limit_wei} wei",
            (verdict,),
            "wait, or raise the limit",
        )
