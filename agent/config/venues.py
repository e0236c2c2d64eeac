"""[venues]: the exchanges to trade on."""

from __future__ import annotations

from pydantic import Field, model_validator

from agent.config.fields import Address
from agent.config.table import Table


class UniswapV2Table(Table):
    """Uniswap V2: `pools` replaces discovery by an explicit list."""

    factory: Address
    router: Address
    pools: list[Address] | None = None


class UniswapV3Table(Table):
    """Uniswap V3: `router` is SwapRouter02, `quoter` QuoterV2, `quoter_v1` what uniswap-python asks where it is installed."""

    factory: Address
    router: Address
    quoter: Address
    quoter_v1: Address
    position_manager: Address
    fee_tiers: list[int] = Field(min_length=1)
    pools: list[Address] | None = None


class VenuesTable(Table):
    """Where to trade; at least one venue."""

    uniswap_v2: UniswapV2Table | None = None
    uniswap_v3: UniswapV3Table | None = None

    @model_validator(mode="after")
    def _some(self) -> VenuesTable:
        if self.uniswap_v2 is None and self.uniswap_v3 is None:
            raise ValueError("no venue; add [venues.uniswap_v3] or [venues.uniswap_v2]")
        return self
