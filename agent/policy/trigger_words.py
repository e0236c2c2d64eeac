"""A trigger, the bands of assets and what goes with them in words: what the owner confirms, and what status begins with."""

from __future__ import annotations

from fractions import Fraction

from agent.model import (
    AnyOf,
    Cron,
    Drawdown,
    Every,
    Hybrid,
    Only,
    Portfolio,
    Schedule,
    Staged,
    Threshold,
    Trigger,
    VolatilityJump,
    Zone,
)
from agent.policy import words

ONLY = {
    Only.SELL: "sells what is above its goal, and what it is paid waits in the numeraire",
    Only.BUY: "buys what is below its goal, with what the numeraire has above its target",
    Only.WINNERS: "sells only what is above its band",
    Only.LOSERS: "buys only what is below its band",
}


def trigger(one: Trigger, portfolio: Portfolio) -> str:
    """Such as "threshold: 10% of the target"."""
    match one:
        case Threshold():
            return f"threshold: {_width(one)}"
        case Every() | Cron():
            return f"time: {_when(one)}"
        case Hybrid(threshold, schedule):
            return f"hybrid: {_width(threshold)}, {_when(schedule)}"
        case Staged(review, execution, threshold):
            beyond = "" if threshold is None else f", beyond {_width(threshold)}"
            return f"review: {_when(review)}, executed {_when(execution)}{beyond}"
        case Drawdown(fall_bps, within_s, tokens):
            return f"drawdown: {_percent(fall_bps)} within {words.span(within_s)} of {_tokens(tokens, portfolio)}"
        case VolatilityJump(short_s, long_s, factor_bps, tokens):
            windows = f"{words.span(short_s)} above {_percent(factor_bps)} of the {words.span(long_s)} before"
            return f"volatility_jump: {windows}, of {_tokens(tokens, portfolio)}"
        case AnyOf(triggers):
            return "any of: " + "; ".join(trigger(other, portfolio) for other in triggers)
        case Zone(risk):
            by = "" if risk.measuring is None else f", risk of {words.span(risk.measuring.window_s)} of recorded prices"
            return f"zone: {float(risk.cost_bps):g} bps a year for 1% of tracking error, horizon {risk.horizon_s} s{by}"


def bands(portfolio: Portfolio) -> str:
    """Bands of single assets; empty where none has its own."""
    return ", ".join(f"{asset.token.label} {_width(asset.band)}" for asset in portfolio.assets if asset.band is not None)


def _width(threshold: Threshold) -> str:
    parts = [] if threshold.relative_bps is None else [f"{_percent(threshold.relative_bps)} of the target"]
    parts += [] if threshold.absolute_bps is None else [f"{_percent(threshold.absolute_bps)} of the portfolio"]
    return ", ".join(parts)


def _when(schedule: Schedule) -> str:
    match schedule:
        case Every(every_s):
            return f"every {words.span(every_s)}"
        case Cron(expression, timezone):
            return f"{expression} in {timezone}"


def _percent(bps: int) -> str:
    return f"{float(Fraction(bps, 100)):g}%"


def _tokens(tokens: tuple[str, ...], portfolio: Portfolio) -> str:
    named = [asset.token.label for asset in portfolio.assets if asset.token.address in tokens]
    return " or ".join(named) if named else "any asset"
