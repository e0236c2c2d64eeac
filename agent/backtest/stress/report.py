"""The stress report: figures, JSON document and page."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.backtest.report.page import (
    Figure,
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    format_duration,
    pluralize,
)
from agent.backtest.stress.run import (
    QUANTILES,
    WORST,
    StressCase,
    StressResult,
    expected_shortfall,
    quantiles,
)
from agent.backtest.stress.work import NAMES as CALM_NAMES

BINS = 60
NAMES = ("loss", "drawdown", "behind_hold", "turnover", "outside_bands")
FIELDS = dict(zip(NAMES, ("loss", "drawdown", "behind", "turnover", "outside"), strict=True))
TITLES = dict(
    zip(
        NAMES,
        ("Loss", "Worst drawdown", "Loss against hold", "Turnover", "Time outside the bands"),
        strict=True,
    )
)


def figures(case: StressCase) -> dict[str, Any]:
    """Return mean, worst value, quantiles and expected shortfall (5 %) of each measure, as decimal
    strings; None without values.
    """
    found: dict[str, Any] = {}
    for name, field in FIELDS.items():
        values = case.values(field)
        parts = quantiles(values)
        found[name] = parts and {
            "mean": f"{values.mean():.6f}",
            "worst": f"{values.max():.6f}",
            "expected_shortfall": f"{expected_shortfall(values):.6f}",
            "quantiles": {
                f"{q:.0%}": f"{value:.6f}" for q, value in zip(QUANTILES, parts, strict=True)
            },
        }
    return found


def stress_document(found: StressResult) -> dict[str, Any]:
    """Return the document of a stress test. Shares and ratios are decimal strings of six places,
    null without values.
    """
    return {
        "cases": [
            {
                "name": case.name,
                "by": case.by,
                "paths": len(case.measured),
                **figures(case),
                "rebalances": sum(one.rebalances for one in case.measured),
                "halted": sum(one.halted for one in case.measured),
                "refused": dict(case.refused),
            }
            for case in found.cases
        ],
        "left_out": dict(found.skipped),
        "bars": found.bars,
        "interval_s": found.interval_s,
        "made_from_moves": found.moves,
        "block": f"{found.block:.6f}",
        "jumps_per_bar": f"{found.jump_rate:.6f}",
        "kernel_off": None if found.kernel_off is None else f"{found.kernel_off:.3e}",
        "notes": list(found.notes),
        "parameters": dict(found.parameters),
        "seed": found.seed,
        "config_hash": found.config_hash,
        "data_hash": found.data_hash,
        "versions": dict(found.versions),
    }


def stress_sections(found: StressResult) -> tuple[ReportSection, ...]:
    """Return the sections on simulated paths, then on stress scenarios."""
    many = [case for case in found.cases if case.by == "kernel" or case.name in CALM_NAMES.values()]
    broken = [case for case in found.cases if case not in many]
    span = f"{found.bars} bars of {format_duration(found.interval_s)}"
    made = (
        f"Blocks of the recorded moves, {found.block:.1f} bars long on average, are drawn in random"
        " order (stationary bootstrap, Politis & Romano 1994); the jump diffusion (Merton"
        f" 1976) has their covariance and {found.jump_rate * 1000:.2f} jumps in 1,000 bars. Each"
        f" path is {span}, made from {found.moves} moves."
    )
    meant = (
        f"Expected shortfall is the mean of the worst {WORST:.0%} of paths; with fewer than"
        f" {1 / WORST:.0f} paths, the worst path. A negative loss is a gain."
    )
    first = ReportSection(
        "Simulated paths",
        (made, meant, *_off(found)),
        tuple(_distribution(many, name) for name in ("loss", "turnover")),
        tuple(
            _table(many, name)
            for name in NAMES
            if any(quantiles(case.values(FIELDS[name])) for case in many)
        ),
    )
    words = (
        (
            "The live step on recorded and resampled prices, with gas, limits, minimums and halts."
            " The scenario applies to the middle third of a path; a crash has no recovery."
        ),
        *(f"Skipped: {name}: {why}." for name, why in found.skipped),
    )
    second = ReportSection(
        "Stress scenarios",
        words,
        (_bars(broken),),
        (_what_happened(broken), *(_table(broken, name) for name in NAMES[:3])),
    )
    return first, second


def stress_page(found: StressResult) -> ReportPage:
    """Build the whole report."""
    worst = max(found.cases, key=lambda case: expected_shortfall(case.values("loss")))
    facts = [
        ReportFact(
            f"{case.name}: expected shortfall",
            _percent(expected_shortfall(case.values("loss"))),
            pluralize(len(case.measured), "path"),
        )
        for case in found.cases[:2]
    ]
    count = len(worst.measured)
    which = f"the mean of its worst {WORST:.0%} of paths"
    if count == 1:
        which = "its only path"
    elif count * WORST < 1:  # with so few paths, the expected shortfall is the worst path
        which = f"the worst of its {count} paths"
    loss = _percent(expected_shortfall(worst.values("loss")))
    summary = (
        (f"The worst case is {worst.name}: {which} is a loss of {loss} within {found.bars} bars."),
    )
    origin = (
        *(ReportFact(name, value) for name, value in found.parameters),
        ReportFact("config", found.config_hash),
        ReportFact("data", found.data_hash),
        ReportFact("seed", str(found.seed)),
        *(ReportFact(name, value) for name, value in found.versions),
    )
    return ReportPage(
        "Stress test", tuple(facts), stress_sections(found), summary, origin, kind="Stress"
    )


def _off(found: StressResult) -> tuple[str, ...]:
    if found.kernel_off is None:
        return ()
    return (
        (
            "These paths ran in the fast kernel, without gas and limits. On the calm paths below,"
            " its final value differs from the live step's by at most"
            f" {found.kernel_off:.1e}."
        ),
    )


def _distribution(cases: list[StressCase], name: str) -> Figure:
    every = np.concatenate([case.values(FIELDS[name]) for case in cases])
    edges = np.linspace(every.min(), every.max() + 1e-12, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    traces = []
    for case in cases:
        counts, _ = np.histogram(case.values(FIELDS[name]), edges)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hvh"},
                "x": middles,
                "y": counts / counts.sum(),
                "name": case.name,
            }
        )
    axis: dict[str, Any] = {"title": {"text": TITLES[name]}}
    if name != "turnover":
        axis = {"title": {"text": f"{TITLES[name]} at the end"}, "tickformat": ".0%"}
    return {
        "title": TITLES[name],
        "says": f"Distribution of {TITLES[name].lower()} over the paths.",
        "data": traces,
        "layout": {
            "xaxis": axis,
            "yaxis": {"title": {"text": "Share of paths"}, "tickformat": ".0%"},
        },
    }


def _bars(cases: list[StressCase]) -> Figure:
    names = [case.name for case in cases]
    traces = [
        {
            "type": "bar",
            "name": label,
            "x": names,
            "y": [measure(case.values("loss")) for case in cases],
        }
        for label, measure in (("median", np.median), ("worst", np.max))
    ]
    return {
        "title": "Loss at the end",
        "says": "Median and worst loss of each scenario.",
        "data": traces,
        "layout": {"yaxis": {"tickformat": ".0%"}, "barmode": "group"},
    }


def _table(cases: list[StressCase], name: str) -> ReportTable:
    header = ("", "paths", "mean", *(f"{q:.0%}" for q in QUANTILES), "shortfall", "worst")
    rows = []
    for case in cases:
        values = case.values(FIELDS[name])
        if (parts := quantiles(values)) is not None:
            numbers = (values.mean(), *parts, expected_shortfall(values), values.max())
            shown = tuple(
                f"{number:.3f}" if name == "turnover" else _percent(float(number))
                for number in numbers
            )
            rows.append((case.name, str(len(values)), *shown))
    return ReportTable(header, tuple(rows), TITLES[name])


def _what_happened(cases: list[StressCase]) -> ReportTable:
    rows = tuple(
        (
            case.name,
            str(len(case.measured)),
            str(sum(one.rebalances for one in case.measured)),
            str(sum(one.halted for one in case.measured)),
            ", ".join(f"{why} ({times})" for why, times in case.refused) or "–",
        )
        for case in cases
    )
    return ReportTable(
        ("", "paths", "rebalances", "bars halted", "refused by"),
        rows,
        "Steps over all paths",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
