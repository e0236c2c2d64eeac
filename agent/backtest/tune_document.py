"""What a search found as one plain document: ratios and values as decimal strings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.tune import Tuned
from agent.backtest.tune_bootstrap import LEVEL, Interval
from agent.backtest.tune_grid import Choice
from agent.backtest.tune_verdict import Claim
from agent.units import YEAR_S

Document = dict[str, Any]
SHOWN = 20
"""Settings that the document lists, the best first; the files of --out have all."""


def document(tuned: Tuned) -> Document:
    """Everything that the table, the report and a machine need."""
    search, stable = tuned.search, tuned.stability
    order = np.argsort(-tuned.score, kind="stable")[:SHOWN]
    near, risk, sure = tuned.neighbours, tuned.overfitting, tuned.deflated
    return {
        "recommendation": _choice(tuned.choices[tuned.best]) if tuned.verdict.recommended else None,
        "verdict": list(tuned.verdict.words),
        "safe_default": tuned.verdict.safe_default,
        "best": _setting(tuned, tuned.best),
        "settings": len(tuned.choices),
        "engines": dict(tuned.engines),
        "resumed": tuned.resumed,
        "objective": search.objective.value,
        "numeraire": search.wanted.portfolio.numeraire.symbol,
        "bars": search.table.bars,
        "from": int(search.table.times_s[0]),
        "last_quarter_from": tuned.last_from_s,
        "until": int(search.table.times_s[-1]),
        "period_s": round(tuned.period_s),
        "calendar": _choice(search.calendar),
        "last_quarter": {
            "claims": [_claim(one) for one in tuned.claims],
            "final_value": _number(tuned.last[0].final_value),
            "calendar_value": _number(tuned.last[1].final_value),
            "hold_value": _number(tuned.hold_final),
            "settings_judged": tuned.looks,
            "costs": _number(tuned.last[0].costs),
            "rebalances": tuned.last[0].rebalances,
        },
        "walk_forward": {
            "walk": search.walk.value,
            "folds": [
                {
                    "chosen": tuned.choices[one.choice].label,
                    "inside": _number(one.inside),
                    "outside": _number(one.outside),
                    "over_hold": _number(yearly(tuned, over_hold)),
                    "over_calendar": _number(yearly(tuned, over_calendar)),
                    "periods": one.fold.judged_to - one.fold.judged_from,
                }
                for one, over_hold, over_calendar in tuned.walk
            ],
            "claims": [_claim(one) for one in tuned.walk_claims],
        },
        "deflated_sharpe": None
        if sure is None
        else {
            "sharpe": _number(sure.sharpe),
            "threshold": _number(sure.threshold),
            "trials": sure.trials,
            "probability": _number(sure.probability),
        },
        "overfitting": None
        if risk is None
        else {"probability": _number(risk.probability), "ways": risk.ways, "blocks": risk.blocks},
        "stability": {
            "down": stable.down.name,
            "across": stable.across.name,
            "rows": list(stable.down.labels),
            "columns": list(stable.across.labels),
            "values": [[None if np.isnan(value) else _number(value) for value in row] for row in stable.values.tolist()],
            "best": list(stable.best),
            "neighbours": None
            if near is None
            else {
                "count": near.count,
                "mean_fall": _number(near.mean_fall),
                "largest_fall": _number(near.largest_fall),
                "spread": _number(near.spread),
            },
        },
        "ranked": [_setting(tuned, int(number)) for number in order],
        "notes": list(search.table.notes),
        "grid_hash": tuned.stamp["grid"],
        "config_hash": tuned.stamp["settings"],
        "data_hash": tuned.stamp["data"],
        "seed": search.settings.seed,
        "version": tuned.stamp["version"],
    }  # fmt: skip


def yearly(tuned: Tuned, returns: NDArray[np.float64]) -> float:
    """The mean of log returns per period, per year."""
    return float(returns.mean()) * YEAR_S / tuned.period_s


def _number(value: float) -> str:
    return f"{value:.6f}"


def _choice(choice: Choice) -> Document:
    band = choice.band
    return {
        "label": choice.label,
        "options": choice.options,
        "band_relative_bps": None if band is None else band.relative_bps,
        "band_absolute_bps": None if band is None else band.absolute_bps,
        "every_s": choice.every_s,
        "destination": choice.destination.value,
        "allocator": choice.allocator.value,
    }


def _setting(tuned: Tuned, number: int) -> Document:
    found = tuned.found[number]
    return {
        **_choice(tuned.choices[number]),
        "objective": _number(float(tuned.score[number])),
        "over_hold": _number(float(tuned.excess[number])),
        "final_value": _number(found.final_value),
        "turnover": _number(found.turnover),
        "costs": _number(found.costs),
        "rebalances": found.rebalances,
    }


def _claim(claim: Claim) -> Document:
    one: Interval | None = claim.interval
    if one is None:
        return {"over": claim.rival, "mean": None, "low": None, "high": None, "level": str(LEVEL), "periods": None, "block": None}
    return {
        "over": claim.rival,
        "mean": _number(one.mean),
        "low": _number(one.low),
        "high": _number(one.high),
        "level": str(LEVEL),
        "periods": one.periods,
        "block": f"{one.block:.2f}",
    }
