"""Legs for a second quote."""

from __future__ import annotations

from agent.model import Leg, LegPlace
from tests.support.builders import address, token

WETH = token("WETH").address
USDC = token("USDC").address


def leg(
    amount_in_raw: int, *, pool: str = "deep", token_in: str = WETH, token_out: str = USDC, fee_pips: int = 3000, venue: str = "v2"
) -> Leg:
    return Leg(address(pool), venue, token_in, token_out, fee_pips, amount_in_raw, 1, 1, 0, 0, LegPlace.WALLET, LegPlace.WALLET)
