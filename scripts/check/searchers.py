"""Profit that searchers who order the transactions of a block take from a rebalance on anvil: every
tactic, both routers, and the best size found by search.

Each turn is one whole step of the agent with real contracts. Exit code 1 if a loss exceeds the
limits, or a profit exceeds the estimate.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.localchain import open_anvil
from agent.units import BPS
from tests.support.searchers import (
    BUYING,
    ONE_POOL,
    ROUTERS,
    SCENES,
    TACTICS,
    Scene,
    Tactic,
    Turn,
    UnseenMove,
    best_responses,
    searcher_on,
    turns_by_size,
)

SIZES_USD = {
    "one pool": (20_000, 100_000, 300_000, 700_000, 1_500_000, 4_000_000),
    "every pool": (1_000, 5_000, 20_000, 60_000, 200_000, 800_000),
}
"""Sizes in dollars per pool of the plan, from negligible to sizes at which nothing is traded."""


def holds_limits(turn: Turn) -> bool:
    """Return whether limits and estimate held."""
    try:
        turn.require_bounded()
    except AssertionError:
        return False
    return True


def summary_row(scene: Scene, router: str, tactic: Tactic, turns: list[Turn]) -> dict[str, object]:
    """Return the figures of the most profitable turn, and the violations of all turns."""
    best_turn = max(turns, key=lambda turn: turn.profit)
    worst_turn = max(turns, key=lambda turn: turn.lost)

    def bps(amount_usd: Fraction, turn: Turn) -> float:
        return round(float(amount_usd / turn.turnover * BPS), 1) if turn.turnover else 0.0

    return {
        "scene": scene.name,
        "router": router,
        "tactic": tactic.name,
        "sizes_tried": len(turns),
        "carried_out": sum(turn.turnover > 0 for turn in turns),
        "best_size_usd": round(float(best_turn.size_usd)),
        "profit_usd": round(float(best_turn.profit), 2),
        "shown_profit_usd": round(float(best_turn.shown_profit), 2),
        "turnover_usd": round(float(best_turn.turnover)),
        "profit_bps": bps(best_turn.profit, best_turn),
        "loss_bps": bps(best_turn.lost, best_turn),
        "worst_loss_bps": bps(worst_turn.lost, worst_turn),
        "limit_bps": bps(worst_turn.limit, worst_turn),
        "violations": sum(not holds_limits(turn) for turn in turns),
    }


def run_searchers(rounds: int) -> list[dict[str, object]]:
    """Return one row per scene, router and tactic, and print each on stderr as it ends."""
    rows = []
    with open_anvil() as chain:
        for scene in SCENES:
            for router in ROUTERS:
                snapshot = chain.snapshot()
                with (
                    tempfile.TemporaryDirectory() as folder,
                    searcher_on(chain, Path(folder), scene, router) as searcher,
                ):
                    for tactic in TACTICS:
                        is_sizeless = not tactic.skew and not tactic.front
                        sizes = [
                            Fraction(size)
                            for size in ((0,) if is_sizeless else SIZES_USD[scene.name])
                        ]
                        turns = turns_by_size(partial(searcher.attack, tactic), sizes, rounds)
                        rows.append(summary_row(scene, router, tactic, turns))
                        print(json.dumps(rows[-1]), file=sys.stderr)
                chain.revert(snapshot)
    return rows


COLUMNS = (
    "scene",
    "router",
    "tactic",
    "best_size_usd",
    "profit_usd",
    "profit_bps",
    "loss_bps",
    "worst_loss_bps",
    "limit_bps",
)
LAG_COLUMNS = (
    "scene",
    "move_bps",
    "steps",
    "minutes_later",
    "profit_bps",
    "worst_loss_bps",
)
LAG_MINUTES = (0, 2, 5, 10, 15, 40)
LAGGED_MOVES = ((ONE_POOL, 145, 1), (BUYING, -145, 1), (ONE_POOL, 145, 10), (BUYING, -145, 10))
"""Scene, move in bps, and its steps of a minute; the wallet trades to its disadvantage."""


def run_lags(rounds: int) -> list[dict[str, object]]:
    """Return a row per move and time since then, during which no feed followed: the largest loss
    over all tactics and sizes; print each on stderr as it ends.
    """
    rows = []
    with open_anvil() as chain, tempfile.TemporaryDirectory() as folder:
        for scene, move_bps, step_count in LAGGED_MOVES:
            for minutes in LAG_MINUTES:
                move = UnseenMove(move_bps, step_count, 60 * minutes)
                turns = best_responses(chain, Path(folder), scene, ROUTERS[0], move, rounds)
                rows.append(lag_row(scene, move, turns))
                print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def lag_row(scene: Scene, move: UnseenMove, turns: list[Turn]) -> dict[str, object]:
    """Return the largest loss and profit of all turns that were carried out, in bps."""
    carried_out = [turn for turn in turns if turn.turnover]
    return {
        "scene": scene.name,
        "move_bps": move.move_bps,
        "steps": move.step_count,
        "minutes_later": move.wait_s // 60,
        "carried_out": len(carried_out),
        "profit_bps": worst_bps(carried_out, lambda turn: turn.profit),
        "worst_loss_bps": worst_bps(carried_out, lambda turn: turn.lost),
        "violations": sum(not is_shown(turn) for turn in turns),
    }


def worst_bps(turns: list[Turn], amount_of: Callable[[Turn], Fraction]) -> float:
    """Return the largest amount as a share of its turnover, in bps; 0 without turns."""
    return max(
        (round(float(amount_of(turn) / turn.turnover * BPS), 1) for turn in turns), default=0.0
    )


def is_shown(turn: Turn) -> bool:
    """Return whether loss and profit are within what was shown before."""
    try:
        turn.require_shown()
    except AssertionError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=4,
        help="number of searches beyond the grid, each around the best size so far",
    )
    parser.add_argument(
        "--lag",
        action="store_true",
        help="moves that feed and TWAP have not followed, in place of exact reference prices",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args()
    rows = run_lags(options.rounds) if options.lag else run_searchers(options.rounds)
    violations = sum(int(str(figures["violations"])) for figures in rows)
    if options.json:
        print(json.dumps({"rows": rows, "violations": violations}))
    else:
        columns = LAG_COLUMNS if options.lag else COLUMNS
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for figures in rows:
            print(
                "| "
                + " | ".join(
                    f"{figures[name]:,}"
                    if isinstance(figures[name], int | float)
                    else str(figures[name])
                    for name in columns
                )
                + " |"
            )
        print(f"{violations} violations")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
