"""Back-tests of futures beside a spot portfolio."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.backtest.funding import FundingRateSeries
from agent.backtest.futures.simulate import FuturesResult, FuturesSettings
from agent.backtest.futures.venue import FuturesSetup, simulated_policy
from agent.backtest.result import SimulationResult
from agent.backtest.settings import BacktestSpec, SimulationSettings, make_spec
from agent.backtest.simulate import simulate
from agent.model.futures import FuturesPolicy, FuturesTarget
from tests.support.backtests import BAND, HOUR_S, START_S, hourly
from tests.support.perpetuals.simulated import LIMITS, VENUE

E18 = 10**18
DAY_S = 86_400
LONG = FuturesPolicy((FuturesTarget("BTC", 10_000),), 20_000, 500, replace(LIMITS, top_up_per_day_bps=None), leverage_band_bps=1_000)


def spec_of(**changes: object) -> BacktestSpec:
    """40 % of BTC, the rest USD with room for the margin."""
    return replace(make_spec({"BTC": 4_000, "USD": 6_000}, BAND, "USD"), **changes)  # type: ignore[arg-type]


def setup_of(spec: BacktestSpec, policy: FuturesPolicy = LONG, margin: int = 5_000, *funding: FundingRateSeries) -> FuturesSetup:
    tokens = {token.symbol: token for token in spec.tokens}
    live = simulated_policy(replace(policy, collateral=tokens["USD"].address))
    settings = FuturesSettings(policy, VENUE, margin * E18, 0, 0, 0)
    return FuturesSetup(settings, live, tokens["USD"], (("BTC", tokens["BTC"].address),), funding)


def run(
    prices: list[float],
    policy: FuturesPolicy = LONG,
    *funding: FundingRateSeries,
    spec: BacktestSpec | None = None,
    margin: int = 5_000,
    hours: int = 1,
    **settings: object,
) -> SimulationResult:
    spec = spec or spec_of()
    table = hourly(BTC=prices)
    table = replace(table, times_s=START_S + HOUR_S * hours * (table.times_s - START_S) // HOUR_S)
    market = replace(SimulationSettings(Fraction(10**9), 1_000, Fraction(10_000)), **settings)  # type: ignore[arg-type]
    return simulate(spec, table, market, futures=setup_of(spec, policy, margin, *funding))


def book_of(read_account: SimulationResult) -> FuturesResult:
    assert read_account.futures is not None
    return read_account.futures
