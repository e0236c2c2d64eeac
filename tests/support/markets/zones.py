"""No-trade zones of a config on a local chain."""

from __future__ import annotations

from tests.support.agents import ROOMY

TARGETS = {"WETH": "50%", "USDC": "50%"}
ZONE = ROOMY | {
    "policy.trigger": {"kind": "zone", "tracking_error_cost": "0.5bps", "horizon": "30d"},
    "policy.destination": "zone",
    "policy.risk": {"volatilities": {"WETH": "80%", "USDC": "0.5%"}, "correlation": "0%"},
}
