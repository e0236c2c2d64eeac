"""Portfolios whose router takes a fee of a token that is switched on while a swap is pending."""

from __future__ import annotations

TARGETS = {"WETH": "50%", "USDC": "40%", "LINK": "10%"}
HELD = {"WETH": 50_000, "USDC": 50_000}
V3_ONLY = {"venues.uniswap_v2": None}
