"""Random plans carried out on a local anvil with the real contracts, each from the same state.

Each must end within one basis point of its destination, or name the bound that stopped it, and must
change balances as predicted, to the wei. Exit code 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from fractions import Fraction
from math import isqrt, prod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.localchain import LocalChain, open_anvil
from tests.support.plans import Outcome, execute
from tests.support.worlds import read_v3

POOL_VALUE_USD = 1_000_000
"""Value in USD of each token in an added pool, as full-range liquidity."""


def add_extreme_tokens(chain: LocalChain) -> None:
    """Add tokens with 0 and 24 decimals, with pools of both kinds."""
    chain.add_token("WHOLE", 0, Fraction(1, 50))
    chain.add_token("FINE", 24, 40)
    chain.approve_protocol(("WHOLE", "FINE"))
    for symbol in ("WHOLE", "FINE"):
        chain.add_v2_pool(symbol, "USDC", 4 * POOL_VALUE_USD)
        pool = chain.add_v3_pool(symbol, "WETH", 3_000)
        tokens = (pool.token0, pool.token1)
        prices = chain.deployed_world.prices_usd
        liquidity = isqrt(
            prod(
                int(POOL_VALUE_USD * 10**token.decimals / prices[token.symbol]) for token in tokens
            )
        )
        middle_tick = read_v3(chain, pool).tick // 60 * 60
        positions = (
            (-6_000, 9_000, 2 * liquidity),
            (-1_200, 600, 6 * liquidity),
            (-120, 60, 20 * liquidity),
            (60, 180, 8 * liquidity),
        )
        chain.mint_positions(
            pool, [(middle_tick + low, middle_tick + high, size) for low, high, size in positions]
        )


def run_plans(count: int) -> list[Outcome]:
    """Return the outcomes of the first `count` problems, and print each on stderr as it ends."""
    outcomes = []
    with open_anvil() as chain:
        add_extreme_tokens(chain)
        for seed in range(count):
            snapshot = chain.snapshot()
            outcomes.append(execute(chain, seed))
            chain.revert(snapshot)
            print(outcomes[-1], file=sys.stderr)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=100, help="number of plans")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document with the numbers of plans that arrived, were stopped, and failed",
    )
    options = parser.parse_args()
    outcomes = run_plans(options.problems)
    planned_outcomes = [outcome for outcome in outcomes if outcome.plan is not None]
    document = {
        "problems": len(outcomes),
        "not_worth_a_trade": len(outcomes) - len(planned_outcomes),
        "arrived": sum(outcome.arrived for outcome in planned_outcomes),
        "stopped_by_a_named_bound": sum(
            not outcome.arrived and outcome.explained for outcome in planned_outcomes
        ),
        "equal_to_the_wei": sum(outcome.exact for outcome in planned_outcomes),
        "failed": [outcome.seed for outcome in planned_outcomes if not outcome.kept],
        "legs": sum(
            len(outcome.plan.legs) for outcome in planned_outcomes if outcome.plan is not None
        ),
        "largest_gap_bps": float(
            max(
                (
                    outcome.plan.gap_bps or Fraction(0)
                    for outcome in planned_outcomes
                    if outcome.plan
                ),
                default=Fraction(0),
            )
        ),
    }
    print(
        json.dumps(document)
        if options.json
        else "\n".join(f"{name:<26}{value}" for name, value in document.items())
    )
    sys.exit(1 if document["failed"] else 0)


if __name__ == "__main__":
    main()
