"""Dollar tokens against a dollar: which are off their peg, by how much, and when one that left it is back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from agent.model import Asset, FeedRound, StepInput
from agent.reference import rounds
from agent.reference.prices import References
from agent.units import BPS, Token

DOLLAR_NAMES = frozenset({"DAI", "FRAX", "GHO", "MIM", "DOLA"})
"""Dollar tokens whose symbol does not contain USD."""
ABOVE_PEG = Fraction(6, 5)
"""A token worth more than this many dollars is not pegged to one, whatever its name: interest-bearing dollars grow."""
BACK = Fraction(1, 2)
"""A token that left its peg counts as back only within this part of the limit: around the limit it would come and go."""


class Unknown(Exception):
    """What a dollar is worth cannot be told; the message says why."""


@dataclass(frozen=True, slots=True)
class Peg:
    """One dollar token: dollars per whole token, how far that is from one, and the limit for it now in bps."""

    token: Token
    usd: Fraction
    limit_bps: Fraction

    @property
    def distance(self) -> Fraction:
        """Relative distance from a dollar."""
        return abs(self.usd - 1)

    @property
    def off(self) -> bool:
        """Whether it is beyond its limit."""
        return self.distance * BPS > self.limit_bps


def pegs(step: StepInput, references: References, limit_bps: int) -> Iterator[Peg]:
    """Every asset that its symbol marks as a dollar, at the limit for it. Raises Unknown.

    The price is the token's own USD feed, else its reference price times the numeraire's USD feed.
    """
    for asset in step.portfolio.assets:
        if is_dollar(asset.token):
            usd = _usd(step, references, asset)
            if usd <= ABOVE_PEG:
                left = asset.token.address in step.history.depegged
                yield Peg(asset.token, usd, limit_bps * BACK if left else Fraction(limit_bps))


def depegged(step: StepInput, references: References) -> tuple[str, ...]:
    """Addresses of the dollars that are off their peg now. While their price is unknown those that were off still are."""
    limit_bps = step.limits.depeg_bps
    if limit_bps is None:
        return ()
    try:
        return tuple(peg.token.address for peg in pegs(step, references, limit_bps) if peg.off)
    except Unknown:
        held = {asset.token.address for asset in step.portfolio.assets}
        return tuple(token for token in step.history.depegged if token in held)


def depeg_fault(step: StepInput, references: References) -> str:
    """Why nothing is traded while a dollar is off its peg; empty when none is.

    What falls would be bought, and by whose price? Where the price of a dollar is unknown, the guard of the same name decides.
    """
    limit_bps = step.limits.depeg_bps
    off = depegged(step, references)
    if limit_bps is None or not off:
        return ""
    try:
        found = [peg for peg in pegs(step, references, limit_bps) if peg.off]
    except Unknown as why:
        names = ", ".join(step.portfolio.token(token).label for token in off)
        return f"{names} left the peg to the dollar, and it is not known whether it is back: {why}"
    back = f"limits.depeg is {limit_bps} bps, and it counts as back within {float(limit_bps * BACK):g} bps"
    return "; ".join(f"{peg.token.label} has left its peg: {float(peg.usd):.4f} USD, {back}" for peg in found)


def is_dollar(token: Token) -> bool:
    """A symbol marks a dollar when it contains USD in any case or is one of DOLLAR_NAMES."""
    return "USD" in token.symbol.upper() or token.symbol.upper() in DOLLAR_NAMES


def _usd(step: StepInput, references: References, asset: Asset) -> Fraction:
    if asset.feed is not None:
        return _answer(step, asset)
    numeraire = step.portfolio.numeraire
    unit = next((found for found in step.portfolio.assets if found.token.address == numeraire.address), None)
    price = references.prices.get(asset.token.address)
    if unit is None or unit.feed is None:
        raise Unknown(f"no USD feed of {asset.token.label} or of the numeraire")
    if price is None:
        raise Unknown(f"no reference price of {asset.token.label}")
    return price.price * Fraction(10) ** (asset.token.decimals - numeraire.decimals) * _answer(step, unit)


def _answer(step: StepInput, asset: Asset) -> Fraction:
    told: FeedRound | None = next((found for found in step.snapshot.feeds if found.feed == asset.feed), None)
    if told is None:
        raise Unknown(f"feed of {asset.token.label} was not read")
    unfit = rounds.fault(step, told)
    if unfit:
        raise Unknown(f"feed of {asset.token.label} {unfit}")
    return Fraction(told.answer, 10**told.decimals)
