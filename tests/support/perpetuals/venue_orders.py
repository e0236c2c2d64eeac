"""Orders of futures and the account that sends them."""

from __future__ import annotations

from fractions import Fraction

from agent.model.futures import MarginAccount, MarginTier, PerpMarket, PerpOrder, PerpOrderKind
from agent.units import Token

NOW_S = 1_790_000_000
PRICE = Fraction(3_000 * 10**6, 10**4)
TIERS = (MarginTier(0, 50_000, 25_000),)
MARKET = PerpMarket(
    market="ETH",
    symbol="ETH",
    asset="",
    size_decimals=4,
    lot_raw=1,
    tiers=TIERS,
    fee_ppm=450,
    mark=PRICE,
    index=PRICE,
    index_s=NOW_S - 5,
    funding_daily=Fraction(0),
    min_notional_raw=10**7,
)
ACCOUNT = MarginAccount(Token("", "USDC", 6), 1, 10_000 * 10**6, 0, (), (MARKET,), initial_on_debt=False, is_on_chain=False)
BUY = PerpOrder("ETH", 10_000, PerpOrderKind.MARKET, 3_010 * 10**6, False)
