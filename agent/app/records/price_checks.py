"""Closes of a file that are probably wrong: jumps that the next bars take back, last closes far from
today's reference price, and closes far from those recorded before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from agent.errors import ConfigError
from agent.model import PricePoint
from agent.price_files.jumps import PriceJump, find_jumps
from agent.price_files.read import FileRemark, SymbolCloses
from agent.units import DAY_S, HOUR_S, Price, Token, format_duration, format_time, pluralize

ACCEPT_REMEDY = "correct or remove it; if the price was real: --accept-jumps"
RECORDED_REMEDY = (
    "keep the closes of one source: trimtab prices forget import removes those of earlier files; to"
    " mix both: --accept-jumps"
)
MAX_REFERENCE_RATIO = Fraction(13, 10)
"""Largest ratio of a last close and today's reference price, either way, and of a close and the
price recorded in its hour.
"""
MAX_REFERENCE_AGE_S = 3 * DAY_S
"""Age of a last close up to which it is compared with today's reference price."""


@dataclass(frozen=True, slots=True)
class JumpCheck:
    """What an import knows of its prices: today's reference prices by token, numeraire base units
    per base unit, at `now_s` (None: prices are not compared); whether the owner accepts jumps; why no
    reference price could be read; and the prices recorded before, by token and hour.
    """

    reference_by_token: Mapping[str, Price] | None = None
    now_s: int = 0
    accepts_jumps: bool = False
    unread_reason: str = ""
    recorded_prices: Mapping[tuple[str, int], Price] = field(default_factory=dict)

    def check(
        self,
        symbol_closes: SymbolCloses,
        token: Token,
        numeraire: Token,
        points: Sequence[PricePoint],
        file_name: str,
    ) -> list[FileRemark]:
        """Return remarks on accepted jumps, on a last price that is not compared, and on `points`, the
        closes in the numeraire, that differ from recorded prices. Raises ConfigError for closes that
        are probably wrong, with row, price and neighbours, unless the owner accepts them. A last
        close that today's reference price confirms is no jump.
        """
        jumps = find_jumps([float(close) for close in symbol_closes.closes])
        faults = []
        remarks = []
        if self.reference_by_token is not None and points:
            last_point = points[-1]
            reference = self.reference_by_token.get(token.address)
            if reference is None:
                reason_text = f" ({self.unread_reason})" if self.unread_reason else ""
                remarks.append(_not_compared_remark(token, f"today's is not known{reason_text}"))
            elif self.now_s - last_point.at_s > MAX_REFERENCE_AGE_S:
                age_text = format_duration(MAX_REFERENCE_AGE_S)
                remarks.append(_not_compared_remark(token, f"it is more than {age_text} old"))
            elif (text := _distance_text(token, numeraire, last_point.price, reference)) != "":
                faults.append(text)
            else:
                jumps = [jump for jump in jumps if jump.end < len(symbol_closes.closes)]
        faults = [*(_jump_text(jump, symbol_closes, token) for jump in jumps), *faults]
        remedy = ACCEPT_REMEDY if faults else RECORDED_REMEDY
        if differing := self._differing_points(points):
            text = self._difference_text(differing, token, numeraire)
            if _ratio(differing[0].price, self._recorded(differing[0])) > MAX_REFERENCE_RATIO:
                faults.append(text)
            else:
                remarks.append(FileRemark(len(differing), text))
        if faults and not self.accepts_jumps:
            more_text = f" (the first of {len(faults)} such faults)" if len(faults) > 1 else ""
            raise ConfigError(f"{file_name}, {faults[0]}{more_text}", remedy)
        return [*remarks, *(FileRemark(1, f"accepted: {fault}") for fault in faults)]

    def _recorded(self, point: PricePoint) -> Price:
        return self.recorded_prices.get((point.token, point.at_s // HOUR_S), point.price)

    def _differing_points(self, points: Sequence[PricePoint]) -> list[PricePoint]:
        """Return the prices that differ from the one recorded in their hour, the most first."""
        return sorted(
            (point for point in points if point.price != self._recorded(point)),
            key=lambda point: _ratio(point.price, self._recorded(point)),
            reverse=True,
        )

    def _difference_text(
        self, differing: Sequence[PricePoint], token: Token, numeraire: Token
    ) -> str:
        point = differing[0]
        most_text = "the most " if len(differing) > 1 else ""
        return (
            f"{token.label} differs from recorded prices in {pluralize(len(differing), 'hour')}, {most_text}at"
            f" {format_time(point.at_s)}: {_price_text(point.price, token, numeraire)} in the file,"
            f" {_price_text(self._recorded(point), token, numeraire)} {numeraire.label} recorded, which"
            " stays"
        )


def _ratio(price: Price, other_price: Price) -> Fraction:
    """Return the larger of two prices by the less."""
    return max(price / other_price, other_price / price)


def _price_text(price: Price, token: Token, numeraire: Token) -> str:
    """Return the price of a whole coin in coins of the numeraire."""
    return f"{float(price * Fraction(10) ** (token.decimals - numeraire.decimals)):.6g}"


def _not_compared_remark(token: Token, reason: str) -> FileRemark:
    return FileRemark(
        1,
        f"the last close of {token.label} is not compared with today's reference price: {reason}",
    )


def _distance_text(token: Token, numeraire: Token, last_price: Price, reference: Price) -> str:
    """Return the last price and today's if they are far apart; empty otherwise."""
    if _ratio(last_price, reference) <= MAX_REFERENCE_RATIO:
        return ""
    return (
        f"the last close of {token.label} is {_price_text(last_price, token, numeraire)}, today's"
        f" reference price {_price_text(reference, token, numeraire)} {numeraire.label}"
    )


def _jump_text(jump: PriceJump, symbol_closes: SymbolCloses, token: Token) -> str:
    """Return a jump with its rows, prices and neighbours."""
    rows = sorted(symbol_closes.row_numbers[jump.start : jump.end])
    rows_text = f"row {rows[0]}" if len(rows) == 1 else f"rows {rows[0]} to {rows[-1]}"
    first_time_text = format_time(symbol_closes.times_s[jump.start])
    closes_text = ", ".join(f"{close:f}" for close in symbol_closes.closes[jump.start : jump.end])
    neighbours = []
    if jump.start > 0:
        neighbours.append(f"after {symbol_closes.closes[jump.start - 1]:f}")
    if jump.end < len(symbol_closes.closes):
        neighbours.append(f"before {symbol_closes.closes[jump.end]:f}")
    reason = "no other close confirms it" if jump.is_edge else "the next bar takes it back"
    return (
        f"{rows_text}: {token.label} is {closes_text}, {' and '.join(neighbours)}, at"
        f" {first_time_text}: {reason}"
    )
