"""The tokens that most tests trade."""

from __future__ import annotations

from tests.support.builders import token

WETH, WBTC, LINK, USDC = (token(symbol) for symbol in ("WETH", "WBTC", "LINK", "USDC"))
