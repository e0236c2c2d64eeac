"""A guard: its name, limit, measurement and remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agent.guards.case import (
    OFF,
    GuardCase,
    GuardMeasurement,
    MissingData,
    format_bps,
    format_gwei,
    format_money,
    format_native,
    format_seconds,
)
from agent.model import LIMITS, Limits, LimitSpec, LimitUnit, StepInput, TighterDirection, Verdict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Guard(Generic[T]):
    """A guard: `limit` reads the limit from the input (None: off), `words` formats it, `measure`
    compares the case with it. `remedy` follows the words "do this:". A guard that `judges_market`
    checks only the pools and tokens of a plan: its refusal does not concern another exit.
    """

    name: str
    limit: Callable[[StepInput], T | None]
    words: Callable[[T, StepInput], str]
    measure: Callable[[GuardCase, T], GuardMeasurement]
    remedy: str
    judges_market: bool = False

    def judge(self, case: GuardCase) -> Verdict:
        """Return the verdict; missing data refuse, a limit that is off passes."""
        limit = self.limit(case.step)
        if limit is None:
            return Verdict(self.name, "not measured", OFF, True)
        try:
            measured = self.measure(case, limit)
        except MissingData as why:
            measured = GuardMeasurement(f"unknown: {why}", False)
        return Verdict(self.name, measured.text, measured.limit or self.words(limit, case.step), measured.passed)


def always(
    name: str, rule: str, measure: Callable[[GuardCase], GuardMeasurement], remedy: str, *, judges_market: bool = False
) -> Guard[bool]:
    """Return a guard that no config switches off; `rule` is the text of its limit."""
    return Guard(name, lambda _: True, lambda _, __: rule, lambda case, _: measure(case), remedy, judges_market)


def limited(
    key: str,
    limit: Callable[[Limits], T | None],
    measure: Callable[[GuardCase, T], GuardMeasurement],
    remedy: str,
    *,
    judges_market: bool = False,
) -> Guard[T]:
    """Return a guard for a key of [limits]; the key's row in LIMITS decides how the limit is formatted."""
    spec = LIMITS[key]
    return Guard(key, lambda step: limit(step.limits), lambda value, step: _words(spec, value, step), measure, remedy, judges_market)


def _words(spec: LimitSpec, limit: Any, step: StepInput) -> str:
    """A limit with its unit; "at least" where more is tighter."""
    match spec.unit:
        case LimitUnit.SHARE:
            text = format_bps(limit)
        case LimitUnit.DURATION:
            text = format_seconds(limit)
        case LimitUnit.GAS_PRICE:
            text = format_gwei(limit)
        case LimitUnit.NATIVE:
            text = format_native(limit)
        case LimitUnit.COINS:
            text = format_money(limit, step.portfolio.numeraire)
        case LimitUnit.SWITCH:
            text = "on"
    return f"at least {text}" if spec.tighter is TighterDirection.MORE else text
