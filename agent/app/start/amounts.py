"""Amounts of a new config: the cash to use, and the ceiling of value and payouts."""

from __future__ import annotations

import json
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction

from agent.config.writing.template import replace_setting
from agent.errors import ConfigError
from agent.reference.checks import is_dollar

NUMERAIRE = "USDC"
"""Unit of account of a guided set-up, and of the templates."""
AMOUNT_PATTERN = re.compile(
    rf"\$? ?(?P<amount>([1-9][0-9]{{0,2}}(,[0-9]{{3}})+|[0-9]+)(\.[0-9]+)?)( ?(\$|{NUMERAIRE}))?",
    re.IGNORECASE,
)
POINT_OF_THOUSANDS_PATTERN = re.compile(r"(?P<thousands>[1-9][0-9]{0,2})\.(?P<rest>[0-9]{3})")
"""Amount of money whose point may be one between thousands, as many languages write it."""
DEFAULT_CEILING_USD = 1_000
"""Default portfolio.max_live_value of a new config, in dollars."""
HEADROOM = Decimal("1.5")
"""Ceiling per cash to use, so that a gain does not exceed it."""
WHOLE_FROM_COINS = 100
"""Suggested ceilings from this number of coins on are whole."""
SMALLEST_PART = Decimal("0.000001")
"""Part of a coin to which smaller ones are rounded; a numeraire has as many decimals, or more."""
LARGEST_CASH_USD = 10**9
"""Most cash to use, in dollars: more than the pools of any network trade."""
LARGEST_CEILING_USD = int(LARGEST_CASH_USD * HEADROOM)


def parse_amount(
    amount_text: str,
    field_name: str,
    remedy: str,
    unit: str = NUMERAIRE,
    largest: Fraction | int = LARGEST_CASH_USD,
) -> str:
    """Return an amount of the numeraire without separators and without its unit, as in "$500" and
    "500 USDC". Raises ConfigError, also for a comma that is none between thousands, such as a
    decimal one, for dollars whose point may be one between thousands, for a part of the smallest, and
    for more than `largest`.
    """
    match = AMOUNT_PATTERN.fullmatch(amount_text)
    amount = "" if match is None else match["amount"].replace(",", "")
    if not amount or Decimal(amount) == 0 or Fraction(amount) % Fraction(SMALLEST_PART):
        raise ConfigError(f"{field_name}: {amount_text[:40]!r} is not an amount of {unit}", remedy)
    thousands = POINT_OF_THOUSANDS_PATTERN.fullmatch(amount)
    if thousands is not None and is_dollar(unit):
        raise ConfigError(
            f"{field_name}: {amount_text[:40]!r} may have a point between thousands, or before parts of"
            " a coin",
            f"write {thousands['thousands']}{thousands['rest']} or {Decimal(amount).normalize():f}",
        )
    if Fraction(amount) > largest:
        raise ConfigError(
            f"{field_name}: {amount_text[:40]!r} is more than {int(largest):,} {unit}, which is more"
            " than the pools can trade",
            f"write at most {int(largest):,}",
        )
    return amount


def ceiling_of(use_cash: str | None, coin_usd: Fraction = Fraction(1)) -> str | None:
    """Return the portfolio.max_live_value for an amount of cash: 1.5 times that amount, so that a
    gain does not exceed it; None if the default ceiling is enough. A coin is worth `coin_usd`
    dollars.
    """
    if use_cash is None:
        return None
    try:
        ceiling = Decimal(use_cash) * HEADROOM
    except ArithmeticError:  # the config names the error
        return None
    if not ceiling.is_finite() or Fraction(ceiling) * coin_usd <= DEFAULT_CEILING_USD:
        return None
    return _coins_text(ceiling, ROUND_CEILING)


def paper_capital(use_cash: str | None, ceiling: str | None, numeraire_symbol: str) -> str:
    """Return the imaginary cash to begin with: that of the config, else two thirds of its ceiling,
    so that a gain does not exceed it. Without a ceiling (None) those of the default one, which is
    in dollars: empty for a numeraire that is none.
    """
    if use_cash is not None:
        return use_cash
    if ceiling is None and not is_dollar(numeraire_symbol):
        return ""
    return _coins_text(Decimal(ceiling or DEFAULT_CEILING_USD) * 2 / 3, ROUND_FLOOR)


def _coins_text(coins: Decimal, rounding: str) -> str:
    """Format an amount that is rounded to what a config and paper trading take."""
    if coins >= WHOLE_FROM_COINS:
        coins = coins.to_integral_value(rounding)
    else:
        coins = coins.quantize(SMALLEST_PART, rounding)
    return f"{coins.normalize():f}"


def with_amounts(config_text: str, use_cash: str | None, max_live_value: str | None) -> str:
    """Return the text of a config with `use_cash`, and with max_live_value and payout_per_day both
    set to `max_live_value`, so that everything can be paid out in one day; "off" sets only
    max_live_value. None changes nothing. Raises ConfigError for a max_live_value below the cash.
    """
    if use_cash is not None:
        cash_line = f"use_cash = {json.dumps(use_cash)} "
        config_text = replace_setting(config_text, '^# use_cash = "1000" ', cash_line)
    if max_live_value is None:
        return config_text
    require_ceiling(use_cash, max_live_value)
    capped_keys = (
        ("max_live_value",) if max_live_value == "off" else ("max_live_value", "payout_per_day")
    )
    for key in capped_keys:
        cap_line = f"{key} = {json.dumps(max_live_value)} "
        config_text = replace_setting(
            config_text, f'^{key} = "[^"]*" +', cap_line, keeps_width=True
        )
    return config_text


def require_ceiling(use_cash: str | None, ceiling: str, field_name: str = "--ceiling") -> None:
    """Raise ConfigError for a ceiling below the cash to use: every rebalance would be refused."""
    try:
        if use_cash is None or Decimal(ceiling) >= Decimal(use_cash):
            return
    except ArithmeticError:  # the config names the error
        return
    raise ConfigError(
        f"{field_name}: {ceiling} is below the {use_cash} of cash to use, so every rebalance would be"
        " refused",
        f"write {_coins_text(Decimal(use_cash) * HEADROOM, ROUND_CEILING)}, or use less cash",
    )
