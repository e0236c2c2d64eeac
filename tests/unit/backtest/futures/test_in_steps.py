"""Futures beside a spot portfolio in a backtest: the whole live step with its guards, hedges and strategies."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from agent.app.research.futures_backtests import backtest_document
from agent.backtest.funding import FundingRateSeries
from agent.backtest.futures.simulate import FuturesResult, FuturesSettings
from agent.backtest.futures.venue import FuturesSetup, simulated_policy
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.futures import futures_section
from agent.backtest.report.series import unit_changes
from agent.backtest.result import SimulationResult
from agent.backtest.settings import PERMISSIVE_LIMITS, BacktestSpec, OwnerTransfer, SimulationSettings, make_spec
from agent.backtest.simulate import simulate
from agent.layers.strategies.state import CapitalSplit, Strategy, StrategyHealthRule
from agent.model import Every
from agent.model.futures import FuturesPolicy, FuturesTarget, HedgePolicy
from tests.support.backtests import BAND, HOUR_S, START_S, hourly, random_table
from tests.support.perpetuals.simulated import LIMITS, VENUE, rates

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


HEDGE = HedgePolicy(ratio_bps=5_000, horizon_s=5 * DAY_S, min_saving_bps=50, tax_rate_bps=2_500, capital_cost_bps=400)
ONLY_HEDGES = replace(LONG, targets=(FuturesTarget("BTC", 0),), leverage_bps=0, leverage_band_bps=0, hedge_policy=HEDGE)


def test_every_bar_is_what_numpy_works_out() -> None:
    """100 long BTC at 2x of 5,000 from the first bar on: price, funding and fees by an arithmetic of its own."""
    prices = [100.0, 101, 102, 101, 103, 102]
    hourly_rates = [0.001, -0.0005, 0.0, 0.002, 0.001]
    simulation = run(prices, LONG, rates(*hourly_rates, first=1))
    book = book_of(simulation).agent_book
    (fill,) = book.fills
    assert (fill.bar, fill.symbol, fill.trigger) == (0, "BTC", "drift")
    size = float(Fraction(fill.size_raw, E18))
    entry = 100 * 1.001
    assert float(Fraction(-fill.quote_raw, fill.size_raw)) == pytest.approx(entry, rel=1e-12), "10 bps of slippage"
    closes = np.array(prices)
    fee = size * entry * 0.001
    paid = np.concatenate([[0.0], np.cumsum(size * closes[1:] * np.array(hourly_rates))])
    value = 5_000 + size * (closes - entry) - fee - paid
    assert book.equity == pytest.approx(value, abs=1e-9)
    assert book.leverage == pytest.approx(size * closes / value, rel=1e-9)
    wallet = 0.4 * 15_000 / 100 * closes + (0.6 * 15_000 - 5_000)
    assert simulation.equity == pytest.approx(wallet + value, abs=1e-9)
    assert simulation.hold_equity == pytest.approx(0.4 * 15_000 / 100 * closes + 0.6 * 15_000, abs=1e-9)
    assert simulation.weights[:, 0] == pytest.approx(60 * closes / (wallet + value), rel=1e-9), "margin counts as its collateral"
    assert (float(simulation.start_value), float(simulation.final_value)) == pytest.approx(
        (15_000e18, (wallet + value)[-1] * 1e18), rel=1e-12
    )
    assert book.profit.total_raw == book.final_value_raw - 5_000 * E18


def test_realised_futures_are_a_figure_of_the_year_of_their_own() -> None:
    """A long falls by a tenth before and after the turn of the year and is reduced: its share of the opening less what it brings."""
    prices = [100.0] * 2 + [90.0] * 4 + [80.0] * 2
    policy = replace(LONG, limits=replace(LONG.limits, top_up_per_day_bps=0), leverage_bps=30_000)
    simulation = run(prices, policy, hours=24 * 20)
    size = 0.0
    owed = 0.0
    by_year = dict[int, float]()
    for fill in book_of(simulation).agent_book.fills:
        traded = fill.size_raw / E18
        quote = (fill.quote_raw - fill.fee_raw) / E18
        year = int(str(np.datetime64(fill.time_s, "s").astype("datetime64[Y]")))
        share = max(0.0, -traded / size) if size else 0.0
        by_year[year] = by_year.get(year, 0.0) + (quote + owed * share if share else 0.0)
        size = size + traded
        owed = owed * (1 - share) + (0.0 if share else quote)
    assert {
        futures_yearly_gain.year: float(futures_yearly_gain.realised) / E18 for futures_yearly_gain in simulation.futures_yearly_gains
    } == pytest.approx(by_year, abs=1e-6)
    assert len(by_year) == 2, by_year
    assert all(by_year.values()), by_year


def test_a_quiet_bar_needs_no_step() -> None:
    chance = np.random.default_rng(3)
    prices = (100 * np.exp(np.cumsum(chance.normal(0, 0.01, 60)))).tolist()
    policy = replace(LONG, leverage_bps=30_000)
    first_run, other = (run(prices, policy, looks_at_all=every) for every in (False, True))
    assert first_run.evaluated_bar_count < other.evaluated_bar_count == 60
    assert book_of(first_run).agent_book.fills == book_of(other).agent_book.fills
    assert len(book_of(first_run).agent_book.fills) > 3
    assert first_run.equity.tolist() == other.equity.tolist()
    assert first_run.rebalances == other.rebalances


def test_the_future_changes_nothing_in_the_past() -> None:
    table = random_table(5, 40, volatility=0.03)
    prices = table.closes[:, 0].tolist()
    policy = replace(LONG, hedge_policy=HEDGE, leverage_bps=25_000)
    first_run = run(prices, policy)
    other = run([*prices[:25], *(3 * price for price in prices[25:])], policy)
    assert first_run.equity[:25].tolist() == other.equity[:25].tolist()
    first_fills = book_of(first_run).agent_book.fills
    other_fills = book_of(other).agent_book.fills
    assert [fill for fill in first_fills if fill.bar < 25] == [fill for fill in other_fills if fill.bar < 25]


def test_guards_judge_futures_in_a_backtest_as_live() -> None:
    dear = run([100.0] * 4, spec=spec_of(limits=replace(PERMISSIVE_LIMITS, plan_cost_bps=1)))
    assert book_of(dear).agent_book.fills == (), "held, as not worth its cost"
    lossy = run([100.0, 100, 80, 80], replace(LONG, leverage_bps=10_000), spec=spec_of(limits=replace(PERMISSIVE_LIMITS, daily_loss_bps=5)))
    assert dict(book_of(lossy).agent_book.refusal_counts) == {"daily_loss": 2}, "the first order has used up the day's loss"


def test_margin_above_its_weight__holds_spot_alone() -> None:
    """The margin outgrows the whole weight of its collateral, which swaps cannot spend: futures go on."""
    in_steps = run([100.0, 100, 100, 110, 115, 120], replace(LONG, leverage_bps=30_000), margin=20_000)
    assert in_steps.refusal_counts == ()
    assert dict(in_steps.holds_by_setting)["locked"] >= 3
    assert len(book_of(in_steps).agent_book.fills) >= 1


def test_margin_is_topped_up_from_the_wallet_before_a_reduction() -> None:
    in_steps = run([100.0, 100, 82, 82], replace(LONG, leverage_bps=30_000))
    book = book_of(in_steps).agent_book
    assert book.deposited_raw > 0
    assert not book.liquidations
    assert book.final_value_raw == 5_000 * E18 + book.deposited_raw + book.profit.total_raw
    usd = dict(in_steps.balances)[next(token.address for token in spec_of().tokens if token.symbol == "USD")]
    assert usd < 4_000 * E18
    section = futures_section(book_of(in_steps))
    profit = book.profit.total_raw / E18
    deposits = book.deposited_raw / E18
    assert f"(−{-100 * profit / 5_000:.1f} % without {deposits:,.2f} from the wallet)" in section.paragraphs[0]
    rows = {row[0]: float(row[1].replace(",", "").replace("−", "-")) for row in section.tables[0].rows[:9]}
    assert rows["from the wallet"] == pytest.approx(deposits, abs=0.01)
    assert rows.pop("final value") == pytest.approx(sum(rows.values()), abs=0.05)
    figures = backtest_document(in_steps)["futures"]["agent"]["figures"]
    worst = profit - book.profits[0]
    assert float(figures["max_drawdown"]) == pytest.approx(worst / book.equity[0], abs=0.01), "a deposit is no gain"


def test_crash__is_reduced_by_the_step_and_liquidates_the_held() -> None:
    policy = replace(LONG, leverage_bps=30_000, limits=replace(LONG.limits, top_up_per_day_bps=0))
    futures_result = book_of(run([100.0, 100, 92, 85, 78, 72, 66, 60], policy))
    assert not futures_result.agent_book.liquidations
    assert futures_result.held_book.liquidations
    assert futures_result.agent_book.bars_above_limit == 0, "what a limit demands is filled in the bar that breaks it"


def test_a_hedge_is_opened_closed_and_recorded() -> None:
    """BTC doubles: half of the taxed excess is shorted, and bought back once it has fallen into its band."""
    in_steps = run([100.0, 100, 200, 200, 104, 104, 104], ONLY_HEDGES, margin=4_000, hours=4)
    book = book_of(in_steps)
    (hedge,) = book.hedges
    opened, closed = book.agent_book.fills
    assert (opened.trigger, closed.trigger) == ("hedge", "close_hedge")
    assert opened.size_raw == hedge.initial_size_raw < 0
    assert closed.size_raw == -opened.size_raw
    assert (hedge.opened_s, hedge.closed_s) == (opened.time_s, closed.time_s) == (START_S + 8 * HOUR_S, START_S + 16 * HOUR_S)
    size = -hedge.initial_size_raw / E18
    sold = 200 * 0.999
    bought = 104 * 1.001
    assert hedge.profit_raw is not None
    assert hedge.profit_raw / E18 == pytest.approx(size * (sold - bought) - 0.001 * size * (sold + bought), rel=1e-9)
    assert "it is shorted" in hedge.open_reason
    assert "back in its band" in hedge.close_reason
    assert any(rebalance.bar == 2 for rebalance in in_steps.rebalances), "the rest is sold in the same step"


def test_an_open_hedge_is_recorded_at_the_mark() -> None:
    (hedge,) = book_of(run([100.0, 100, 200, 200, 210], ONLY_HEDGES, margin=4_000)).hedges
    assert hedge.closed_s is None
    assert hedge.profit_raw is not None
    size = -hedge.initial_size_raw / E18
    assert hedge.profit_raw / E18 == pytest.approx(size * (200 * 0.999 * 0.999 - 210), rel=1e-9)


def test_the_health_of_a_strategy_with_futures_pauses_it() -> None:
    """A long that falls every day is paused after its window and 30 days, and its futures are closed."""
    rule = StrategyHealthRule(500, 800, 20 * DAY_S, 30 * DAY_S, 30 * DAY_S)
    spec = spec_of()
    tokens = {token.symbol: token.address for token in spec.tokens}
    calm = ((tokens["BTC"], 0), (tokens["USD"], 10_000))
    setup = setup_of(spec)
    market = setup.policy.targets[0].market
    falling = Strategy("falling", 5_000, calm, BAND, spec.policy.destination, 0, health=rule, market_bps=((market, 10_000),))
    idle = Strategy("idle", 5_000, calm, BAND, spec.policy.destination, 0)
    spec = replace(spec, layers=(CapitalSplit((falling, idle), BAND),))
    chance = np.random.default_rng(4)
    prices = (100 * np.exp(np.cumsum(chance.normal(-0.004, 0.01, 70)))).tolist()
    in_steps = run(prices, LONG, spec=spec, hours=24)
    (paused,) = in_steps.health_changes
    assert (paused.name, paused.health) == ("falling", "paused")
    assert paused.sharpe_milli is not None
    assert paused.sharpe_milli < 500
    assert paused.time_s >= START_S + 50 * DAY_S
    assert {health.name: health.health for health in in_steps.final_health} == {"falling": "paused", "idle": "active"}
    assert book_of(in_steps).agent_book.sizes == (), "a paused strategy holds no futures"


def test_repeated_reductions_keep_the_weights() -> None:
    """60/40 of BTC and ETH at 3x fall together again and again: each step cuts both by the same share, order by order."""
    spec = make_spec({"BTC": 2_000, "ETH": 2_000, "USD": 6_000}, BAND, "USD")
    tokens = {token.symbol: token for token in spec.tokens}
    limits = replace(LONG.limits, top_up_per_day_bps=0, hysteresis_bps=500)
    both = replace(LONG, targets=(FuturesTarget("BTC", 6_000), FuturesTarget("ETH", 4_000)), leverage_bps=30_000, limits=limits)
    live = simulated_policy(replace(both, collateral=tokens["USD"].address, leverage_band_bps=0))
    assets = (("BTC", tokens["BTC"].address), ("ETH", tokens["ETH"].address))
    setup = FuturesSetup(FuturesSettings(both, VENUE, 5_000 * E18, 0, 0, 0), live, tokens["USD"], assets)
    closes = 100 * np.cumprod([1.0, 0.88, 0.93, 0.93, 0.92, 0.9])
    table = hourly(BTC=closes.tolist(), ETH=closes.tolist())
    book = book_of(simulate(spec, table, SimulationSettings(Fraction(10**9), 1_000, Fraction(10_000)), futures=setup)).agent_book
    reduced = {fill.bar for fill in book.fills if fill.trigger == "leverage"}
    assert len(reduced) >= 3
    sizes = {"BTC": 0.0, "ETH": 0.0}
    start = 0.0
    for bar in range(len(closes)):
        for fill in (fill for fill in book.fills if fill.bar == bar):
            sizes[fill.symbol] += fill.size_raw / E18
        share = sizes["BTC"] / sum(sizes.values())
        start = share if bar == 0 else start
        assert start == pytest.approx(0.6, abs=2e-3), bar
        assert share == pytest.approx(start, abs=1e-4), bar


def test_refusals_that_differ_in_amounts__are_counted_together() -> None:
    """No pool accepts anything; each bar's drift is another amount, and the pool's address stays whole."""
    closed = spec_of(limits=replace(PERMISSIVE_LIMITS, price_impact_bps=0))
    in_steps = run([100.0, 200, 210, 220, 230, 240], replace(LONG, leverage_bps=100), spec=closed)
    ((why, times),) = in_steps.refusal_counts
    assert times >= 3
    assert why.startswith("nothing to trade of a drift of … USD")
    assert re.search("0x[0-9a-fA-F]{40}", why)


APART = replace(LONG, margin_in_weights=False, leverage_bps=0, targets=(), leverage_band_bps=0)


def test_margin_beside_the_weights__leaves_spot_trades_alone() -> None:
    """BTC doubles: alone or beside 50,000 of margin the spot portfolio sells the same part of it."""
    prices = [100.0, 110, 130, 160, 200, 200]
    run_by_margin = {margin: run(prices, APART, margin=margin) for margin in (1, 50_000)}
    assert len(run_by_margin[1].rebalances) == len(run_by_margin[50_000].rebalances) > 0
    assert run_by_margin[50_000].rebalances == run_by_margin[1].rebalances
    assert run_by_margin[50_000].weights.tolist() == run_by_margin[1].weights.tolist()
    assert float(run_by_margin[50_000].final_value - run_by_margin[1].final_value) == pytest.approx(49_999e18, rel=1e-12), (
        "the total has all of it"
    )
    counted = run(prices, replace(APART, margin_in_weights=True), margin=50_000)
    assert counted.rebalances == ()


@pytest.mark.parametrize(("band_bps", "leverage_band_bps"), [(0, 0), (500, 0), (0, 5_000)])
def test_backtest__trades_at_the_times_of_the_schedule(band_bps: int, leverage_band_bps: int) -> None:
    """BTC rises by 1 % every six hours: the account gains twice that, so it is below its leverage at each daily review."""
    policy = replace(LONG, schedule=Every(DAY_S), band_bps=band_bps, leverage_band_bps=leverage_band_bps)
    fills = book_of(run([100 * 1.01**bar for bar in range(17)], policy, hours=6)).agent_book.fills
    assert [fill.bar for fill in fills] == [0, 4, 8, 12, 16]
    assert {fill.trigger for fill in fills[1:]} == {"schedule"}
    assert all(fill.size_raw > 0 for fill in fills)


def test_backtest__bands_act_between_the_reviews() -> None:
    """A fall of 20 % leaves the band of the leverage at bar 2; the review at bar 4 finds nothing more to do."""
    policy = replace(LONG, schedule=Every(DAY_S), leverage_band_bps=1_000)
    fills = book_of(run([100.0, 100, 80, 80, 80, 80], policy, hours=6)).agent_book.fills
    assert [(fill.bar, fill.trigger) for fill in fills] == [(0, "drift"), (2, "leverage_drift")]


def test_backtest__held_book_opens_at_the_first_review() -> None:
    policy = replace(LONG, schedule=Every(DAY_S), band_bps=0, leverage_band_bps=0, targets=(FuturesTarget("BTC", 10_000),))
    held_book = book_of(run([100.0, 101, 102, 103], policy, hours=6)).held_book
    assert Fraction(held_book.sizes[0][1], E18) > 0


GAS = {"gas_price_wei": 20 * 10**9}
GASEOUS = make_spec({"BTC": 4_000, "USD": 6_000}, BAND, "USD", native="BTC")


def gas_trace(simulation: SimulationResult) -> list[float]:
    (section,) = [section for section in backtest_page(simulation).sections if section.title == "Costs"]
    (trace,) = [trace for trace in section.charts[0]["data"] if trace["name"] == "gas"]
    return trace["y"]  # type: ignore[no-any-return]  # as plotly has it


@pytest.mark.parametrize(("last", "swaps"), [(100.0, 0), (160.0, 1)], ids=["without a swap", "with a swap"])
def test_gas_of_orders_is_a_cost_at_its_time(last: float, swaps: int) -> None:
    simulation = run([100.0, 100, last, last], replace(LONG, margin_in_weights=False), spec=GASEOUS, **GAS)
    assert len(simulation.rebalances) == swaps
    gas = gas_trace(simulation)
    assert gas[:2] == [0, 2.2], "1.1 million units of the first order at its bar"
    assert gas[-1] == pytest.approx(float(simulation.gas / E18), rel=1e-5)
    assert (gas[-1] > 2.2) is bool(swaps)


@pytest.mark.parametrize("margin_in_weights", [False, True])
@pytest.mark.parametrize("market", [{}, GAS, {**GAS, "latency_bars": 1}], ids=["plain", "gas", "latency"])
def test_trades_in_the_report_are_those_of_the_wallet(margin_in_weights: bool, market: dict[str, int]) -> None:
    simulation = run(
        [100.0, 100, 160, 160, 60, 60, 60], replace(LONG, margin_in_weights=margin_in_weights, leverage_bps=10_000), spec=GASEOUS, **market
    )
    (btc,) = (token.address for token in GASEOUS.tokens if token.symbol == "BTC")
    coins = dict(simulation.balances)[btc] / E18
    expected = np.zeros(simulation.bar_count)
    for rebalance in reversed(simulation.rebalances):
        after = coins
        for swap in rebalance.swaps:
            coins += swap.sold_raw / E18 if swap.sold.address == btc else -swap.bought_raw / E18
        expected[rebalance.bar] = (after - coins) / max(after, coins)
    assert np.count_nonzero(expected) >= 1
    assert unit_changes(simulation)[:, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("transfer_mode", ["numeraire", "pro-rata"])
@pytest.mark.parametrize("value", [500, -500])
def test_bar_of_a_transfer_is_evaluated(transfer_mode: str, value: int) -> None:
    prices = [100.0, 100, 100.4, 100.8, 101.2, 160, 160]
    market = {"flows": (OwnerTransfer(START_S + 2 * HOUR_S, Fraction(value)),), "transfer_mode": transfer_mode}
    policy = replace(LONG, margin_in_weights=False, leverage_bps=10_000)
    without_transfer = run(prices, policy)
    quick = run(prices, policy, looks_at_all=False, **market)
    whole = run(prices, policy, looks_at_all=True, **market)
    assert quick.evaluated_bar_count == without_transfer.evaluated_bar_count + 1 < whole.evaluated_bar_count
    assert quick.yearly_gains == whole.yearly_gains != ()
    assert quick.rebalances == whole.rebalances
    assert np.array_equal(quick.equity, whole.equity)
