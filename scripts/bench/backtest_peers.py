"""Backtests of one rule by other libraries, for bench_backtest.py: a band around equal weights, with
a fee on every trade.

`python backtest_peers.py bt|bt-told|vectorbt|cvxportfolio prices.npz` runs in a separate environment
and writes one JSON line. Every backtest starts on target at no cost, and trades at the bar's price
once a weight is further from its target than the band.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import numpy as np

START_VALUE = 1e6
MarketArrays = Any
TimedResult = tuple[float, float, float]
"""Wall seconds, processor seconds, final value."""


def price_frame(market: MarketArrays) -> Any:
    """Return the prices as a table with dates."""
    import pandas as pd

    index = pd.to_datetime(market["times_s"], unit="s")
    return pd.DataFrame(
        market["prices"], index=index, columns=[f"A{i}" for i in range(market["prices"].shape[1])]
    )


def _run_bt(market: MarketArrays, at_our_bars: bool) -> TimedResult:
    """Run bt. RunIfOutOfBounds takes a relative band: with equal weights, the band in points times
    the number of assets. With `at_our_bars` it trades at the bars at which ours traded, and checks no
    other. The fee is its commission, without that of the initial purchases.
    """
    import bt as library

    prices = price_frame(market)
    fee = float(market["fee"])
    asset_count = prices.shape[1]
    run_state = {"begun": False}
    our_dates = {prices.index[0], *prices.index[market["rebalanced"]]}

    class OnlyOurBars(library.Algo):
        """Passes only at the given bars."""

        def __call__(self, target: Any) -> bool:
            return target.now in our_dates

    class MarkBegun(library.Algo):
        """Marks the end of the first bar."""

        def __call__(self, target: Any) -> bool:
            run_state["begun"] = True
            return True

    def commission(quantity: float, price: float) -> float:
        return abs(quantity) * price * fee if run_state["begun"] else 0.0

    own_rule = library.algos.Or(
        [
            library.algos.RunOnce(),
            library.algos.RunIfOutOfBounds(float(market["band"]) * asset_count),
        ]
    )
    weighting_algorithms = [
        library.algos.SelectAll(),
        library.algos.WeighSpecified(**dict.fromkeys(prices.columns, 1.0 / asset_count)),
    ]
    algorithms = (
        [OnlyOurBars(), *weighting_algorithms] if at_our_bars else [*weighting_algorithms, own_rule]
    )
    strategy = library.Strategy("band", [*algorithms, library.algos.Rebalance(), MarkBegun()])
    backtest = library.Backtest(
        strategy,
        prices,
        initial_capital=START_VALUE,
        commissions=commission,
        integer_positions=False,
    )
    began_s = perf_counter()
    processor_began_s = process_time()
    backtest.run()
    return (
        perf_counter() - began_s,
        process_time() - processor_began_s,
        float(backtest.strategy.value),
    )


def bt(market: MarketArrays) -> TimedResult:
    """Run bt by its own rule."""
    return _run_bt(market, at_our_bars=False)


def bt_at_our_bars(market: MarketArrays) -> TimedResult:
    """Run bt at the bars at which ours traded."""
    return _run_bt(market, at_our_bars=True)


def vectorbt(market: MarketArrays) -> TimedResult:
    """Run vectorbt with orders at the bars at which ours traded, since it has no rule for bands."""
    import vectorbt as library

    prices = price_frame(market)
    asset_count = prices.shape[1]
    our_bars = market["rebalanced"]
    sizes = np.full(prices.shape, np.nan)
    sizes[our_bars] = 1.0 / asset_count
    sizes[0] = 1.0 / asset_count
    fees = np.full(prices.shape, float(market["fee"]))
    fees[0] = 0.0

    def run_once() -> TimedResult:
        began_s = perf_counter()
        processor_began_s = process_time()
        portfolio = library.Portfolio.from_orders(
            prices,
            size=sizes,
            size_type="targetpercent",
            fees=fees,
            init_cash=START_VALUE,
            cash_sharing=True,
            group_by=True,
            call_seq="auto",
            freq="1h",
        )
        final_value = float(portfolio.value().iloc[-1])
        return perf_counter() - began_s, process_time() - processor_began_s, final_value

    run_once()
    return min(run_once() for _ in range(5))


def cvxportfolio(market: MarketArrays) -> TimedResult:
    """Run cvxportfolio with a policy that returns to equal weights beyond the band. The fee is its
    transaction cost `a`, half of a spread.
    """
    import cvxportfolio as library
    import pandas as pd

    prices = price_frame(market)
    returns = prices.pct_change().shift(-1).fillna(0.0)  # the last row has no next price
    returns["cash"] = 0.0
    asset_count = prices.shape[1]
    band = float(market["band"])
    target_weights = pd.Series(1.0 / asset_count, prices.columns)
    target_weights["cash"] = 0.0

    class Band(library.policies.Policy):  # type: ignore[misc]  # the library has no types
        """Trades only when a weight is beyond its band."""

        def values_in_time(self, current_weights: Any, **_others: Any) -> Any:
            deviation = np.abs(current_weights.iloc[:-1] - target_weights.iloc[:-1]).max()
            return target_weights if deviation > band else current_weights

    simulator = library.MarketSimulator(
        returns=returns,
        prices=None,
        volumes=None,
        cash_key="cash",
        costs=[library.TransactionCost(a=float(market["fee"]), b=None)],
        round_trades=False,
        min_history=pd.Timedelta("0s"),
    )
    began_s = perf_counter()
    processor_began_s = process_time()
    backtest_result = simulator.backtest(
        Band(),
        start_time=returns.index[0],
        end_time=returns.index[-1],
        h=target_weights * START_VALUE,
    )
    return (
        perf_counter() - began_s,
        process_time() - processor_began_s,
        float(backtest_result.v.iloc[-1]),
    )


PEERS: dict[str, Callable[[MarketArrays], TimedResult]] = {
    "bt": bt,
    "bt-told": bt_at_our_bars,
    "vectorbt": vectorbt,
    "cvxportfolio": cvxportfolio,
}


def main() -> None:
    warnings.simplefilter("ignore")
    with np.load(sys.argv[2]) as market:
        wall_s, processor_s, final_value = PEERS[sys.argv[1]](market)
    print(json.dumps({"seconds": wall_s, "processor_s": processor_s, "final_value": final_value}))


if __name__ == "__main__":
    main()
