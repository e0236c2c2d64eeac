"""Settings of submission and waiting."""

from __future__ import annotations

from dataclasses import dataclass

from agent.ports import Grant


@dataclass(frozen=True, slots=True)
class SubmissionSettings:
    """Settings of submission and waiting. `confirmations` counts the transaction's own block. With
    a `finality_tag` the block must also be in the chain up to the block with this tag.

    `max_fee_wei` is limits.gas_price and `gas_per_day_wei` is limits.gas_per_day (None: off);
    `emergency_gas_ceilings` are those for positions that are closed ahead of liquidation. A
    transaction pending longer than `bump_after_s` is replaced at a higher fee or cancelled (None:
    never). The chain is polled every `poll_s` seconds. After `mined_timeout_s` a transaction counts
    as late; after `final_timeout_s` a mined one is left to the next reconciliation. `usual_tip_wei`
    is tried first if nodes demand a higher tip without naming it.
    """

    confirmations: int
    poll_s: float
    mined_timeout_s: float
    final_timeout_s: float
    max_fee_wei: int | None
    bump_after_s: float | None = None
    gas_per_day_wei: int | None = None
    emergency_gas_ceilings: tuple[int | None, int | None] = (None, None)
    finality_tag: str | None = None
    usual_tip_wei: int = 0

    def gas_ceilings_of(self, grant: Grant) -> tuple[int | None, int | None]:
        """Return the maximum wei per unit of gas and in 24 h for a granted transaction."""
        if grant.is_emergency:
            return self.emergency_gas_ceilings
        return self.max_fee_wei, self.gas_per_day_wei
