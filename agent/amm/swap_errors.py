"""Errors of swaps: contract reverts, and swaps beyond the known ticks."""

from __future__ import annotations

from agent.errors import Refused
from agent.model import Verdict

TOO_LITTLE_MESSAGE = (
    "a pool would pay less than the plan's minimum: the market moved or its fee rose since the"
    " snapshot"
)
UNPAID_MESSAGE = (
    "a token could not be taken from the wallet: the balance or allowance is too small, or the"
    " token forbids it"
)


class ContractRevert(Refused):
    """A revert of the deployed contract in function `contract_function` with the string `reason`
    ("" for a bare require).
    """

    def __init__(self, where: str, reason: str, remedy: str = "") -> None:
        message = f"reverts with {reason!r}" if reason else "reverts without a reason"
        super().__init__(f"{where} {message}", remedy=remedy)
        self.contract_function = where
        self.reason = reason


class KnownTicksExceeded(Refused):
    """An amount exceeds the known ticks of `pool_addresses`; it may fit once more ticks are
    read.
    """

    def __init__(self, message: str, verdict: Verdict, remedy: str, pools: tuple[str, ...]) -> None:
        super().__init__(message, (verdict,), remedy)
        self.pool_addresses = pools


class BeyondKnownTicks(KnownTicksExceeded):
    """A quote needs ticks that were not read. `largest_raw` base units is the largest quotable
    input.
    """

    def __init__(
        self,
        pool: str,
        asked_raw: int,
        largest_raw: int,
        known_from_tick: int,
        known_to_tick: int,
    ) -> None:
        super().__init__(
            f"pool {pool}: {asked_raw} base units in leave the known ticks [{known_from_tick},"
            f" {known_to_tick}]; the largest amount in that can be quoted is {largest_raw}",
            Verdict(
                "known_ticks",
                f"{asked_raw} base units in",
                f"{largest_raw} base units in",
                False,
            ),
            f"trade at most {largest_raw} base units in at a time",
            (pool,),
        )
        self.asked_raw = asked_raw
        self.largest_raw = largest_raw
