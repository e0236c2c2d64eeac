"""How legs are paid in the wrapped native coin: from its balance, by native coin sent along, or both; and what is unwrapped for gas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.model import Funding, Leg, StepInput
from agent.policy import coin as policy
from agent.units import NATIVE

NATIVE_VENUE = "wrapped_native"
"""Venue of a leg that wraps the native coin (token_in is NATIVE) or unwraps it (token_out is)."""


@dataclass(frozen=True, slots=True)
class Coin:
    """The wrapped native coin as an asset, in wei of either form.

    `wrapped_raw` is its balance, of which legs may take `approved_raw` where the step has approved just so much; `free_wei`
    is native coin that may be wrapped; `refill_raw` is unwrapped for gas; with `counts` the native coin is part of the asset.
    """

    token: str
    wrapped_raw: int
    approved_raw: int | None
    free_wei: int
    refill_raw: int
    counts: bool

    @property
    def cap_raw(self) -> int | None:
        """The most that legs may sell where native coin counts; None where it does not and nothing was approved yet."""
        if not self.counts:
            return None if self.approved_raw is None else max(0, self.approved_raw - self.refill_raw)
        most_raw = self.wrapped_raw - self.refill_raw + self.free_wei
        if self.approved_raw is None:
            return max(0, most_raw)
        return max(0, min(most_raw, max(self.approved_raw - self.refill_raw, self.free_wei)))


def coin_of(step: StepInput) -> Coin | None:
    """The wrapped native coin of this step; None where it is no asset."""
    asset = policy.wrapped_asset(step.portfolio)
    if asset is None:
        return None
    token = asset.token.address
    balance = next((holding.raw for holding in step.snapshot.holdings if holding.token == token), 0)
    refill_raw = min(policy.refill_raw(step), policy.wrapped_raw(step))
    return Coin(token, balance, dict(step.spend_caps).get(token), policy.free_wei(step), refill_raw, asset.native)


def paid(coin: Coin | None, legs: Sequence[Leg]) -> tuple[Leg, ...]:
    """The legs with everything that their payment takes; the same trades, to the wei.

    Wrapped coin pays where it suffices. Where native coin alone does, each leg that sells begins with a wrap of its own and
    no approval is needed. Else what is missing is wrapped to the wallet first. Refilling comes last: the whole output of a
    chain that buys the coin if that is enough, since it needs no approval, or exactly what is asked from the wallet.
    """
    if coin is None or not legs:
        return tuple(legs)
    sold = sum(leg.amount_in_raw for leg in legs if leg.token_in == coin.token and leg.source is Funding.WALLET)
    most_raw = coin.wrapped_raw if coin.approved_raw is None else min(coin.wrapped_raw, coin.approved_raw)
    if coin.refill_raw and coin.counts and (chain := _bought(coin, legs)) is not None:
        return _refilled_from(legs, chain)
    refill = (unwrap(coin.token, coin.refill_raw),) if coin.refill_raw else ()
    if sold + coin.refill_raw <= most_raw:
        return (*legs, *refill)
    if sold <= coin.free_wei and not refill:
        return tuple(part for leg in legs for part in _by_value(coin, leg))
    missing = max(0, sold + coin.refill_raw - coin.wrapped_raw)
    first = (wrap(coin.token, missing, Funding.WALLET),) if missing else ()
    return (*first, *legs, *refill)


def wrap(token: str, raw: int, sink: Funding) -> Leg:
    """Native coin of the wallet as wrapped coin, one for one."""
    return Leg(token, NATIVE_VENUE, NATIVE, token, 0, raw, raw, raw, 0, 0, Funding.WALLET, sink)


def unwrap(token: str, raw: int, source: Funding = Funding.WALLET, min_raw: int | None = None) -> Leg:
    """Wrapped coin as native coin of the wallet, one for one."""
    return Leg(token, NATIVE_VENUE, token, NATIVE, 0, raw, raw, raw if min_raw is None else min_raw, 0, 0, source, Funding.WALLET)


def changes(legs: Sequence[Leg]) -> dict[str, int]:
    """What the legs do to each of the wallet's balances, base units; native coin, its gas left aside, under NATIVE."""
    moved: dict[str, int] = {}
    for leg in legs:
        if leg.source is Funding.WALLET:
            moved[leg.token_in] = moved.get(leg.token_in, 0) - leg.amount_in_raw
        if leg.sink is Funding.WALLET:
            moved[leg.token_out] = moved.get(leg.token_out, 0) + leg.amount_out_raw
    return moved


def _by_value(coin: Coin, leg: Leg) -> tuple[Leg, ...]:
    if leg.token_in != coin.token or leg.source is not Funding.WALLET:
        return (leg,)
    return wrap(coin.token, leg.amount_in_raw, Funding.ROUTER), replace(leg, source=Funding.ROUTER)


def _bought(coin: Coin, legs: Sequence[Leg]) -> int | None:
    """The leg with the smallest output that refills alone; None when none does, or when the coin is sold too."""
    if any(leg.token_in == coin.token and leg.source is Funding.WALLET for leg in legs):
        return None
    enough = [
        (leg.amount_out_raw, number)
        for number, leg in enumerate(legs)
        if leg.token_out == coin.token and leg.sink is Funding.WALLET and leg.min_out_raw >= coin.refill_raw
    ]
    return min(enough)[1] if enough else None


def _refilled_from(legs: Sequence[Leg], chain: int) -> tuple[Leg, ...]:
    last = legs[chain]
    unwrapped = unwrap(last.token_out, last.amount_out_raw, Funding.ROUTER, last.min_out_raw)
    return (*legs[:chain], replace(last, sink=Funding.ROUTER), unwrapped, *legs[chain + 1 :])
