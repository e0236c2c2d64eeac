"""Spot and futures on one scale: the spot portfolio's value in the quote, and the value that follows
each asset's price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.margin import account as margin
from agent.model import AssetDrift
from agent.model.futures import FuturesPolicy, MarginAccount
from agent.units import Value


@dataclass(frozen=True, slots=True)
class Exposure:
    """Value that follows one price, in numeraire base units: `spot` held, `futures` negative for a
    short. `token` is empty for a market without a spot asset, which `symbol` then names.
    """

    token: str
    symbol: str
    spot: Value
    futures: Value

    @property
    def net(self) -> Value:
        """Spot and futures together."""
        return self.spot + self.futures


def quote_rate(
    account: MarginAccount, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> Fraction | None:
    """Return quote base units per numeraire base unit, by the collateral's reference price; None
    without one.
    """
    price = next((drift.price for drift in drifts if drift.token == policy.collateral), None)
    return Fraction(account.settlement_raw) / price if price else None


def spot_value_raw(
    account: MarginAccount, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> Fraction | None:
    """Return the spot portfolio's value in quote base units; None if the collateral has no price."""
    rate = quote_rate(account, policy, drifts)
    return None if rate is None else rate * sum((drift.value for drift in drifts), Fraction(0))


def exposures(
    account: MarginAccount, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> tuple[Exposure, ...]:
    """Return the exposure of each asset, then of each held market without one; empty if the
    collateral has no price. Collateral in the margin account is not part of it.
    """
    rate = quote_rate(account, policy, drifts)
    if rate is None:
        return ()
    futures: dict[str, Value] = {}
    alone = []
    held = {drift.token for drift in drifts}
    for position in account.positions:
        market = account.market(position.market)
        value = margin.value_at_mark_raw(account, position) / rate
        if market.asset in held:
            futures[market.asset] = futures.get(market.asset, Fraction(0)) + value
        else:
            alone.append(Exposure("", market.symbol, Fraction(0), value))
    spot = [
        Exposure(drift.token, "", drift.value, futures.get(drift.token, Fraction(0)))
        for drift in drifts
    ]
    return (*spot, *alone)
