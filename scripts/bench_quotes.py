"""How many exact quotes a second: V2, and V3 within one tick, over 5 and over 50 ticks.

`--peers` also measures degenbot 0.3.0, which cannot share an environment with web3 6; run it then as
`uv run --no-project --with degenbot==0.3.0 python scripts/bench_quotes.py --peers`: our pool mathematics need no package.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.amm import pools
from agent.amm.v3_math import bounds
from agent.amm.v3_math.tick_math import MAX_TICK, MIN_TICK, get_sqrt_ratio_at_tick, price_limit
from agent.model import PoolState, TickLiquidity, V2Pool, V3Pool

Quote = Callable[[int], int]
Case = tuple[PoolState, int]

POOL, TOKEN0, TOKEN1 = (f"0x{number:040x}" for number in (10, 1, 2))
SPACING = 60
ROUND_S = 0.02
"""Rounds are short, so that on a shared machine some of them are undisturbed: the best one counts."""
PER_LOOK = 20
"""Quotes between two looks at the clock."""


def v3_pool() -> V3Pool:
    """A 0.3 % pool with a change of liquidity at each of 400 ticks, its price between two of them."""
    ticks = tuple(TickLiquidity(i * SPACING, 10**15 * (1 if i < 0 else -1)) for i in range(-200, 200))
    liquidity = sum(tick.liquidity_net for tick in ticks if tick.index <= 5)
    price = get_sqrt_ratio_at_tick(5) + 12_345_678
    return V3Pool(POOL, "uniswap_v3", TOKEN0, TOKEN1, 3000, SPACING, price, 5, liquidity, ticks, MIN_TICK, MAX_TICK)


def workload() -> dict[str, Case]:
    """Pool and base units of token0 by case; the V3 amounts over ticks end half a range beyond the last tick crossed."""
    v2 = V2Pool(POOL, "uniswap_v2", TOKEN0, TOKEN1, 5_000 * 10**18, 15_000_000 * 10**6)
    v3 = v3_pool()
    # The tick at 0 is the first one downwards: the fifth lies at -4 spacings.
    amounts = {count: bounds.largest_in(v3, True, get_sqrt_ratio_at_tick(SPACING // 2 - count * SPACING)) for count in (5, 50)}
    return {
        "v2": (v2, 10**18),
        "v3_within_one_tick": (v3, 10**12),
        "v3_over_5_ticks": (v3, amounts[5]),
        "v3_over_50_ticks": (v3, amounts[50]),
    }


def per_second(quote: Quote, amount: int, seconds: float) -> int:
    """Quotes per second in the best round; every quote asks for another amount."""
    best, asked = 0.0, 0
    end = perf_counter() + seconds
    while best == 0.0 or perf_counter() < end:
        done, start = 0, perf_counter()
        while (spent := perf_counter() - start) < ROUND_S:
            for _ in range(PER_LOOK):
                asked += 1
                quote(amount - asked % 1024)
            done += PER_LOOK
        best = max(best, done / spent)
    return round(best)


def our_quote(state: PoolState) -> Quote:
    """Base units of token1 for token0."""
    return lambda amount: pools.quote_exact_in(state, TOKEN0, amount)


def degenbot_quote(state: PoolState) -> Quote:
    """The same by degenbot's pool, filled in by hand, since its constructor asks a node."""
    from degenbot.uniswap.types import UniswapV3LiquidityAtTick, UniswapV3PoolState
    from degenbot.uniswap.v2_functions import constant_product_calc_exact_in
    from degenbot.uniswap.v3_liquidity_pool import UniswapV3Pool

    if isinstance(state, V2Pool):
        fee = Fraction(state.fee_pips, 10**6)
        return lambda amount: constant_product_calc_exact_in(amount, state.reserve0, state.reserve1, fee)
    data = {tick.index: UniswapV3LiquidityAtTick(tick.liquidity_net, abs(tick.liquidity_net)) for tick in state.ticks}
    held = UniswapV3PoolState(state.address, state.liquidity, state.sqrt_price_x96, state.tick, {}, data)
    pool = object.__new__(UniswapV3Pool)
    pool.fee, pool.tick_spacing, pool.sparse_liquidity_map = state.fee_pips, state.tick_spacing, False
    limit = price_limit(True)
    return lambda amount: -pool._calculate_swap(True, amount, limit, held)[1]


def measure(quote_of: Callable[[PoolState], Quote], seconds: float) -> dict[str, int]:
    """Quotes per second by case. Raises ValueError when a quote is not exact."""
    figures = {}
    for case, (state, amount) in workload().items():
        quote = quote_of(state)
        if quote(amount) != pools.swap_exact_in(state, TOKEN0, amount).amount_out_raw:
            raise ValueError(f"{case}: the quote is not what the contract pays")
        figures[case] = per_second(quote, amount, seconds)
    return figures


def peers(seconds: float) -> dict[str, dict[str, int]]:
    """Figures of the other libraries that this interpreter has."""
    if importlib.util.find_spec("degenbot") is None:
        print("degenbot is not installed here; see --help", file=sys.stderr)
        return {}
    return {"degenbot": measure(degenbot_quote, seconds)}


def machine() -> dict[str, str | int | None]:
    """What the figures were measured on."""
    return {"python": platform.python_version(), "system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document: machine, ours, peers, ratios")
    parser.add_argument("--peers", action="store_true", help="measure other libraries too")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each case runs")
    options = parser.parse_args()
    ours = measure(our_quote, options.seconds)
    others = peers(options.seconds) if options.peers else {}
    ratios = {name: {case: round(ours[case] / figures[case], 2) for case in figures} for name, figures in others.items()}
    if options.json:
        print(json.dumps({"machine": machine(), "ours": ours, "peers": others, "ratios": ratios}))
        return
    for case, figure in ours.items():
        compared = "".join(f"   {name} {figures[case]:>9,} ({ratios[name][case]}x)" for name, figures in others.items())
        print(f"{case:<20}{figure:>10,} quotes/s{compared}")


if __name__ == "__main__":
    main()
