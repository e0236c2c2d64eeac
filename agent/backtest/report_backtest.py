"""The report of one backtest: what came out in words, its figures, its sections, and by what it can be repeated."""

from __future__ import annotations

import math

from agent.backtest import report_costs, report_funding, report_sections
from agent.backtest.report import Fact, Page
from agent.backtest.report_sections import Found
from agent.backtest.report_series import course, fallen, risk
from agent.backtest.report_words import NONE, counted, day, days, length, money, named, percent, ratio
from agent.backtest.result import SimulationResult

NO_DIFFERENCE = 0.0005
"""Below a twentieth of a percent nobody should speak of a difference."""
MOST_FLOWS = 24
MOST_NAMES = 6
UNSAID = ("", "None", "()", "False")
NORMAL_95 = 1.96
FEWEST_FOR_INTERVAL = 60


def page_of(result: SimulationResult) -> Page:
    """The page. Raises Refused where empyrical is not installed."""
    grown = course(result)
    found = Found(result, grown, risk(grown))
    sections = (
        report_sections.worth(found),
        report_costs.earned(found),
        report_sections.weights(found),
        report_sections.falls(found),
        report_sections.trades(found),
        report_costs.turnover(found),
        report_costs.costs(found),
        report_funding.funding(found),
        report_sections.risks(found),
        report_costs.taxes(found),
        report_costs.course_of_steps(found),
    )
    return Page(
        title=_names(result),
        kind=f"Backtest, {days(int(result.times_s[0]), int(result.times_s[-1]))}",
        facts=_facts(found),
        sections=tuple(one for one in sections if one is not None),
        summary=_summary(found),
        origin=_origin(result),
    )


def _names(result: SimulationResult) -> str:
    first, left = [named(symbol) for symbol in result.symbols[:MOST_NAMES]], len(result.symbols) - MOST_NAMES
    if left > 0:
        return f"{', '.join(first)} and {left} more"
    return " and ".join(", ".join(first).rsplit(", ", 1))


def ahead_by(found: Found) -> float:
    """Growth of the rebalanced portfolio over that of the held one, less one; flows leave it alone."""
    return float(found.course.index[-1] / found.course.hold_index[-1]) - 1


def _summary(found: Found) -> tuple[str, ...]:
    result, unit, ahead = found.result, found.result.numeraire, ahead_by(found)
    done = sum(one.succeeded for one in result.rebalances)
    end, hold = (f"{money(value, result.decimals)} {unit}" for value in (result.final_value, result.hold_value))
    if not done:
        kept = "what kept it from that is told below" if result.refused or result.halted or result.kept else "nothing called for it"
        first = f"In {_span(result)} it never rebalanced: {kept}. It ended at {end}, holding at {hold}."
    elif not math.isfinite(ahead):
        first = f"It ended at {end}; what holding would have brought is not known."
    elif abs(ahead) < NO_DIFFERENCE:
        first = f"Rebalancing made no difference here: it ended at {end}, holding the same start at {hold}."
    elif ahead > 0:
        first = f"Rebalancing ended {percent(ahead, _places(ahead))} ahead of holding: at {end}, against {hold}, with every cost paid."
    else:
        first = f"Rebalancing did not pay here: it ended at {end}, {percent(-ahead, _places(ahead))} behind holding, which came to {hold}."
    spent, gas = report_costs.total_costs(result), "" if result.gas_counted else ", gas not counted"
    second = (
        f"In {_span(result)} it traded {counted(done, 'time')}, moved {ratio(float(result.turnover))} times the portfolio and paid "
        f"{money(spent, result.decimals)} {unit} for it{gas}. At its lowest it stood {percent(-_deepest(found))} below its highest before; "
        f"holding stood {percent(-_deepest(found, held=True))} below."
    )
    moved = "Deposits and withdrawals enter both; what it was ahead or behind by is time-weighted." if result.flows else ""
    return tuple(one for one in (first, second if done else "", moved, _chance(found) if done else "") if one)


def _places(ahead: float) -> int:
    return 1 if abs(ahead) >= 0.01 else 2


def _span(result: SimulationResult) -> str:
    return length(float(result.times_s[-1] - result.times_s[0]))


def _chance(found: Found) -> str:
    """A 95 % interval of the mean yearly difference to holding, by the normal distribution of a mean of independent samples."""
    edge, error = found.risk.edge, found.risk.edge_error
    if len(found.course.returns) < FEWEST_FOR_INTERVAL or not (math.isfinite(edge) and error > 0):
        return "One history, and a short one: it says what was, not what will be."
    low, high = (percent(edge + sign * NORMAL_95 * error, 1, signed=True) for sign in (-1, 1))
    judged = "chance alone could do that" if abs(edge) <= NORMAL_95 * error else "more than chance alone would do, in this one history"
    return (
        f"Per year it grew {percent(abs(edge), 2)} {'faster' if edge > 0 else 'slower'} than holding. The 95% interval of that mean "
        f"reaches from {low} to {high}: {judged}. It takes days for independent, and says what was, not what will be."
    )


def _deepest(found: Found, held: bool = False) -> float:
    return float(fallen(found.course.hold_index if held else found.course.index).min())


def _facts(found: Found) -> tuple[Fact, ...]:
    result, ahead = found.result, ahead_by(found)
    done, spent = sum(one.succeeded for one in result.rebalances), report_costs.total_costs(result)
    grown, gas = float(found.course.index[-1]) - 1, "" if result.gas_counted else ", without gas"
    share = float(spent / result.start_value) if result.start_value else math.nan
    started = f"{percent(grown, signed=True)} from {money(result.start_value, result.decimals)}"
    return (
        Fact(f"Final value, {result.numeraire}", money(result.final_value, result.decimals), started),
        Fact("Ahead of holding", percent(ahead, 2, signed=True), f"held: {money(result.hold_value, result.decimals)}"),
        Fact("Deepest fall", percent(_deepest(found)), f"held: {percent(_deepest(found, held=True))}"),
        Fact("Sharpe ratio", ratio(found.risk.sharpe), f"held: {ratio(found.risk.hold_sharpe)}"),
        Fact("Rebalances", f"{done:,}", f"{ratio(float(result.turnover))} times the portfolio"),
        Fact("Costs", percent(share, 2), f"of the start: {money(spent, result.decimals)} {result.numeraire}{gas}" if spent else NONE),
    )


def _origin(result: SimulationResult) -> tuple[Fact, ...]:
    given = {name: value for name, value in result.parameters if value not in UNSAID}
    flows = result.flows if len(result.flows) <= MOST_FLOWS else ()  # of more the parameter has a hash
    if flows:
        given.pop("flows", None)
    first = result.targets[0] if len(result.targets) else result.weights[0]
    targets = ", ".join(f"{symbol} {percent(float(share), 2)}" for symbol, share in zip(result.symbols, first, strict=True))
    return (
        Fact("targets at the start", targets),
        *([Fact("policy", result.policy)] if result.policy else []),
        *(Fact(name.replace("_", " "), value) for name, value in given.items()),
        *(Fact(f"flow, {day(one.time_s)}", f"{money(one.value, result.decimals)} {result.numeraire}") for one in flows),
        *([] if "seed" in given else [Fact("seed", str(result.seed))]),
        Fact("config hash", result.config_hash, "SHA-256"),
        Fact("data hash", result.data_hash, "SHA-256"),
        *([Fact("funding hash", result.funding.digest, "SHA-256")] if result.funding is not None else []),
        *(Fact(name, version) for name, version in result.versions),
    )
