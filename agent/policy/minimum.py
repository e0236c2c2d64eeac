"""How small a portfolio may be: every leg has to be worth its trade (requirement R1.5), and how many assets it may have (R1.1)."""

from __future__ import annotations

from fractions import Fraction

from agent.model import Portfolio, Snapshot
from agent.units import BPS, Price, Value

FEWEST = 2
MOST = 12
"""More assets work, with a warning."""
LEG_GAS = 150_000
"""Gas units of one swap in a multicall, in round figures; plans carry their own estimate."""
APPROVAL_GAS = 46_000
"""Gas units of one approval transaction of a plain ERC-20 token, from no allowance to some."""
GAS_MULTIPLE = 20
"""A leg must be worth at least this many times its gas."""


def smallest_total(portfolio: Portfolio, leg_value: Value) -> Value:
    """The least investable total at which every asset's target is worth `leg_value`, numeraire base units."""
    smallest_bps = min(asset.target_bps for asset in portfolio.assets if asset.target_bps > 0)
    return leg_value * BPS / smallest_bps


def leg_gas_value(snapshot: Snapshot, native_price: Price, units: int = LEG_GAS) -> Value:
    """What the gas of one leg costs now, or that many units of gas; `native_price` is numeraire base units per wei."""
    base_wei = snapshot.head.base_fee_wei
    gas_price_wei = snapshot.gas_price_wei if base_wei is None else base_wei + snapshot.priority_fee_wei
    return Fraction(units * gas_price_wei) * native_price


def warnings(portfolio: Portfolio) -> tuple[str, ...]:
    """What an owner should know of the portfolio's size; never a reason to refuse."""
    count = len(portfolio.assets)
    if count <= MOST:
        return ()
    return (f"{count} assets are more than {MOST}: 4 to 6 are easier to manage and cheaper to rebalance",)
