"""Exact quantities: tokens, amounts in base units, prices as fractions, weights in basis points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from numbers import Integral

from agent.errors import ConfigError

BPS = 10_000
"""Basis points in one whole."""
PIPS = 1_000_000
"""Uniswap fee units in one whole: 3000 pips = 0.3 %."""
GWEI = 10**9
MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S
YEAR_S = 365 * DAY_S
"""Seconds of a year, for annual figures."""
UINT256_MAX = 2**256 - 1
NATIVE = "0x0000000000000000000000000000000000000000"
"""Address that denotes the native coin in place of a token."""

Price = Fraction
"""Numeraire base units per token base unit."""
Value = Fraction
"""Numeraire base units, exact."""

Amount = str | int | float | Decimal
"""Whole coins as a Python program writes them; a float only if its digits are exact."""

_SAFE_SYMBOL = re.compile(r"[A-Za-z0-9._-]{1,16}")
_PLAIN_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+")
_SHARE_WITH_UNIT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})\s*(%|bps|x)")
_LEADING_NUMBER = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,6})?|\.[0-9]{1,6})(?![0-9.e_])")
_BARE_NUMBER = re.compile(r"[0-9]*[.,]?[0-9]+(e-?[0-9]+)?")
_BPS_BY_UNIT = {"%": 100, "bps": 1, "x": BPS}


def mul_div_down(a: int, b: int, denominator: int) -> int:
    """Return floor(a · b / denominator): FullMath.mulDiv of Uniswap V3 without its 256-bit
    bound.
    """
    return a * b // denominator


def mul_div_up(a: int, b: int, denominator: int) -> int:
    """Return ceil(a · b / denominator): FullMath.mulDivRoundingUp of Uniswap V3 without its 256-bit
    bound.
    """
    return -(-a * b // denominator)


def floor_int(fraction: Fraction) -> int:
    """Return the largest integer not above `fraction`."""
    return fraction.numerator // fraction.denominator


def ceil_int(fraction: Fraction) -> int:
    """Return the smallest integer not below `fraction`."""
    return -(-fraction.numerator // fraction.denominator)


@dataclass(frozen=True, slots=True)
class Token:
    """An ERC-20 token. `address` is checksummed; `decimals` is read from or checked against the
    chain.

    >>> usdc = Token("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USDC", 6)
    >>> usdc.unit
    1000000
    """

    address: str
    symbol: str
    decimals: int

    @property
    def label(self) -> str:
        """Symbol if it is safe to print, else the address (T17)."""
        return safe_label(self.symbol, self.address)

    @property
    def unit(self) -> int:
        """Base units of one whole token."""
        return int(10**self.decimals)

    def money_text(self, value: Fraction) -> str:
        """Format a value in base units of this token, to two places, with the token's label."""
        return f"{cents_text(value, self.decimals)} {self.label}"


def safe_label(symbol: str, address: str) -> str:
    """Return `symbol` if it has only safe characters, else `address`, so that no foreign text is
    printed (T17).
    """
    return symbol if _SAFE_SYMBOL.fullmatch(symbol) else address


MAX_DIGITS = 24
"""Digits of an amount before the point; the largest supplies of tokens have 18."""


def plain_amount(amount: object, field: str) -> str:
    """Return an amount as a plain decimal. Raises ConfigError for a float whose digits are not exact,
    and for what is no number.
    """
    if isinstance(amount, str):
        return amount
    if isinstance(amount, bool) or not isinstance(amount, Integral | float | Decimal):
        raise ConfigError(
            f"{field}: {repr(amount)[:40]} is no amount", 'write a plain decimal such as "1.5"'
        )
    exact = Decimal(int(amount) if isinstance(amount, Integral) else amount)
    if isinstance(amount, float) and exact.is_finite() and exact != Decimal(str(amount)):
        digits = f"{Decimal(str(amount)):f}"
        raise ConfigError(
            f"{field}: the digits of {digits} as a float are not exact",
            f'write "{digits}" in quotes',
        )
    return f"{exact:f}"


MAX_WHOLE_DIGITS = 18
"""Most digits of a whole number that a person writes: below 2^62."""


def whole_number(text: str) -> int | None:
    """Return the number that at most MAX_WHOLE_DIGITS digits write; None for another text."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_WHOLE_DIGITS
    return int(text) if is_number else None


def parse_raw(amount_text: str, decimals: int, field: str) -> int:
    """Return the base units of a plain decimal such as "1.5". Raises ConfigError for signs,
    exponents, more places than `decimals`, and more than MAX_DIGITS digits before the point.
    """
    if not _PLAIN_NUMBER.fullmatch(amount_text.strip()):
        raise ConfigError(
            f"{field}: {amount_text!r} is not an amount", "write a plain decimal such as 1.5"
        )
    digit_count = len(amount_text.strip().partition(".")[0].lstrip("0"))
    if digit_count > MAX_DIGITS:
        raise ConfigError(
            f"{field}: {amount_text.strip()[:12]}… has {digit_count} digits before the point, which no token"
            " holds",
            f"write at most {MAX_DIGITS}",
        )
    raw_amount = Fraction(Decimal(amount_text.strip())) * Fraction(10) ** decimals
    if raw_amount.denominator != 1:
        raise ConfigError(
            f"{field}: {amount_text!r} has more than {decimals} decimal places, the smallest unit of this"
            " token",
            "round it to that many places",
        )
    if raw_amount.numerator > UINT256_MAX:
        raise ConfigError(
            f"{field}: {amount_text!r} exceeds the largest token amount (2^256 - 1 base units)",
            "write a smaller amount",
        )
    return raw_amount.numerator


def decimal_text(raw: int, decimals: int) -> str:
    """Return base units as an exact decimal without trailing zeros: (1500000, 6) -> "1.5"."""
    sign = "-" if raw < 0 else ""
    digits = str(abs(raw)).rjust(decimals + 1, "0")
    integer = digits[: len(digits) - decimals]
    fraction = digits[len(digits) - decimals :].rstrip("0")
    return f"{sign}{integer}.{fraction}" if fraction else f"{sign}{integer}"


def short_address(address: str) -> str:
    """Return the first and last four digits of an address, such as 0x1234…abcd."""
    return f"{address[:6]}…{address[-4:]}"


def shortened_text(raw: int, decimals: int) -> str:
    """Return an amount in base units as a decimal of whole coins, rounded down to six places."""
    hidden_places = max(0, decimals - 6)
    return decimal_text(raw // 10**hidden_places, decimals - hidden_places)


def value_text(value: Fraction, decimals: int, places: int | None = None) -> str:
    """Return a value in numeraire base units as a decimal of whole coins, rounded half-even to
    `places` (default: `decimals`).
    """
    shown_places = decimals if places is None else places
    return decimal_text(round(value * Fraction(10) ** (shown_places - decimals)), shown_places)


def cents_text(value: Fraction, decimals: int) -> str:
    """Return a value in numeraire base units for a sentence, as whole coins or with two places, never
    with one.
    """
    coins_text = value_text(value, decimals, 2)
    return f"{coins_text}0" if coins_text[-2:-1] == "." else coins_text


def price_text(
    price: Price, token_decimals: int, numeraire_decimals: int, significant_figures: int = 12
) -> str:
    """Return a price as numeraire coins per whole token, a decimal of `significant_figures`."""
    coin_price = price * Fraction(10) ** (token_decimals - numeraire_decimals)
    if coin_price == 0:
        return "0"
    exponent = len(str(abs(coin_price.numerator))) - len(str(coin_price.denominator))
    places = max(0, significant_figures - exponent)
    return decimal_text(round(coin_price * 10**places), places)


SIGNIFICANT_DIGITS = 6
"""Digits of a price or amount that a reader is shown."""


def shown_price_text(price: Price, token_decimals: int, numeraire_decimals: int) -> str:
    """Return a price for a reader in numeraire coins per whole token, as `shown_coin_price` does."""
    return shown_coin_price(price * Fraction(10) ** (token_decimals - numeraire_decimals))


def shown_coin_price(coin_price: Fraction) -> str:
    """Return a price per whole token for a reader, the only way in which prices are shown: rounded
    half-even to SIGNIFICANT_DIGITS, zeros included, and to no fewer than two places, so that prices
    of one token have equally many; with thousands separators.
    """
    places = 2
    while coin_price and round(abs(coin_price) * 10**places) < 10 ** (SIGNIFICANT_DIGITS - 1):
        places += 1
    return f"{Decimal(value_text(coin_price, 0, places)):,.{places}f}"


MAX_MAGNITUDE = 60
"""Largest exponent of ten, up or down, and most characters of a number that people write."""


def written_number(number_text: str) -> Fraction:
    """Return a decimal such as "0.5" or "1e3" exactly. Raises ValueError if it is none, or has more
    than MAX_MAGNITUDE characters or powers of ten: an exponent of a billion would take minutes.
    Decimal would take "0_5" for 5, and digits of other scripts.
    """
    is_plain = number_text.strip().isascii() and "_" not in number_text
    try:
        number = Decimal(number_text) if is_plain and len(number_text) <= MAX_MAGNITUDE else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or abs(number.adjusted()) > MAX_MAGNITUDE:
        raise ValueError(f"{number_text[:MAX_MAGNITUDE]!r} is not a number of ordinary size")
    return Fraction(number)


def parse_bps(share: object, field: str) -> int:
    """Return the basis points of "50%", "5000bps" or a number in [0, 1]. Raises ConfigError for a
    number above 1 without a unit (R1.1).
    """
    if isinstance(share, bool) or not isinstance(share, str | int | float):
        raise ConfigError(f"{field}: {share!r} is not a share", "write 40%, 4000bps or 0.4")
    share_text = str(share).strip().replace(" ", "")
    try:
        if share_text.endswith("%"):
            share_bps = written_number(share_text[:-1]) * 100
        elif share_text.endswith("bps"):
            share_bps = written_number(share_text[:-3])
        else:
            share_bps = written_number(share_text) * BPS
            if share_bps > BPS:
                raise ConfigError(
                    f"{field}: {share!r} is above 1 and has no unit",
                    f"write {share_text}% or {share_text}bps",
                )
    except ValueError:
        raise ConfigError(
            f"{field}: {share!r} is not a share", "write 40%, 4000bps or 0.4"
        ) from None
    if share_bps < 0:
        raise ConfigError(f"{field}: {share!r} is negative", "write 0 or more")
    if share_bps.denominator != 1:
        raise ConfigError(
            f"{field}: {share!r} is finer than one basis point (0.01%)", "round it to 0.01%"
        )
    return share_bps.numerator


def parse_share_with_unit_bps(share: object, field: str) -> int:
    """Return the basis points of "0.5%", "50bps" or "1.5x". Raises ConfigError without a unit: 0.5
    may mean a half or half a percent (T21).
    """
    match = _SHARE_WITH_UNIT.fullmatch(share.strip()) if isinstance(share, str) else None
    if match is None:
        share_text = str(share).strip()
        fault = "is not a share"
        if share_text.startswith("-"):
            fault = "is negative"
        elif _BARE_NUMBER.fullmatch(share_text):
            fault = "has no unit"

        raise ConfigError(f"{field}: {share!r} {fault}", f"write {_share_notations(share_text)}")
    bps = Fraction(Decimal(match[1])) * _BPS_BY_UNIT[match[2]]
    if bps.denominator != 1:
        raise ConfigError(
            f"{field}: {share!r} is finer than one basis point (0.01%)", "round it to 0.01%"
        )
    return bps.numerator


def _share_notations(share_text: str) -> str:
    """Format the number of a text as percent and as basis points, for a remedy; an example if it
    has no number.
    """
    match = _LEADING_NUMBER.match(share_text.removeprefix("-").replace(",", "."))
    written_number = Decimal(match[0]) if match else Decimal("0.5")
    bps = written_number * 100 if written_number * 100 % 1 == 0 else written_number * BPS
    if bps % 1:
        bps = Decimal(50)
    return f'"{(bps / 100).normalize():f}%" or "{bps.normalize():f}bps"'


def sign_of(value: int | Fraction) -> int:
    """Return 1 for a value above zero, else -1."""
    return 1 if value > 0 else -1


def largest_remainder(shares: Sequence[Fraction], total: int = BPS) -> list[int]:
    """Return integers proportional to `shares` with sum `total`; ties go to the earlier entry
    (Hamilton's method).
    """
    share_sum = sum(shares, Fraction(0))
    if share_sum <= 0:
        raise ValueError("shares must have a positive sum")
    quotas = [share * total / share_sum for share in shares]
    floors = [floor_int(quota) for quota in quotas]
    indexes_by_remainder = sorted(range(len(quotas)), key=lambda i: (floors[i] - quotas[i], i))
    for i in indexes_by_remainder[: total - sum(floors)]:
        floors[i] += 1
    return floors


def proportional_shares(
    weights: Sequence[Fraction],
    lower_bounds: Sequence[int],
    upper_bounds: Sequence[int],
    total: int,
) -> list[Fraction]:
    """Return shares within the bounds with sum `total`, in proportion to `weights`.

    share = clip(scale · weight, low, high), with the scale at which they add up to `total`. Raises
    ValueError if no shares fit the bounds, or `weights` is all zero.
    """
    if any(weight < 0 for weight in weights) or not sum(lower_bounds) <= total <= sum(upper_bounds):
        raise ValueError("no shares fit the bounds")
    # The sum rises with the scale, and is linear between scales at which a share reaches a bound.
    breakpoints = {Fraction(0)}
    for weight, low_bound, high_bound in zip(weights, lower_bounds, upper_bounds, strict=True):
        if weight:
            breakpoints |= {Fraction(low_bound) / weight, Fraction(high_bound) / weight}
    scales = sorted(breakpoints)
    for low_scale, high_scale in zip(scales, [*scales[1:], None], strict=True):
        if (
            high_scale is not None
            and sum(_clipped_shares(weights, lower_bounds, upper_bounds, high_scale)) < total
        ):
            continue
        low_sum = sum(_clipped_shares(weights, lower_bounds, upper_bounds, low_scale))
        other_scale = low_scale + 1 if high_scale is None else high_scale
        slope = sum(_clipped_shares(weights, lower_bounds, upper_bounds, other_scale)) - low_sum
        scale = (
            low_scale
            if slope == 0
            else low_scale + (other_scale - low_scale) * (total - low_sum) / slope
        )
        shares = _clipped_shares(weights, lower_bounds, upper_bounds, scale)
        if sum(shares) == total:
            return shares
    raise ValueError("the wanted shares cannot reach the total")


def bounded_bps(
    shares: Sequence[Fraction], lower_bounds: Sequence[int], upper_bounds: Sequence[int], total: int
) -> list[int]:
    """Return whole basis points within the bounds with sum `total`, rounded by largest remainder.

    Ties go to the earlier entry. Shares outside the bounds are clipped.
    """
    clipped_shares = [
        min(max(share, Fraction(low_bound)), Fraction(high_bound))
        for share, low_bound, high_bound in zip(shares, lower_bounds, upper_bounds, strict=True)
    ]
    whole_bps = [floor_int(share) for share in clipped_shares]
    while (missing_bps := total - sum(whole_bps)) != 0:
        increment = sign_of(missing_bps)
        adjustable_indexes = [
            i
            for i in range(len(whole_bps))
            if lower_bounds[i] <= whole_bps[i] + increment <= upper_bounds[i]
        ]
        if not adjustable_indexes:
            raise ValueError("no shares fit the bounds")
        index = max(
            adjustable_indexes, key=lambda i: (increment * (clipped_shares[i] - whole_bps[i]), -i)
        )
        whole_bps[index] += increment
    return whole_bps


def _clipped_shares(
    weights: Sequence[Fraction],
    lower_bounds: Sequence[int],
    upper_bounds: Sequence[int],
    scale: Fraction,
) -> list[Fraction]:
    return [
        min(max(weight * scale, Fraction(low_bound)), Fraction(high_bound))
        for weight, low_bound, high_bound in zip(weights, lower_bounds, upper_bounds, strict=True)
    ]


_YEAR_10000_S = 253_402_300_800
"""Unix time at which the year 10000 begins, which datetime cannot represent."""


_DURATION_UNITS = ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min"), (1, "s"))


def format_percent(share: Fraction) -> str:
    """Format a share of one as percent, rounded half-even to two places: 5/12 -> "41.67 %"."""
    return f"{decimal_text(round(share * BPS), 2)} %"


def format_bps(bps: int) -> str:
    """Format basis points as percent without padding: 1,000 -> "10 %"."""
    return f"{float(Fraction(bps, 100)):g} %"


def format_points(distance: Fraction) -> str:
    """Format a distance between shares in percentage points; a small one is never shown as zero."""
    distance_bps = round(abs(distance) * BPS)
    if distance_bps == 0 and distance != 0:
        return "less than 0.01 points"
    return "1 point" if distance_bps == 100 else f"{decimal_text(distance_bps, 2)} points"


def utc_text(at_s: int) -> str:
    """Format a Unix time as UTC date and time to the second."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def share_of(count: int, needed: int, unit: str = "") -> str:
    """Return how many of those needed there are, such as "1 of 2 signatures"; of more than needed
    "3 signatures (2 needed)". `unit` begins with a space.
    """
    return f"{count}{unit} ({needed} needed)" if count > needed else f"{count} of {needed}{unit}"


def minute_text(at_s: int) -> str:
    """Format a Unix time as UTC date and time to the minute."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def format_time(at_s: int) -> str:
    """Format a Unix time as UTC date and time to the second; a time outside the calendar as a plain
    number.
    """
    if not 0 <= at_s < _YEAR_10000_S:
        return f"second {at_s}"
    return f"{utc_text(at_s)} UTC"


def pluralize(number: int, noun: str) -> str:
    """Format a count: 1 rebalance, 23 rebalances."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def exact_duration(seconds: int) -> str:
    """Return a duration as a config has it, in the largest unit that divides it: 604,800 -> "7d"."""
    return next(
        f"{seconds // unit_s}{unit}" for unit_s, unit in _DURATION_UNITS if seconds % unit_s == 0
    )


def format_gwei(wei: int) -> str:
    """Format a gas price."""
    return f"{decimal_text(wei, 9)} gwei"


def format_duration(seconds: int) -> str:
    """Format a number of seconds exactly: 93,784 -> "1 day 2 h 3 min 4 s", 7 days."""
    duration_parts = []
    remaining_s = seconds
    for unit_s, unit in _DURATION_UNITS:
        unit_count, remaining_s = divmod(remaining_s, unit_s)
        if unit_count:
            unit_text = unit.replace("d", "day" if unit_count == 1 else "days")
            duration_parts.append(f"{unit_count} {unit_text}")
    return " ".join(duration_parts) or "0 s"


def rough_duration(seconds: int) -> str:
    """Format a time that passes, rounded down to the hour from a day on, to the minute from an hour
    on: 93,784 -> "1 day 2 h". A setting, and what is compared with one, has `format_duration`.
    """
    step_s = HOUR_S if seconds >= DAY_S else MINUTE_S if seconds >= HOUR_S else 1
    return format_duration(seconds - seconds % step_s)
