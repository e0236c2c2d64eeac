"""Why a plan leaves out a pool that it could trade through."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

COARSE_UNIT_PHRASE = "one base unit of"


class DropCause(Enum):
    """Cause for which a pool is dropped, with its text or the beginning of it."""

    GAS = "gas costs more than it saves"
    SAVES_NOTHING = "the other pools trade it at the same cost"
    OVER_COST = "with its gas the plan would exceed limits.plan_cost"
    PART_TOO_SMALL = "its part would be below limits.min_trade"
    REST_TOO_SMALL = (
        "its share is below limits.min_trade without the pools that cost more gas than they save"
    )
    COARSE_UNIT = COARSE_UNIT_PHRASE
    BELOW_FLOOR = "it pays less than its floor"
    OVERSHOOT = "with it the plan goes beyond the drift"


@dataclass(frozen=True, slots=True)
class DropReason:
    """Cause for which a pool is dropped, and the whole text."""

    cause: DropCause
    text: str

    @property
    def is_costly(self) -> bool:
        """True if the pool is usable, but costs more than it saves."""
        return self.cause not in (DropCause.BELOW_FLOOR, DropCause.OVERSHOOT)
