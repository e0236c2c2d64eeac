"""Config of agents with a futures layer on the real contracts of Perpetual Protocol v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.localchain.perpetuals import LocalPerps
from tests.support.agents import ROOMY

EVEN = {"WETH": "50%", "USDC": "50%"}
LIMITS: dict[str, str] = {
    "max_leverage": "3x",
    "max_utilisation": "90%",
    "max_position": "100%",
    "spot_multiple": "off",
    "stress_move": "10%",
    "slippage": "2%",
    "hysteresis": "5%",
    "emergency_distance": "3%",
    "emergency_slippage": "5%",
    "max_basis": "5%",
    "index_age": "1h",
    "max_top_up_per_day": "0%",
}


def futures_table(perps: LocalPerps, weights: Mapping[str, str], leverage: str = "2x", **limits: str) -> dict[str, Any]:
    """Return the table [futures] for the deployed contracts. Margin counts in the spot weights, so that a deposit moves none."""
    at = perps.addresses
    return {
        "venue": "perpetual_protocol_v2",
        "clearing_house": at.clearing_house,
        "vault": at.vault,
        "account_balance": at.account_balance,
        "exchange": at.exchange,
        "market_registry": at.market_registry,
        "config": at.clearing_house_config,
        "delegate_approval": at.delegate_approval,
        "collateral": "USDC",
        "leverage": leverage,
        "band": "5%",
        "margin_in_weights": True,
        "markets": [
            {
                "symbol": symbol,
                "base": perps.markets[symbol].base_token,
                "aggregator": perps.markets[symbol].aggregator,
                "weight": weight,
            }
            for symbol, weight in weights.items()
        ],
        "limits": LIMITS | limits,
    }


def futures_config_changes(perps: LocalPerps, weights: Mapping[str, str], leverage: str = "2x", **limits: str) -> dict[str, object]:
    """Return the config changes that add the futures layer; its margin counts in the managed value."""
    return {**ROOMY, "portfolio.max_live_value": "200000", "futures": futures_table(perps, weights, leverage, **limits)}
