"""What every rule of the signer's table judges by, and how it says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from agent.errors import Refused
from agent.model import Verdict
from agent.ports import Grant

BUMP_NUMERATOR, BUMP_DENOMINATOR = 9, 8
"""A replacement pays at least 12.5 % more in every fee field; nodes ask for 10 %."""
PRIORITY_CAP_WEI = 5 * 10**9
"""The highest tip that an endpoint's suggestion is believed for, and that is signed where nothing is replaced."""


@dataclass(frozen=True, slots=True)
class SigningRules:
    """What never changes from one transaction to the next. Addresses are checksummed.

    `routers` (SwapRouter02), `rebalancers` and `tokens` are contracts whose address and code hash are pinned in the store
    and were compared with the chain in this step; an address that was not compared does not belong here.
    `managers` (V3 position managers), `v2_routers` and `pairs` (V2) are for liquidity alone, pinned likewise.
    `oracles` (V3 pools) may be told to remember more prices.
    Money goes to none but `payouts`, addresses that the owner confirmed and the config names.
    `max_deadline_s` bounds, in seconds from the grant's chain time, how long a swap may stay valid. `max_fee_wei` is
    limits.gas_price: the most that one unit of gas may cost, None where that limit is off. `wrapped_native` is the token that
    the native coin may be exchanged for.
    """

    chain_id: int
    wallet: str
    routers: tuple[str, ...]
    tokens: tuple[str, ...]
    max_deadline_s: int
    max_fee_wei: int | None
    rebalancers: tuple[str, ...] = ()
    wrapped_native: str | None = None
    managers: tuple[str, ...] = ()
    v2_routers: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    oracles: tuple[str, ...] = ()
    payouts: tuple[str, ...] = ()


Nonces = Mapping[int, int | None]
"""Nonces that the journal lets be signed now, each with the highest tip, wei per gas, signed there so far; None where nothing was."""


def dearer_wei(wei: int) -> int:
    """What replaces a fee of `wei`: 12.5 % more, rounded up."""
    return max(wei + 1, -(-wei * BUMP_NUMERATOR // BUMP_DENOMINATOR))


def no(rule: str, measured: object, limit: object) -> NoReturn:
    """Raises Refused for `rule`, with the verdict."""
    verdict = Verdict(f"signer.{rule}", str(measured), str(limit), False)
    raise Refused(f"the signer refuses by rule {rule!r}: got {measured}, allows {limit}", (verdict,))


def require_deadline(deadline_s: int, grant: Grant, rules: SigningRules) -> None:
    """A swap ends soon, in chain time."""
    last_s = min(grant.deadline_s, grant.now_s + rules.max_deadline_s)
    if not grant.now_s < deadline_s <= last_s:
        no("deadline", deadline_s, f"after {grant.now_s} and at most {last_s}")
