"""A guard: its name, limit, measurement and remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from agent.guards.case import OFF, GuardCase, GuardMeasurement, MissingData, format_bps, format_money, format_native, format_seconds
from agent.model import StepInput, Verdict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Guard(Generic[T]):
    """`limit` reads the limit from the input (None: off), `words` formats it, `measure` holds the case against it.

    `remedy` follows the words "do this:". A guard that `judges_market` judges the pools and tokens of a plan alone: what it refuses
    says nothing against another exit.
    """

    name: str
    limit: Callable[[StepInput], T | None]
    words: Callable[[T, StepInput], str]
    measure: Callable[[GuardCase, T], GuardMeasurement]
    remedy: str
    judges_market: bool = False

    def judge(self, case: GuardCase) -> Verdict:
        """One verdict; missing data refuses, a limit that is off passes."""
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


# --- A limit in words, by its unit.


def bps(limit: int, _: StepInput) -> str:
    """Basis points."""
    return format_bps(limit)


def seconds(limit: int, _: StepInput) -> str:
    """A duration."""
    return format_seconds(limit)


def native(limit: int, _: StepInput) -> str:
    """At most so much native coin."""
    return format_native(limit)


def money(limit: Fraction, step: StepInput) -> str:
    """At most so much of the numeraire."""
    return format_money(limit, step.portfolio.numeraire)


def at_least(limit: Fraction, step: StepInput) -> str:
    """At least so much of the numeraire."""
    return f"at least {money(limit, step)}"
