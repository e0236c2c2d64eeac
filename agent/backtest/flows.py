"""What the owner puts in and takes out while a simulation runs: how it is written, and what it does to the holdings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from agent.errors import ConfigError
from agent.units import Price, Value, ceil_int, floor_int

IN_NUMERAIRE, PRO_RATA = "numeraire", "pro-rata"
WAYS = (IN_NUMERAIRE, PRO_RATA)
MOST = 10**30
EARLIEST_S, LATEST_S = 0, 4_102_444_800


@dataclass(frozen=True, slots=True)
class OwnerFlow:
    """A deposit (above zero) or withdrawal at the first bar of that time or later, whole coins of the numeraire."""

    time_s: int
    amount: Fraction


def parse_flow(text: str) -> OwnerFlow:
    """2021-03-01=+1000, or with a time of day; UTC unless a zone is named. Raises ConfigError."""
    when, _, amount = text.partition("=")
    try:
        at = datetime.fromisoformat(when.strip())
        found = OwnerFlow(int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()), Fraction(Decimal(amount.strip())))
    except (ValueError, InvalidOperation, OverflowError):
        raise ConfigError(f"--flow: {text[:40]!r}", "write a time and an amount of the numeraire: 2021-03-01=+1000") from None
    if found.amount == 0:
        raise ConfigError(f"--flow: {text[:40]!r} moves nothing", "write an amount above zero, or below it to take out")
    if abs(found.amount) > MOST or not EARLIEST_S <= found.time_s <= LATEST_S:
        raise ConfigError(f"--flow: {text[:40]!r} is beyond any time or amount", "write one such as 2021-03-01=+1000")
    return found


def bars_of(flows: Sequence[OwnerFlow], times_s: Sequence[int]) -> tuple[tuple[int, Fraction], ...]:
    """(bar, whole coins) in the order of time. Raises ConfigError for one that lies outside of the simulation."""
    found = []
    for flow in sorted(flows, key=lambda one: one.time_s):
        if not times_s[0] < flow.time_s <= times_s[-1]:
            when = datetime.fromtimestamp(flow.time_s, UTC).isoformat(sep=" ")
            raise ConfigError(f"--flow: {when} is not within the simulation", "what is there from the first bar on is said by --value")
        bar = next(number for number, at_s in enumerate(times_s) if at_s >= flow.time_s)
        found.append((bar, flow.amount))
    return tuple(found)


def moved(
    balances: Mapping[str, int], prices: Mapping[str, Price], value: Value, way: str, money: str, assets: Collection[str]
) -> dict[str, int]:
    """Balances after that value (numeraire base units, with sign) came or went, each rounded against the wallet.

    In the numeraire `money` comes and goes; what a withdrawal finds too little of it is taken of all else in proportion. Pro rata all
    `assets` change in proportion to what is held. Raises ConfigError for a withdrawal of all that there is.
    """
    found = dict(balances)
    whole = sum((raw * prices[token] for token, raw in balances.items()), Fraction(0))
    if value <= -whole:
        raise ConfigError("--flow: a withdrawal takes all that there is, or more", "leave something in the portfolio")
    rest, among = value, [token for token in assets if balances[token] > 0]
    if way == IN_NUMERAIRE:
        taken = floor_int(value / prices[money]) if value > 0 else -min(balances[money], ceil_int(-value / prices[money]))
        found[money] += taken
        rest = min(Fraction(0), value - taken * prices[money]) if value < 0 else Fraction(0)
        among = [token for token, raw in found.items() if token != money and raw > 0]
    base = sum((found[token] * prices[token] for token in among), Fraction(0))
    for token in among if rest and base else ():
        found[token] = max(0, found[token] + floor_int(found[token] * rest / base))
    return found
