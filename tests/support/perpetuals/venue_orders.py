"""Orders of futures and the account that sends them."""

from __future__ import annotations

from fractions import Fraction

from agent.model.futures import MarginAccount, MarginTier, PerpMarket, PerpOrder, PerpOrderKind
from agent.units import Token

NOW_S = 1_790_000_000
PRICE = Fraction(3_000 * 10**6, 10**4)
TIERS = (MarginTier(0, 50_000, 25_000),)
MARKET = PerpMarket("ETH", "ETH", "", 4, 1, Fraction(100), TIERS, 450, PRICE, PRICE, NOW_S - 5, Fraction(0), min_notional_raw=10**7)
ACCOUNT = MarginAccount(Token("", "USDC", 6), 1, 10_000 * 10**6, 0, (), (MARKET,), initial_on_debt=False, is_on_chain=False)
BUY = PerpOrder("ETH", 10_000, PerpOrderKind.MARKET, 3_010 * 10**6, False)
