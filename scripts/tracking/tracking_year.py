"""A year of recorded prices from `trimtab init` with the template for small money, on the stand-in of Base: the first purchase,
then every day the real pools move to the next close, and the agent signs what its rule asks for. Prints trades, costs and tracking
error of the year beside the estimate in the document of init.

.venv/bin/python scripts/tracking/tracking_year.py --value 500

The estimate takes usual volatilities and says what a wild year loses; a second one takes those of the year, a third the depth of
the stand-in's pools too, whose ranges the prices of the year leave.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from agent.app.agent import open_agent
from agent.app.local import (
    SMALL_MONEY_TARGETS,
    base_config_text,
    fund,
    mine_at_base_fee,
    open_local_base,
)
from agent.app.research.backtests import sample_files
from agent.app.start.setup import NewConfig, write_new_config
from agent.app.start.tracking_losses import config_loss_document
from agent.app.start.trust import pin_all
from agent.config.load import load_config, parse_config
from agent.config.writing.portfolio_templates import SMALL_TEMPLATE
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.units import BPS
from tests.support.worlds import read_v3

LOOK_INTERVAL_S = 86_400 + 60
"""A day, and what a rebalance of the day before took: the template's cooldown of a day is over."""
DAYS_PER_YEAR = 365
CEILING_MULTIPLE = 10
"""Prices rose to five times theirs in 2021."""
PURCHASE_DAYS = 7
"""The purchase of 50,000 dollars moves the pools by more than plan_cost allows, and goes on once they are back."""
CHEAPEST_POOLS = ("v3 WETH/USDC 500", "v3 cbBTC/WETH 500")
DEPTH_INTERVAL_DAYS = 10
ESTIMATED = ("trades_a_year", "costs_bps", "drift_bps", "loss_bps")
COLUMNS = {"WETH": "ETH", "cbBTC": "BTC"}
Floats = NDArray[np.float64]


def recorded_closes() -> list[dict[str, Fraction]]:
    """Return the prices of each day of 2021 in dollars."""
    with sample_files()[0].open(encoding="utf-8", newline="") as price_file:
        return [
            {symbol: Fraction(row[column]) for symbol, column in COLUMNS.items()}
            for row in csv.DictReader(price_file)
        ]


def with_volatilities(config_text: str, log_returns: Floats) -> str:
    """Return the config with the volatilities and the correlation of these daily returns."""
    volatilities = log_returns.std(axis=0) * np.sqrt(DAYS_PER_YEAR)
    correlation = float(np.corrcoef(log_returns.T)[0, 1])
    pairs = [
        f'{symbol} = "{share:.1%}"' for symbol, share in zip(COLUMNS, volatilities, strict=True)
    ]
    risk = f'risk = {{ volatilities = {{ {", ".join(pairs)}, USDC = "2%" }}, correlations = {{ "WETH/cbBTC" = "{correlation:.0%}" }} }}'
    return config_text.replace("[policy]\n", f"[policy]\n{risk}\n", 1)


def token_values(chain: LocalChain, prices: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Return what the wallet holds of each token, in dollars."""
    dollar_prices = {**prices, "USDC": Fraction(1)}
    return {
        symbol: Fraction(chain.balance(symbol), 10 ** chain.tokens[symbol].decimals)
        * dollar_prices[symbol]
        for symbol in SMALL_MONEY_TARGETS
    }


def native_wei(chain: LocalChain) -> int:
    """Return the wallet's native coin, which pays the gas."""
    (balance,) = chain.node.ask([("eth_getBalance", [chain.wallet.address, "latest"])])
    return int(str(balance), 16)


def pool_depth_usd(chain: LocalChain, name: str, prices: Mapping[str, Fraction]) -> float:
    """Return the depth D of a V3 pool in dollars: a swap of x costs x²/D in impact within its range, with D the virtual reserve
    L·√P of the second token (Uniswap v3 whitepaper, section 6.2).
    """
    local_pool = chain.deployed_world.pool_by_name[name]
    pool = read_v3(chain, local_pool)
    reserve_raw = pool.liquidity * pool.sqrt_price_x96 / 2**96
    dollar_prices = {**prices, "USDC": Fraction(1)}
    return (
        reserve_raw
        / 10**local_pool.token1.decimals
        * float(dollar_prices[local_pool.token1.symbol])
    )


def played_year(
    chain: LocalChain, config_path: Path, closes: list[dict[str, Fraction]]
) -> dict[str, Any]:
    """Return trades, costs and tracking error of the agent over these days, shares of the portfolio, and the median depth of the
    cheapest pools.
    """
    targets = {
        symbol: Fraction(share.rstrip("%")) / 100 for symbol, share in SMALL_MONEY_TARGETS.items()
    }
    loaded_config = load_config(config_path)
    pin_all(loaded_config, [chain.transport])
    costs: list[float] = []
    active_returns: list[float] = []
    other_outcomes: dict[str, int] = {}
    deviations: dict[str, float] = {}
    depths_usd: list[float] = []
    with open_agent(loaded_config, transports=[chain.transport], clock=chain.clock) as agent:
        for _ in range(PURCHASE_DAYS):
            purchase = agent.rebalance(send=True, confirm=lambda *_: True)
            if purchase.kind is OutcomeKind.DONE:
                break
            chain.move_market(closes[0])
            chain.warp(LOOK_INTERVAL_S)
        else:
            raise SystemExit(f"no first purchase: {purchase.reason}")
        next_day_s = chain.now_s()
        for day, (prices_before, prices) in enumerate(
            zip([closes[0], *closes], closes, strict=False)
        ):
            day_returns = {
                symbol: float(prices[symbol] / prices_before[symbol] - 1) for symbol in COLUMNS
            }
            active_returns.append(
                sum(
                    deviations.get(symbol, 0) * day_return
                    for symbol, day_return in day_returns.items()
                )
            )
            next_day_s += LOOK_INTERVAL_S
            chain.move_market(prices)
            if day % DEPTH_INTERVAL_DAYS == 0:
                depths_usd += [pool_depth_usd(chain, name, prices) for name in CHEAPEST_POOLS]
            chain.warp(max(1, next_day_s - chain.now_s()))
            value_before = sum(token_values(chain, prices).values())
            native_before_wei = native_wei(chain)
            outcome = agent.rebalance(send=True, confirm=lambda *_: True)
            gas_value = Fraction(native_before_wei - native_wei(chain), 10**18) * prices["WETH"]
            values = token_values(chain, prices)
            total = sum(values.values())
            if outcome.kind is OutcomeKind.DONE:
                costs.append(float((value_before - total + gas_value) / value_before))
            elif outcome.kind is not OutcomeKind.HOLD:
                other_outcomes[outcome.reason] = other_outcomes.get(outcome.reason, 0) + 1
            deviations = {
                symbol: float(values[symbol] / total - target) for symbol, target in targets.items()
            }
    years = len(closes) / DAYS_PER_YEAR
    costs_bps = sum(costs) / years * BPS
    drift_bps = sum(active_return**2 for active_return in active_returns) / years / 2 * BPS
    return {
        "trades": len(costs),
        "costs_bps": round(costs_bps, 2),
        "drift_bps": round(drift_bps, 2),
        "loss_bps": round(costs_bps + drift_bps, 2),
        "end_value": round(float(total), 2),
        "depth_usd": round(statistics.median(depths_usd)),
        "other_outcomes": other_outcomes,
    }


def main() -> int:
    """Play the year with one value, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--value", type=int, default=500, metavar="USD")
    parser.add_argument("--days", type=int, default=DAYS_PER_YEAR)
    options = parser.parse_args()
    closes = recorded_closes()[: options.days]
    log_returns = np.diff(
        np.log([[float(day[symbol]) for symbol in COLUMNS] for day in closes]), axis=0
    )
    with open_local_base() as chain, tempfile.TemporaryDirectory() as folder:
        chain.move_market(closes[0])
        mine_at_base_fee(chain)
        fund(
            chain,
            {symbol: options.value if symbol == "USDC" else 0 for symbol in SMALL_MONEY_TARGETS},
        )
        chain_config_path = Path(folder) / "chain.toml"
        chain_config_path.write_text(base_config_text(chain))
        config_path = Path(folder) / "trimtab.toml"
        init_document = write_new_config(
            config_path,
            NewConfig(
                network=str(chain_config_path),
                wallet=chain.wallet.address,
                template=SMALL_TEMPLATE,
                use_cash=str(options.value),
                max_live_value=str(options.value * CEILING_MULTIPLE),
            ),
        )
        year_config = parse_config(with_volatilities(config_path.read_text(), log_returns))
        estimates = {
            "init": init_document["tracking_loss"],
            "of_the_year": config_loss_document(year_config, Fraction(1), Fraction(options.value)),
        }
        year = played_year(chain, config_path, closes)
        estimates["of_the_year_and_its_pools"] = config_loss_document(
            year_config, Fraction(1), Fraction(options.value), depth_usd=year["depth_usd"]
        )
    document = {
        "value": options.value,
        "days": len(closes),
        "year": year,
        "estimates": {
            name: {key: estimate["own"][key] for key in ESTIMATED}
            | {"wild_year_bps": estimate["wild_year_bps"]}
            for name, estimate in estimates.items()
            if estimate is not None and estimate["own"] is not None
        },
    }
    print(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
