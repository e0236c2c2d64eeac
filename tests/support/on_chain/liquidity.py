"""Configs with confirmed liquidity positions of a local chain."""

from __future__ import annotations

from collections.abc import Sequence

from agent.localchain import LocalChain
from agent.model import ConfirmedPosition
from agent.units import decimal_text
from tests.support import agents
from tests.support.agents import Changes

V2 = "v2 WETH/USDC"
V3 = "v3 WETH/USDC 3000"
OTHER = "v3 WBTC/WETH 3000"


def table(chain: LocalChain, own: ConfirmedPosition) -> dict[str, object]:
    """[[portfolio.positions]] as the owner writes it."""
    named = {token.address: token for token in chain.tokens.values()}
    pairs = ((named[address], raw) for address, raw in zip((own.token0, own.token1), own.entry_raw, strict=True))
    entry = {token.symbol: decimal_text(raw, token.decimals) for token, raw in pairs}
    where: dict[str, object] = {"pair": own.contract} if own.token_id is None else {"token_id": own.token_id}
    return {"kind": own.venue, **where, "entry": entry}


def config_with_positions(chain: LocalChain, own: Sequence[ConfirmedPosition], **changes: object) -> Changes:
    """Config with these positions, and room for them."""
    wide = {"limits.lp_max_weight": "90%", "limits.impermanent_loss": "5%"}
    return {"portfolio.positions": [table(chain, position) for position in own], **agents.ROOMY, **wide, **changes}
