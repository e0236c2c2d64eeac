"""Texts of targets, bands and price shocks by symbol, and of single values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from fractions import Fraction
from typing import Any, TypeVar

from agent.app.research.whatif import VALUE_PLACES
from agent.config.tables.fields import parse_choice, parse_pairs
from agent.config.tables.triggers import parse_band
from agent.errors import ConfigError
from agent.model import Threshold
from agent.units import BPS, decimal_text, parse_bps, parse_raw, parse_share_with_unit_bps

Choice = TypeVar("Choice", bound=Enum)
Parsed = TypeVar("Parsed")
FieldParsers = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""Fields and parsers of texts, by the names of a grouped option."""
MAX_RISE_BPS = 1_000 * BPS
"""Largest rise: by a thousand times the price."""


def parse_targets(targets_text: str) -> dict[str, int]:
    """Parse --target into basis points by symbol; a bare number is percent. Raises ConfigError."""
    return parse_by_symbol(targets_text, "--target", _parse_target)


def _parse_target(share_text: str, option: str) -> int:
    is_bare_number = share_text.replace(".", "", 1).isdigit()
    return parse_bps(f"{share_text}%" if is_bare_number else share_text, option)


def parse_bands(bands_text: str) -> tuple[Threshold | None, dict[str, Threshold]]:
    """Return the common band (relative, absolute or both; None without bands), and the bands of
    single assets by symbol. Raises ConfigError, also for a band of all after one of an asset, which
    looks like that asset's second width.
    """
    common_band: Threshold | None = None
    asset_bands: dict[str, Threshold] = {}
    for band_text in filter(None, (piece.strip() for piece in bands_text.split(","))):
        symbol, equals, width_text = (piece.strip() for piece in band_text.partition("="))
        band = parse_band(width_text if equals else band_text, "--band")
        if equals:
            asset_bands[symbol] = _combined_band(asset_bands.get(symbol), band, f"{symbol}=")
        elif asset_bands:
            last_symbol = next(reversed(asset_bands))
            raise ConfigError(
                f"--band: {band_text} after {last_symbol}=… would be the band of all assets",
                f"write {last_symbol}={band_text}, or the band of all first",
            )
        else:
            common_band = _combined_band(common_band, band, "")
    return common_band, asset_bands


def _combined_band(band: Threshold | None, other_band: Threshold, prefix: str) -> Threshold:
    """Combine a relative and an absolute width. `prefix` stands before each width in the option."""
    if band is None:
        return other_band
    if (band.absolute_bps is None) == (other_band.absolute_bps is None):
        raise ConfigError(
            "--band: the same kind twice",
            f"give one of each, such as {prefix}10%rel,{prefix}5%abs; the narrower applies",
        )
    if band.absolute_bps is None:
        return replace(band, absolute_bps=other_band.absolute_bps)
    return replace(band, relative_bps=other_band.relative_bps)


def parse_member(text: str, option: str, members: Iterable[Choice]) -> Choice:
    """Return the member whose value the text is. Raises ConfigError naming the option."""
    return parse_choice(text, option, {str(member.value): member for member in members})


def parse_by_symbol(
    pairs_text: str, option: str, parse: Callable[[str, str], Parsed]
) -> dict[str, Parsed]:
    """Return by symbol what `parse` makes of a text and its option with the symbol. Raises ConfigError
    naming the option.
    """
    return {
        symbol: parse(text, f"{option} {symbol}")
        for symbol, text in parse_pairs(pairs_text, option).items()
    }


def parse_fields(texts: Mapping[str, Any], parsers: FieldParsers) -> dict[str, Any]:
    """Return the values of texts by field; what has no parser stays, by its name. Raises ConfigError."""
    values = dict[str, Any]()
    for name, text in texts.items():
        field, parse = parsers.get(name, (name, _unchanged))
        values[field] = parse(text)
    return values


def _unchanged(value: Any) -> Any:
    return value


def parse_fraction(text: str, option: str) -> Fraction:
    """Return a plain decimal of at most 18 places exactly. Raises ConfigError naming the option."""
    return Fraction(parse_raw(text, VALUE_PLACES, option), 10**VALUE_PLACES)


def parse_shocks(shock_texts: Sequence[str] | None, option: str) -> dict[str, int]:
    """Return the change of each price in basis points by symbol, from texts such as "ALT=-50%".
    Raises ConfigError naming the `option` for a change without sign or unit.
    """
    return parse_by_symbol(",".join(shock_texts), option, _parse_shock) if shock_texts else {}


def _parse_shock(share_text: str, field: str) -> int:
    sign = share_text[:1]
    magnitude_text = share_text[1:].strip()
    if sign not in ("-", "+") or not magnitude_text.endswith(("%", "bps")):
        raise ConfigError(
            f"{field}: {share_text!r} is not a change of the price",
            "write -50% for a fall, +50% for a rise",
        )
    magnitude_bps = parse_share_with_unit_bps(magnitude_text, field)
    if magnitude_bps == 0:
        raise ConfigError(f"{field}: {share_text!r} changes nothing", "omit it, or correct it")
    if sign == "-" and magnitude_bps >= BPS:
        raise ConfigError(
            f"{field}: {share_text!r} leaves no price", "write a fall of less than 100 %"
        )
    if magnitude_bps > MAX_RISE_BPS:
        raise ConfigError(
            f"{field}: {share_text!r} is more than a rise by a thousand times the price",
            f"write at most +{decimal_text(MAX_RISE_BPS, 2)}%",
        )
    return -magnitude_bps if sign == "-" else magnitude_bps
