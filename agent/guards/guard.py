"""A guard: name, limit, measurement and remedy; formats of measurements and limits in verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Any, Generic, TypeVar

from agent.guards.case import GuardCase, GuardMeasurement, MissingData
from agent.model import (
    LIMITS,
    Limits,
    LimitSpec,
    LimitUnit,
    Plan,
    Portfolio,
    StepInput,
    TighterDirection,
    Verdict,
)
from agent.units import BPS, Token, ceil_int, decimal_text, format_gwei, value_text

OFF = "off"


def format_bps(bps: int) -> str:
    """Format basis points: 100 -> "100 bps"."""
    return f"{bps} bps"


def format_ratio(share: Fraction) -> str:
    """Format a share in basis points, rounded up to two places so that a breach never displays as
    equal to the limit.
    """
    return f"{decimal_text(ceil_int(share * BPS * 100), 2)} bps"


def format_money(value: Fraction, numeraire: Token) -> str:
    """Format a value in numeraire base units as whole coins."""
    return f"{value_text(value, numeraire.decimals)} {numeraire.label}"


def format_native(wei: int) -> str:
    """Format an amount of native coin."""
    return f"{decimal_text(wei, 18)} native"


def format_seconds(seconds: int) -> str:
    """Format a duration."""
    return f"{seconds} s"


T = TypeVar("T")


class GuardScope(Enum):
    """What else a guard concerns that refuses the plan of an exit."""

    PLAN = "plan"
    """Every plan: no other exit is tried in this cycle."""
    MARKET = "market"
    """Pools and tokens of this plan: the other exits go on."""
    WALLET = "wallet"
    """A limit that another exit may meet, because of its cost, gas, prices or failures: until it
    allows this one, only plans that reduce risk are sent.
    """


@dataclass(frozen=True, slots=True)
class Guard(Generic[T]):
    """A guard. `read_limit` reads the limit from the input (None: off), `format_limit` formats it,
    `measure` compares the case with it. `limit_of_plan` returns the limit of the plan for that of
    the input, such as a layer's own; either may be None.

    `remedy` is an instruction for the owner, `scope` what its refusal of an exit concerns.
    `applies_to` says which plans it judges. One that `judges_minimums` judges the minimums of an
    earlier plan again at new prices, and one that `judges_prices` these prices.
    """

    name: str
    read_limit: Callable[[StepInput], T | None]
    format_limit: Callable[[T, StepInput], str]
    measure: Callable[[GuardCase, T], GuardMeasurement]
    remedy: str
    scope: GuardScope = GuardScope.PLAN
    applies_to: Callable[[Plan], bool] = lambda _: True
    judges_minimums: bool = False
    judges_prices: bool = False
    limit_of_plan: Callable[[GuardCase, T | None], T | None] = lambda _, limit: limit

    def measured_by(self, *measures: Callable[[GuardCase, T], GuardMeasurement | None]) -> Guard[T]:
        """Return the guard that takes the first of these measurements, such as those of a layer's
        actions, and its own where all are None.
        """

        def measure(case: GuardCase, limit: T) -> GuardMeasurement:
            for measure_plan in measures:
                if (measurement := measure_plan(case, limit)) is not None:
                    return measurement
            return self.measure(case, limit)

        return replace(self, measure=measure)

    def judge(self, case: GuardCase) -> Verdict:
        """Return the verdict. Missing data refuse the plan; a limit that is off passes."""
        limit = self.limit_of_plan(case, self.read_limit(case.step))
        if limit is None:
            return Verdict(self.name, "not measured", OFF, True)
        is_known = True
        try:
            measurement = self.measure(case, limit)
        except MissingData as error:
            is_known = False
            measurement = GuardMeasurement(f"unknown: {error}", False)
        return Verdict(
            self.name,
            measurement.text,
            measurement.limit_text or self.format_limit(limit, case.step),
            measurement.passed,
            is_known,
        )


def fixed_guard(
    name: str,
    limit_text: str,
    measure: Callable[[GuardCase], GuardMeasurement],
    remedy: str,
    *,
    scope: GuardScope = GuardScope.PLAN,
    applies_to: Callable[[Plan], bool] = lambda _: True,
    judges_minimums: bool = False,
) -> Guard[bool]:
    """Return a guard that the config cannot switch off; `limit_text` is the text of its limit."""
    return Guard(
        name,
        lambda _: True,
        lambda _, __: limit_text,
        lambda case, _: measure(case),
        remedy,
        scope,
        applies_to,
        judges_minimums,
    )


def limit_guard(
    key: str,
    read_limit: Callable[[Limits], T | None],
    measure: Callable[[GuardCase, T], GuardMeasurement],
    remedy: str,
    *,
    scope: GuardScope = GuardScope.PLAN,
    limit_of_plan: Callable[[GuardCase, T | None], T | None] = lambda _, limit: limit,
) -> Guard[T]:
    """Return a guard for a key of [limits]; the row of the key in LIMITS determines the format of
    the limit.
    """
    limit_spec = LIMITS[key]
    return Guard(
        key,
        lambda step: read_limit(step.limits),
        lambda limit_value, step: _format_limit(limit_spec, limit_value, step.portfolio),
        measure,
        remedy,
        scope,
        limit_of_plan=limit_of_plan,
    )


def _format_limit(limit_spec: LimitSpec, limit: Any, portfolio: Portfolio) -> str:
    """Format a limit with its unit, with "at least" for a minimum."""
    match limit_spec.unit:
        case LimitUnit.SHARE:
            limit_text = format_bps(limit)
        case LimitUnit.DURATION:
            limit_text = format_seconds(limit)
        case LimitUnit.GAS_PRICE:
            limit_text = format_gwei(limit)
        case LimitUnit.NATIVE:
            limit_text = format_native(limit)
        case LimitUnit.COINS:
            limit_text = format_money(limit, portfolio.numeraire)
        case LimitUnit.SWITCH:
            limit_text = "on"
    return f"at least {limit_text}" if limit_spec.tighter is TighterDirection.MORE else limit_text
