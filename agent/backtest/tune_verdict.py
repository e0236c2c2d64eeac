"""Whether a setting is recommended, and in which words: never more than the interval of what it did out of sample supports."""

from __future__ import annotations

from dataclasses import dataclass

from agent.backtest.tune_bootstrap import FEWEST_PERIODS, LEVEL, Interval
from agent.backtest.tune_grid import Choice
from agent.backtest.tune_stats import Overfitting

NOTHING = 1e-6
"""Log growth per year that is none."""
OFTEN = 0.5
"""From here on the best of the past is no better in the future than any other, and is not recommended."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Excess growth over a rival in the last quarter, log return per year; None where periods are too few to say how sure."""

    rival: str
    interval: Interval | None

    @property
    def holds(self) -> bool:
        """Whether the whole interval is above zero, by more than floats lose where both did the same."""
        return self.interval is not None and self.interval.low > NOTHING

    @property
    def words(self) -> str:
        """In a sentence."""
        if self.interval is None:
            return f"against {self.rival}: fewer than {FEWEST_PERIODS} periods, too few for an interval"
        one = self.interval
        if max(abs(one.low), abs(one.high)) <= NOTHING:
            return f"against {self.rival}: the same in every period"
        ends = f"{LEVEL:.0%} interval {percent(one.low)} to {percent(one.high)}"
        return f"against {self.rival}: {percent(one.mean)} a year in log growth, {ends}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Recommended or not, with the reasons in words, and what to do where nothing is recommended."""

    recommended: bool
    words: tuple[str, ...]
    safe_default: str


def percent(share: float) -> str:
    """+1.23 %; what rounds to nothing has no sign of loss."""
    return f"{round(share * 100, 2) + 0.0:+.2f} %"


def verdict(best: Choice, calendar: Choice, claims: tuple[Claim, ...], risk: Overfitting | None, looks: int = 1) -> Verdict:
    """Recommends `best` where every claim holds and the chance of over-fitting is not a half or more; it is None where one setting alone
    was tried, and none chosen. `looks` settings, this one among them, were judged in that quarter by now.
    """
    overfit = risk is not None and risk.probability >= OFTEN
    told = [
        f"In the last quarter of the data, which the search never saw, {best.label} did, after costs, {claim.words}." for claim in claims
    ]
    if looks > 1:
        told.append(
            f"{looks} settings of this search were judged in that quarter by now: the best of several looks better there than it is."
        )
    default = f"{calendar.label}, which keeps weights near their targets with few trades; that it earns more is not said"
    if all(claim.holds for claim in claims) and not overfit:
        told.append(
            "Recommended. No more is claimed than the lower ends of these intervals, and only for markets like the one of the data."
        )
        return Verdict(True, tuple(told), default)
    if overfit and risk is not None:
        told.append(
            f"The best of one half of the data was below the median in the other in {risk.probability:.0%} of {risk.ways:,} ways to halve "
            "it: what was best here says nothing about what will be."
        )
    failing = [claim.rival for claim in claims if not claim.holds]
    over = f" over {' and '.join(failing)}" if failing else ""
    told.append(f"No edge{over} is shown, and nothing is recommended. The safe default is {default}.")
    return Verdict(False, tuple(told), default)
