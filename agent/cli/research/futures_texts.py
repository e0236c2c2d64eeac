"""Texts of --futures that a simulated book and a what-if have in common."""

from __future__ import annotations

from collections.abc import Callable

from agent.app.research.whatif import VALUE_PLACES
from agent.cli.research.value_texts import FieldParsers, parse_by_symbol
from agent.errors import ConfigError
from agent.units import BPS, parse_raw, parse_share_with_unit_bps


def _parse_weights(weights_text: str) -> dict[str, int]:
    """Return signed weights in basis points by symbol. Raises ConfigError unless their absolute
    values sum to one.
    """
    weight_bps_by_symbol = parse_by_symbol(weights_text, "--futures target", _parse_weight)
    if sum(map(abs, weight_bps_by_symbol.values())) != BPS:
        raise ConfigError(
            "--futures target: absolute weights must sum to 100 %",
            "write for example BTC=50,ETH=-50 for a long and a short of equal size",
        )
    return weight_bps_by_symbol


def _parse_weight(weight_text: str, option: str) -> int:
    share_text = weight_text.removeprefix("-").removesuffix("%")
    weight_bps = parse_share_with_unit_bps(f"{share_text}%", option)
    return -weight_bps if weight_text.startswith("-") else weight_bps


def parse_positive_raw(amount_text: str, option: str) -> int:
    """Return an amount in units of 10^-18. Raises ConfigError naming the option for zero."""
    amount_raw = parse_raw(amount_text, VALUE_PLACES, option)
    if amount_raw == 0:
        raise ConfigError(f"{option}: must be above 0", "write an amount such as 10000")
    return amount_raw


def share_parser(name: str) -> Callable[[str], int]:
    """Return a parser of a share, for a name of --futures."""
    return lambda text: parse_share_with_unit_bps(text, f"--futures {name}")


POLICY_PARSERS: FieldParsers = {
    "target": ("weight_bps_by_symbol", _parse_weights),
    "leverage": ("leverage_bps", share_parser("leverage")),
    "band": ("band_bps", share_parser("band")),
    "max_leverage": ("max_leverage_bps", share_parser("max-leverage")),
    "max_utilisation": ("max_utilisation_bps", share_parser("max-utilisation")),
    "spot_multiple": ("spot_multiple_bps", share_parser("spot-multiple")),
    "stress": ("stress_move_bps", share_parser("stress")),
    "lot": (
        "lot_raw_by_symbol",
        lambda text: parse_by_symbol(text, "--futures lot", parse_positive_raw),
    ),
}
