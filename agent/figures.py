"""How documents are shown: the label and the format of each field, by the JSON schemas of the
documents (agent/web/api/openapi.json), the text of a figure, and the sentences of a pause, a stop
and a reason. Tables of the command line, pages and messages share them.
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

from agent.artifacts import WEB_FOLDER
from agent.policy.triggers.asset_range import AT_THESE_WEIGHTS, AssetRange
from agent.units import (
    MINUTE_S,
    SIGNIFICANT_DIGITS,
    YEAR_S,
    decimal_text,
    format_duration,
    rough_duration,
    short_address,
    shown_coin_price,
    value_text,
)

FIGURE_FORMAT_KEY = "x-figure"
"""Key of a field's format in its schema."""
MINUS = "−"
NO_VALUE = "–"
UNITS_IN_NAMES = ("_bps", "_raw")
MONEY_FORMATS = ("money", "cost")
WITH_THE_OTHERS = "with the others"
"""Stands for the side and the range of an asset that only the others bring beyond it."""
HALF_CENT = Fraction(1, 200)
"""What reads as zero with two decimals."""
SHARE_FORMATS = ("percent", "points", "ratio", "rate")
TEXT_FORMATS = ("text", "time")
ADDRESSES = re.compile(r"(pool )?\b(0x[0-9a-fA-F]{40}(?:, 0x[0-9a-fA-F]{40})*)\b")
"""Addresses of a reason that follow one another."""


@dataclass(frozen=True, slots=True)
class Column:
    """A field as a column of a table: its path in a row, its label and format."""

    path: str
    label: str
    figure: str

    @property
    def heading(self) -> str:
        """Label with a capital, for pages."""
        return as_sentence(self.label)

    @property
    def is_text(self) -> bool:
        """Whether the column has words instead of figures."""
        return self.figure in TEXT_FORMATS


def field_label(name: str) -> str:
    """Return a field's name in words, without its unit."""
    for unit in UNITS_IN_NAMES:
        name = name.removesuffix(unit)
    return name.replace("_", " ").capitalize()


@cache
def column(document: str, path: str) -> Column:
    """Return the column of the field at `path`, such as `cost.total` or `holdings.0.price`, of a
    document type. Raises KeyError for a field that the type does not declare.
    """
    schema = _schemas()[document]
    field_name = ""
    figure = ""
    label = ""
    remaining_path = path
    while remaining_path:
        name, _, rest_of_path = remaining_path.partition(".")
        value_schema = _resolved_schema(schema)
        if name in value_schema.get("properties", ()):
            schema = value_schema["properties"][name]
            field_name = name
            figure = ""
            title = schema.get("title", field_label(name))
            label = title if title[:2].isupper() else title[:1].lower() + title[1:]
            remaining_path = rest_of_path
        elif "items" in value_schema and name.isdigit():
            schema = value_schema["items"]
            remaining_path = rest_of_path
        elif schema := value_schema.get("additionalProperties"):
            label = remaining_path  # a symbol, which may have dots
            remaining_path = ""
        else:
            raise KeyError(f"{document}: {path}")
        figure = _figure_format(schema) or figure
    if not figure:
        figure = "percent" if field_name.endswith("_bps") else "text"
    return Column(path, label, figure)


def columns(document: str, *paths: str) -> tuple[Column, ...]:
    """Return the columns of several fields of a document type."""
    return tuple(column(document, path) for path in paths)


@cache
def _schemas() -> dict[str, Any]:
    """Return the schema of each document type."""
    api_document = json.loads((WEB_FOLDER / "api" / "openapi.json").read_bytes())
    schema_by_name: dict[str, Any] = api_document["components"]["schemas"]
    return schema_by_name


def _resolved_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of an object or list, behind references and without null."""
    for alternative in schema.get("anyOf", ()):
        if alternative.get("type") != "null":
            return _resolved_schema(alternative)
    if "$ref" in schema:
        return _resolved_schema(_schemas()[schema["$ref"].rpartition("/")[2]])
    return schema


def _figure_format(schema: Mapping[str, Any]) -> str:
    for alternative in (schema, *schema.get("anyOf", ()), schema.get("items", {})):
        if FIGURE_FORMAT_KEY in alternative:
            return str(alternative[FIGURE_FORMAT_KEY])
    return ""


def format_figure(value: Any, figure_format: str, minus: str = MINUS) -> str:
    """Format a value: `money`, `cost`, `amount`, `price` and `size` (without its sign) of a decimal
    string, `percent` and `points` of bps, `ratio` and (with 4 decimals) `rate` of a share,
    `multiple`, `number`, `text`, `lead` of a reason, `time` of an ISO time in UTC, `coins:6` of base
    units with 6 decimals. With a `+` at the end a positive value has its sign.

    Money is rounded half-even to two places, as in `value_text`, a cost that would read zero to two
    digits, prices as in `shown_coin_price`; amounts of coins are truncated, so that no more is shown
    than there is.
    """
    if value is None:
        return NO_VALUE
    format_kind = figure_format.removesuffix("+")
    has_plus = figure_format.endswith("+")
    if format_kind == "text":
        return str(value)
    if format_kind == "lead":
        return lead_reason(str(value))
    if format_kind == "time":
        return str(value).replace("T", " ").removesuffix("Z")
    if format_kind == "multiple":
        return f"{float(value):,.2f}x"
    if format_kind.startswith("coins:"):
        value = decimal_text(int(value), int(format_kind.removeprefix("coins:")))
        format_kind = "amount"
    if format_kind == "size":
        return _format_decimal(str(value).lstrip("-"), "amount")
    if format_kind in SHARE_FORMATS:
        share = float(value) / (100 if format_kind in ("percent", "points") else 0.01)
        if not math.isfinite(share):
            return NO_VALUE
        unit = "points" if format_kind == "points" else "%"
        decimals = 4 if format_kind == "rate" else 2
        figure_text = f"{abs(share):,.{decimals}f} {unit}"
        is_negative = share < 0
    else:
        figure_text = _format_decimal(str(value).lstrip("-"), format_kind)
        is_negative = str(value).startswith("-")
    if not any(digit in "123456789" for digit in figure_text):
        return figure_text
    if is_negative:
        return minus + figure_text
    return f"+{figure_text}" if has_plus else figure_text


_FIGURE_START = r"(--[a-z-]+ )?(?<![\w.,:/='\"-])"
"""Before a figure of a sentence: perhaps an option, whose value stays as it is typed."""
_SYMBOL = r"(?:[A-Z][A-Z0-9]{2,11}|[a-z]{1,2}[A-Z]{3,6})\b"


def reader_text(sentence: str) -> str:
    """Return a sentence for a reader, with its figures in the one style of tables and pages:
    "1740 s" as "29 min", "limit 3000 bps" as "limit 30 %", "1000.5 USDC" as "1,000.5 USDC", coins
    with six significant digits, but all those of a measured value and its limit, a price such as
    "3000.126 USDC/WETH" as tables show it, "27 to 33 %" as "27-33 %".
    """
    for pattern, style in _SENTENCE_STYLES:
        sentence = pattern.sub(style, sentence)
    return sentence


def _duration_style(match: re.Match[str]) -> str:
    is_short = int(match[2]) < MINUTE_S
    return match[0] if match[1] or is_short else format_duration(int(match[2]))


_SMALL_SHARES = re.compile(
    r"\bbps (?:a year|per hour|of turnover)|\btracking (?:error|[0-9.]+ bps)"
)
"""Losses of a year, costs of tracking error and gaps: in basis points everywhere."""


def _bps_style(match: re.Match[str]) -> str:
    if match[1] or _SMALL_SHARES.search(match.string):
        return match[0]
    # exactly, so that a breach never displays as equal to its limit
    return f"{match[2]}{(Decimal(match[3]) / 100).normalize():,f} %"


def _amount_style(match: re.Match[str]) -> str:
    sign = "-" if match[2].startswith("-") else ""
    has_cents = match[2][-3:-2] == "."
    is_shown_price = "." in match[2] and match[2].endswith("0") and not has_cents
    if match[1] or is_shown_price:
        return match[0]
    is_exact = match.string[: match.start(2)].endswith(("measured ", "limit "))
    figure_format = (
        "price" if match[3] else "number" if is_exact else "money" if has_cents else "amount"
    )
    return sign + _format_decimal(match[2].lstrip("-"), figure_format)


def _range_style(match: re.Match[str]) -> str:
    return f"{_short_number(float(match[1]))}-{_short_number(float(match[2]))} %"


def _short_number(number: float) -> str:
    """Return two decimals, and four of a number below one, without trailing zeros."""
    return f"{number:,.{2 if abs(number) >= 1 else 4}f}".rstrip("0").rstrip(".")


_SENTENCE_STYLES = (
    (re.compile(_FIGURE_START + r"([0-9]{2,9}) ?s\b"), _duration_style),
    (re.compile(_FIGURE_START + r"([-+]?)([0-9]+(?:\.[0-9]+)?) bps\b"), _bps_style),
    (
        re.compile(
            _FIGURE_START
            + rf"(-?[0-9]+(?:\.[0-9]+)?)(?= (?!UTC\b){_SYMBOL}((?:/| per ){_SYMBOL})?)"
        ),
        _amount_style,
    ),
    (
        re.compile(r"(?<![\w.,:/-])([0-9]+(?:\.[0-9]+)?)(?:-| to )([0-9]+(?:\.[0-9]+)?) %"),
        _range_style,
    ),
)


_PLAIN_WORD = re.compile(r"(?!trimtab\b)[a-z]+(?:['-][a-z]+)*(?=[ ,;.]*(?: |$))")
"""First word of a sentence that is a word of the language: no symbol such as cbBTC, key, address,
command, or field before a colon.
"""


def as_sentence(text: str) -> str:
    """Return a text with the capital of a sentence; as it is if it begins with a name, whose case
    counts.
    """
    return text[:1].upper() + text[1:] if _PLAIN_WORD.match(text) else text


def brief_reason(reason: str) -> str:
    """Return a reason with its addresses counted, or shortened if there is only one. Parts that
    differ in their addresses only are one part.
    """
    addresses_by_part: dict[tuple[str, str, str], list[str]] = {}
    for part in reason.split("; "):
        match = ADDRESSES.search(part)
        if match is None:
            addresses_by_part[part, "", ""] = []
            continue
        key = (part[: match.start()], match[1] or "", brief_reason(part[match.end() :]))
        addresses_by_part.setdefault(key, []).extend(match[2].split(", "))
    return "; ".join(
        f"{text_before}{_counted_addresses(noun, addresses)}{text_after}"
        for (text_before, noun, text_after), addresses in addresses_by_part.items()
    )


def ranges_beside_targets(zone: Mapping[str, Any]) -> str:
    """Return which assets of a zone have a range beside their target, and why; empty for none."""
    symbols = [
        asset["symbol"]
        for asset in zone["assets"]
        if not asset["no_trade_bps"][0] <= asset["target_bps"] <= asset["no_trade_bps"][1]
        and not asset_range(asset, "trigger_bps").others_text
    ]
    if not symbols:
        return ""
    return (
        f"{', '.join(symbols)}: a range lies beside its target {AT_THESE_WEIGHTS}, as coins that move"
        " together stand in for one another; it comes back as they do"
    )


def asset_range(asset: Mapping[str, Any], edges_key: str = "band_bps") -> AssetRange:
    """Return the weight of a document's asset against its band, or its edges of another key."""
    low_bps, high_bps = asset[edges_key]
    return AssetRange(asset["weight_bps"], asset["target_bps"], low_bps, high_bps)


def correction_text(asset: Mapping[str, Any], numeraire: str) -> str:
    """Return why an asset of a zone waits or is due, by what a trade back costs and what waiting
    does, without figures where neither costs a cent; empty within its range, and for one that waits
    at its target within rounding. One that only the others bring beyond it is neither above nor
    below.
    """
    correction = asset["correction"]
    trigger_range = asset_range(asset, "trigger_bps")
    others_text = trigger_range.others_text
    if correction is None or max(map(Fraction, correction.values())) < HALF_CENT:
        return f"{asset['symbol']}: {others_text}" if others_text else ""
    low_bps, high_bps = asset["trigger_bps"]
    side, edge_bps = (
        ("below", low_bps)
        if 2 * asset["weight_bps"] < sum(asset["no_trade_bps"])
        else ("above", high_bps)
    )
    is_due = trigger_range.is_outside
    if not is_due and abs(asset["weight_bps"] - asset["target_bps"]) <= ROUNDING_BPS:
        return ""
    state_text = "is due, as it is" if is_due else "waits, as it is not"
    why_text = (
        f"{asset['symbol']}: {others_text}; correcting that"
        if others_text
        else f"{asset['symbol']} {state_text} {side} {format_figure(edge_bps, 'percent')}"
        f"{trigger_range.condition_text}: a trade back"
    )
    waiting_text = waiting_time_text(
        Fraction(correction["cost"]), Fraction(correction["waiting_year"])
    )
    return (
        f"{why_text} costs {format_figure(correction['cost'], 'money')} {numeraire} once,"
        " waiting costs as much"
        + (
            f" every {waiting_text}"
            if is_due
            else f" in {waiting_text}, and prices may move it back before"
        )
    )


def waiting_time_text(cost: Fraction, waiting_year: Fraction) -> str:
    """Return the time in which waiting costs as much as a correction."""
    if cost >= MAX_WAITING_YEARS * waiting_year:
        return f"{MAX_WAITING_YEARS} years or more"
    return rough_duration(int(cost / waiting_year * YEAR_S))


def pause_text(is_hard: bool) -> str:
    """Return what a pause lets trimtab send, as a clause."""
    if is_hard:
        return "only rejections, cancellations and revocations of allowances are sent"
    return "nothing is sent"


def pause_exceptions(pause: Mapping[str, Any]) -> str:
    """Return what a pause does not stop, after `pause_text` or its reason: "; but …", or
    nothing. `pause` has the fields of the status.
    """
    return "".join(f"; but {signed_text}" for signed_text in pause["pause_signed"])


def stop_text(stop: Mapping[str, Any]) -> str:
    """Return what an active stop of a status means, and how to end it."""
    if not stop["done"]:
        return (
            f"Being stopped since {stop['since']}, not finished: trimtab stop --send continues it,"
            " trimtab resume ends it. Nothing else is traded, exits included"
        )
    buy_back_text = ", which buys back towards the targets" if stop["to_stable"] else ""
    return (
        f"Stopped since {stop['since']}: nothing is traded, exits included. To restart it: trimtab"
        f" resume, then trimtab run --send{buy_back_text}"
    )


MAX_WAITING_YEARS = 2
"""Time of waiting from which only this is said of it."""
ROUNDING_BPS = 5
"""Distance within which a weight is said to be at its target: a tenth of a percent, rounded."""
REFUSED_PREFIX = "refused: "
"""How the reason of a refused step begins."""
LONG_REASON = 160
"""Length of a reason from which pages show its first sentence and fold the rest."""


def lead_reason(reason: str) -> str:
    """Return a reason without its addresses, and without the outcome "refused", which stands beside
    it; of a long one the first sentence.
    """
    brief = brief_reason(reason.removeprefix(REFUSED_PREFIX))
    return brief if len(brief) < LONG_REASON else first_sentence(brief)


def first_sentence(reason: str) -> str:
    """Return what comes before the first semicolon of a reason; of a trigger that did not act, also
    what follows "; but" up to the next.
    """
    trigger, conjunction, why = reason.partition("; but ")
    return trigger.partition("; ")[0] + conjunction + why.partition("; ")[0]


def _counted_addresses(noun: str, addresses: Sequence[str]) -> str:
    """Return how many different addresses there are, of pools if `noun` is "pool "."""
    address_count = len({*addresses})
    if address_count > 1:
        return f"{address_count} {'pools' if noun else 'addresses'}"
    return "".join(f"{noun}{short_address(address)}" for address in addresses[:1])


TOKEN_LUMINANCE = 0.2
"""Relative luminance (WCAG 2.2) of each token's colour, which is 4:1 against white and against the
dark page.
"""
TOKEN_SATURATION = 0.65
SAME_TOKENS = {
    "WETH": "ETH",
    **dict.fromkeys(("WBTC", "CBBTC", "TBTC", "BTCB"), "BTC"),
    **dict.fromkeys(("WPOL", "MATIC", "WMATIC"), "POL"),
    "WBNB": "BNB",
    "USDC.E": "USDC",
    "USDBC": "USDC",
}
"""Symbols that have the colour of another one: wrapped coins, and forms of one asset."""
HUE_BY_TOKEN = {
    "ETH": 262, "BTC": 30, "USDC": 205, "USDT": 160, "DAI": 48, "BNB": 68, "POL": 285, "LINK": 100, "UNI": 325
}  # fmt: skip
"""Hues of frequent tokens, far from one another; others have that of their symbol's hash."""


@cache
def token_colour(symbol: str) -> str:
    """Return the colour of a token as #rrggbb."""
    name = SAME_TOKENS.get(symbol.upper(), symbol.upper())
    digest = hashlib.sha256(name.encode()).digest()
    hue = HUE_BY_TOKEN.get(name, int.from_bytes(digest[:2]) % 360)
    darkest = 0.0
    lightest = 1.0
    for _ in range(16):
        lightness = (darkest + lightest) / 2
        rgb = colorsys.hls_to_rgb(hue / 360, lightness, TOKEN_SATURATION)
        if relative_luminance(rgb) < TOKEN_LUMINANCE:
            darkest = lightness
        else:
            lightest = lightness
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in rgb)


def relative_luminance(rgb: Sequence[float]) -> float:
    """Return the relative luminance of sRGB channels from 0 to 1 (WCAG 2.2)."""
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in rgb
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _format_decimal(decimal_string: str, format_kind: str) -> str:
    """Format a positive decimal string with thousands separators."""
    if format_kind == "cost" and 0 < Fraction(decimal_string) <= HALF_CENT:
        return f"{Decimal(f'{Decimal(decimal_string):.1e}'):f}"
    if format_kind in MONEY_FORMATS:
        decimal_string = value_text(Fraction(decimal_string), 0, 2)
    if format_kind == "price":
        return shown_coin_price(Fraction(decimal_string))
    whole_digits, _, fraction_digits = decimal_string.partition(".")
    if format_kind == "number":
        return f"{int(whole_digits or 0):,}" + (f".{fraction_digits}" if fraction_digits else "")
    if format_kind in MONEY_FORMATS:
        return f"{int(whole_digits):,}.{fraction_digits:0<2}"
    leading_digits = (
        len(whole_digits)
        if int(whole_digits or 0)
        else -(len(fraction_digits) - len(fraction_digits.lstrip("0")))
    )
    shown_fraction = fraction_digits[: max(2, SIGNIFICANT_DIGITS - leading_digits)].rstrip("0")
    return f"{int(whole_digits or 0):,}" + (f".{shown_fraction}" if shown_fraction else "")


_POOL_PATTERN = re.compile("(?:pool )?(0x(?:[0-9a-fA-F]{64}|[0-9a-fA-F]{40}))")


def replace_pool_addresses(
    text: str, name_by_pool: Mapping[str, str], *, keeps_addresses: bool = False
) -> str:
    """Replace pool addresses in the text by their names, or by both."""

    def pool_text(match: re.Match[str]) -> str:
        pool_name = name_by_pool.get(match[1])
        if pool_name is None:
            return match[0]
        return f"{pool_name} ({match[1]})" if keeps_addresses else pool_name

    return _POOL_PATTERN.sub(pool_text, text)
