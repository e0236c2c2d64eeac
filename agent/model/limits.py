"""The limits of [limits], one row each, but for those named at LIMITS. Config, template, profiles
and confirmation are derived from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from types import MappingProxyType

ABOVE_CEILING_TEXT = (
    "every rebalance is refused, also its sales; exits, withdrawals and a stop still sell"
)
"""What applies to a portfolio worth more than portfolio.max_live_value."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the config; None is "off".

    max_live_value, min_trade, pool_min_value and payout_per_day are in numeraire base units, limits
    of gas in wei. An active limit with missing data refuses the plan.

    `token_screen` enables the transfer test of tokens before each plan. `balance_jump_wait_s` is
    the chain time after which an increase beyond balance_jump counts as a deposit (None: at the
    next cycle). `first_purchase_s` is the time between two parts of a first purchase or top-up
    (None: turnover limits apply). `deposit_auto_bps` is
    the share of the portfolio up to which a day's increases beyond balance_jump count as deposits
    after two blocks (None: none). Fields with a default are missing from some stored steps.
    """

    price_impact_bps: int | None
    slippage_bps: int | None
    plan_cost_bps: int | None
    turnover_bps: int | None
    daily_turnover_bps: int | None
    daily_loss_bps: int | None
    oracle_deviation_bps: int | None
    second_quote_deviation_bps: int | None
    depeg_bps: int | None
    gas_price_wei: int | None
    gas_per_day_wei: int | None
    native_floor_wei: int | None
    head_age_s: int | None
    min_trade: Fraction | None
    pool_min_value: Fraction | None
    impermanent_loss_bps: int | None
    balance_jump_bps: int | None
    max_live_value: Fraction | None
    lp_max_weight_bps: int | None = None
    total_loss_bps: int | None = None
    native_top_up_wei: int | None = None
    token_screen: bool | None = True
    payout_per_day: Fraction | None = Fraction(0)
    balance_jump_wait_s: int | None = 86_400
    first_purchase_s: int | None = None
    deposit_auto_bps: int | None = None

    @property
    def smallest_trade(self) -> Fraction:
        """Smallest value that is traded: limits.min_trade, and at least a base unit of the
        numeraire.
        """
        return max(Fraction(1), self.min_trade or Fraction(0))


class LimitUnit(Enum):
    """Unit of a limit."""

    SHARE = "share"
    DURATION = "duration"
    GAS_PRICE = "gwei"
    NATIVE = "native"
    COINS = "coins"
    SWITCH = "switch"


class TighterDirection(Enum):
    """Direction in which a limit becomes tighter: a lower value, a higher value, or "on". "off" is
    the loosest value, except for LESS_OR_OFF and MORE_OR_OFF, where it is the tightest.
    """

    LESS = "less"
    MORE = "more"
    LESS_OR_OFF = "less, or off"
    MORE_OR_OFF = "more, or off"
    ON = "on"


_FIELD_SUFFIXES = {
    LimitUnit.SHARE: "_bps",
    LimitUnit.DURATION: "_s",
    LimitUnit.GAS_PRICE: "_wei",
    LimitUnit.NATIVE: "_wei",
    LimitUnit.COINS: "",
    LimitUnit.SWITCH: "",
}


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One key of [limits].

    `initial_value` is its value in a new config, for unit COINS whole dollars or "off"; `comment` its
    comment there.
    `default` is the value of an absent key (empty: the key is required). A limit above
    `ceiling_bps`, or off, must be named in limits.i_accept. A limit that `binds_exits` may refuse an
    exit, so that a control may not tighten it (T28).
    """

    key: str
    unit: LimitUnit
    tighter: TighterDirection
    initial_value: str
    comment: str = ""
    default: str = ""
    ceiling_bps: int | None = None
    binds_exits: bool = True

    @property
    def field_name(self) -> str:
        """Name of the field in Limits: key and unit suffix."""
        return self.key + _FIELD_SUFFIXES[self.unit]


_SHARE = LimitUnit.SHARE
_DURATION = LimitUnit.DURATION
_NATIVE = LimitUnit.NATIVE
_COINS = LimitUnit.COINS
_LESS = TighterDirection.LESS
_MORE = TighterDirection.MORE

LIMITS: Mapping[str, LimitSpec] = MappingProxyType(
    {
        spec.key: spec
        for spec in (
            LimitSpec(
                "price_impact",
                _SHARE,
                _LESS,
                "1%",
                "move of any pool's price by a plan",
                ceiling_bps=1_000,
            ),
            LimitSpec(
                "slippage",
                _SHARE,
                _LESS,
                "0.3%",
                "minimum output of a swap below its prediction",
                ceiling_bps=500,
            ),
            LimitSpec(
                "plan_cost",
                _SHARE,
                _LESS,
                "0.5%",
                "per unit of value moved, at the margin",
                ceiling_bps=500,
            ),
            LimitSpec(
                "turnover",
                _SHARE,
                _LESS,
                "30%",
                "of the portfolio, per rebalance",
                binds_exits=False,
            ),
            LimitSpec("daily_turnover", _SHARE, _LESS, "60%", binds_exits=False),
            LimitSpec(
                "daily_loss",
                _SHARE,
                _LESS,
                "1%",
                "loss by balances, gas included, over 24 h of chain time",
                ceiling_bps=2_000,
            ),
            LimitSpec(
                "total_loss",
                _SHARE,
                _LESS,
                "10%",
                "loss by trading since the store was created, without falling prices; at the"
                " limit nothing is traded until it is raised",
                default="off",
            ),
            LimitSpec("oracle_deviation", _SHARE, _LESS, "1.5%", "pools against reference prices"),
            LimitSpec(
                "second_quote_deviation",
                _SHARE,
                _LESS,
                "0.5%",
                "our quote against the quotes of the venue's contracts and of uniswap-python",
            ),
            LimitSpec("depeg", _SHARE, _LESS, "2%", "stable tokens against 1 USD"),
            LimitSpec("gas_price", LimitUnit.GAS_PRICE, _LESS, "60 gwei"),
            LimitSpec("gas_per_day", _NATIVE, _LESS, "0.05", "native coin"),
            LimitSpec("native_floor", _NATIVE, _MORE, "0.05", "native coin left for gas"),
            LimitSpec(
                "native_top_up",
                _NATIVE,
                TighterDirection.LESS_OR_OFF,
                "0.1",
                "below the floor, wrapped coin is unwrapped up to this much",
                default="off",
            ),
            LimitSpec("head_age", _DURATION, _LESS, "90s"),
            LimitSpec("min_trade", _COINS, _MORE, "10"),
            LimitSpec(
                "pool_min_value", _COINS, _MORE, "50000", "depth below which a pool is not used"
            ),
            LimitSpec(
                "impermanent_loss",
                _SHARE,
                _LESS,
                "1%",
                "of the portfolio: expected loss of liquidity positions over [lp] horizon",
            ),
            LimitSpec(
                "lp_max_weight",
                _SHARE,
                _LESS,
                "25%",
                "of the portfolio in liquidity positions",
                default="off",
            ),
            LimitSpec(
                "balance_jump",
                _SHARE,
                _LESS,
                "2%",
                "an unexplained balance change beyond it blocks purchases, never an exit",
                binds_exits=False,
            ),
            LimitSpec(
                "balance_jump_wait",
                _DURATION,
                _MORE,
                "24h",
                "an increase still unexplained after this time counts as a deposit",
                default="24h",
                binds_exits=False,
            ),
            LimitSpec(
                "deposit_auto",
                _SHARE,
                TighterDirection.LESS_OR_OFF,
                "10%",
                "increases of a day up to this share count as deposits after two blocks",
                default="off",
                binds_exits=False,
            ),
            LimitSpec(
                "first_purchase",
                _DURATION,
                TighterDirection.MORE_OR_OFF,
                "10m",
                "first purchases and invest are not counted as turnover; time between their parts;"
                ' "off": counted',
                default="off",
                binds_exits=False,
            ),
            LimitSpec(
                "token_screen",
                LimitUnit.SWITCH,
                TighterDirection.ON,
                "on",
                "test transfers of tokens before each plan that moves them (docs/tokens.md)",
                default="on",
            ),
            LimitSpec(
                "payout_per_day",
                _COINS,
                _LESS,
                "1000",
                "maximum paid out within 24 h",
                default="0",
                binds_exits=False,
            ),
        )
    }
)
"""Limits by key, in the order of errors and of the confirmation.

Three limits have no row: limits.max_weight, a table by asset, limits.futures_notional, a multiple
of the spot value, and portfolio.max_live_value. A profile may set any limit with a row.
"""
LIMITS_IN_CONFIG_ORDER = tuple(
    sorted(LIMITS.values(), key=lambda spec: spec.unit is LimitUnit.SWITCH)
)
"""Limits in the order of a new config, with switches last."""
