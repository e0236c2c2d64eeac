"""[venues]: the exchanges to trade on."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from agent.amm import POOL_KINDS
from agent.config.fields import (
    Address,
    ConfigTable,
)


class UniswapV2Table(ConfigTable):
    """Uniswap V2. `pools` replaces discovery by an explicit list."""

    factory: Address
    router: Address
    pools: list[Address] | None = None


class UniswapV3Table(ConfigTable):
    """Uniswap V3. `router` is SwapRouter02, `quoter` QuoterV2, `quoter_v1` the Quoter for
    uniswap-python, if installed.
    """

    factory: Address
    router: Address
    quoter: Address
    quoter_v1: Address
    position_manager: Address
    fee_tiers: list[int] = Field(min_length=1)
    pools: list[Address] | None = None


class VenuesTable(ConfigTable):
    """Venues to trade on. At least one is required."""

    uniswap_v2: UniswapV2Table | None = None
    uniswap_v3: UniswapV3Table | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_simulated(cls, data: Any) -> Any:
        """Reject pool kinds that only plans and backtests support."""
        simulated_kinds = sorted(POOL_KINDS.keys() - cls.model_fields.keys())
        unsupported_kinds = [
            kind for kind in simulated_kinds if isinstance(data, dict) and kind in data
        ]
        if unsupported_kinds:
            raise ValueError(
                f"{unsupported_kinds[0]} can only be backtested: live trading does not support it; remove it"
            )
        return data

    @model_validator(mode="after")
    def _require_venue(self) -> VenuesTable:
        if self.uniswap_v2 is None and self.uniswap_v3 is None:
            raise ValueError("no venue; add [venues.uniswap_v3] or [venues.uniswap_v2]")
        return self
