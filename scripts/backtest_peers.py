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

VALUE = 1e6
Given = Any
Found = tuple[float, float, float]
"""Wall seconds, processor seconds, final value."""


def frame(given: Given) -> Any:
    """Return the prices as a table with dates."""
    import pandas as pd

    index = pd.to_datetime(given["times_s"], unit="s")
    return pd.DataFrame(
        given["prices"], index=index, columns=[f"A{i}" for i in range(given["prices"].shape[1])]
    )


def _bt(given: Given, told: bool) -> Found:
    """Run bt. RunIfOutOfBounds takes a relative band: with equal weights, the band in points times
    the number of assets. With `told` it trades at the bars at which ours traded, and checks no
    other. The fee is its commission, without that of the initial purchases.
    """
    import bt as library

    prices = frame(given)
    fee, count = float(given["fee"]), prices.shape[1]
    state = {"begun": False}
    dates = {prices.index[0], *prices.index[given["rebalanced"]]}

    class Told(library.Algo):
        """Passes only at the given bars."""

        def __call__(self, target: Any) -> bool:
            return target.now in dates

    class Begun(library.Algo):
        """Marks the end of the first bar."""

        def __call__(self, target: Any) -> bool:
            state["begun"] = True
            return True

    def commission(quantity: float, price: float) -> float:
        return abs(quantity) * price * fee if state["begun"] else 0.0

    own = library.algos.Or(
        [library.algos.RunOnce(), library.algos.RunIfOutOfBounds(float(given["band"]) * count)]
    )
    weigh = [
        library.algos.SelectAll(),
        library.algos.WeighSpecified(**dict.fromkeys(prices.columns, 1.0 / count)),
    ]
    first = [Told(), *weigh] if told else [*weigh, own]
    strategy = library.Strategy("band", [*first, library.algos.Rebalance(), Begun()])
    test = library.Backtest(
        strategy, prices, initial_capital=VALUE, commissions=commission, integer_positions=False
    )
    began, spent = perf_counter(), process_time()
    test.run()
    return perf_counter() - began, process_time() - spent, float(test.strategy.value)


def bt(given: Given) -> Found:
    """Run bt by its own rule."""
    return _bt(given, told=False)


def bt_told(given: Given) -> Found:
    """Run bt at the bars at which ours traded."""
    return _bt(given, told=True)


def vectorbt(given: Given) -> Found:
    """Run vectorbt with orders at the bars at which ours traded, since it has no rule for bands."""
    import vectorbt as library

    prices = frame(given)
    count, bars = prices.shape[1], given["rebalanced"]
    sizes = np.full(prices.shape, np.nan)
    sizes[bars] = 1.0 / count
    sizes[0] = 1.0 / count
    fees = np.full(prices.shape, float(given["fee"]))
    fees[0] = 0.0

    def once() -> Found:
        began, spent = perf_counter(), process_time()
        found = library.Portfolio.from_orders(
            prices, size=sizes, size_type="targetpercent", fees=fees, init_cash=VALUE, cash_sharing=True, group_by=True,
            call_seq="auto", freq="1h",
        )  # fmt: skip
        value = float(found.value().iloc[-1])
        return perf_counter() - began, process_time() - spent, value

    once()
    return min(once() for _ in range(5))


def cvxportfolio(given: Given) -> Found:
    """Run cvxportfolio with a policy that returns to equal weights beyond the band. The fee is its
    transaction cost `a`, half of a spread.
    """
    import cvxportfolio as library
    import pandas as pd

    prices = frame(given)
    returns = prices.pct_change().shift(-1).fillna(0.0)  # the last row has no next price
    returns["cash"] = 0.0
    count, band = prices.shape[1], float(given["band"])
    target = pd.Series(1.0 / count, prices.columns)
    target["cash"] = 0.0

    class Band(library.policies.Policy):  # type: ignore[misc]  # the library has no types
        """Trades only when a weight is beyond its band."""

        def values_in_time(self, current_weights: Any, **_others: Any) -> Any:
            away = np.abs(current_weights.iloc[:-1] - target.iloc[:-1]).max()
            return target if away > band else current_weights

    simulator = library.MarketSimulator(
        returns=returns, prices=None, volumes=None, cash_key="cash", costs=[library.TransactionCost(a=float(given["fee"]), b=None)],
        round_trades=False, min_history=pd.Timedelta("0s"),
    )  # fmt: skip
    began, spent = perf_counter(), process_time()
    found = simulator.backtest(
        Band(), start_time=returns.index[0], end_time=returns.index[-1], h=target * VALUE
    )
    return perf_counter() - began, process_time() - spent, float(found.v.iloc[-1])


PEERS: dict[str, Callable[[Given], Found]] = {
    "bt": bt,
    "bt-told": bt_told,
    "vectorbt": vectorbt,
    "cvxportfolio": cvxportfolio,
}


def main() -> None:
    warnings.simplefilter("ignore")
    with np.load(sys.argv[2]) as given:
        seconds, busy, value = PEERS[sys.argv[1]](given)
    print(json.dumps({"seconds": seconds, "processor_s": busy, "final_value": value}))


if __name__ == "__main__":
    main()
