"""[[venues]]: the exchanges to trade on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from agent.amm import POOL_KINDS
from agent.amm.v3.pool import WIDEST_SPACING
from agent.config.tables.fields import (
    INIT_CODE_HASH_PATTERN,
    VENUE_LABEL_PATTERN,
    Address,
    ConfigTable,
    Share,
)
from agent.units import BPS, PIPS

DYNAMIC_FEE = 0x800000
"""LPFeeLibrary.DYNAMIC_FEE_FLAG."""
MAX_FEE_PIPS = 100_000
FeePips = Annotated[int, Field(ge=0, le=MAX_FEE_PIPS)]
TickSpacing = Annotated[int, Field(ge=1, le=WIDEST_SPACING)]
RETURNS_DELTA = 1 << 3 | 1 << 2
"""Hooks.BEFORE_SWAP_RETURNS_DELTA_FLAG and AFTER_SWAP_RETURNS_DELTA_FLAG, bits of a hook's address."""


class VenueTable(ConfigTable):
    """One deployment of an exchange (docs/networks.md)."""

    kind: str = Field(description=f"kind of exchange: {', '.join(POOL_KINDS)}")
    label: str | None = Field(default=None, pattern=VENUE_LABEL_PATTERN)
    """Tells several deployments of one kind apart."""
    factory: Address
    """Its factory; of Uniswap V4 the PoolManager."""
    router: Address | None = None
    """Its own router; of Uniswap V3 SwapRouter02."""
    quoter: Address | None = None
    """Its quoter, for second quotes: QuoterV2; of Uniswap V4 V4Quoter."""
    quoter_v1: Address | None = None
    """The older Quoter, for uniswap-python if that is installed."""
    position_manager: Address | None = None
    """Contract of its liquidity positions."""
    deployer: Address | None = None
    """What makes its pools, if not the factory."""
    pool_implementation: Address | None = None
    """Contract of which Slipstream's pools are clones."""
    init_code_hash: str | None = Field(default=None, pattern=INIT_CODE_HASH_PATTERN)
    """Hash of the code that makes its pools, of a fork."""
    fee: Share | None = None
    """Fee of all its pairs, of a fork of V2."""
    fee_tiers: list[FeePips] | None = Field(default=None, min_length=1)
    """Fees of its pools, in millionths."""
    tick_spacings: list[TickSpacing] | None = Field(default=None, min_length=1)
    """Tick spacings of its pools, of Slipstream."""
    tiers: list[tuple[int, int]] | None = Field(default=None, min_length=1)
    """Fees in millionths with tick spacings, of Uniswap V4."""
    hooks: Address | None = None
    """Contract that all pools of this entry have as their hooks, of Uniswap V4."""
    pools: list[Address] | None = None
    """The only pools used; default: those that its factory knows."""

    @property
    def name(self) -> str:
        """Name of its pools and legs."""
        return self.kind if self.label is None else f"{self.kind}/{self.label}"

    @property
    def fee_pips(self) -> int:
        """Fee of its pairs in millionths; 0 if the config names none."""
        return 0 if self.fee is None else self.fee * (PIPS // BPS)

    @field_validator("tiers")
    @classmethod
    def _require_static_fees(
        cls, tiers: list[tuple[int, int]] | None
    ) -> list[tuple[int, int]] | None:
        for fee_pips, tick_spacing in tiers or ():
            if fee_pips == DYNAMIC_FEE:
                raise ValueError(
                    f"[{fee_pips}, {tick_spacing}] has the flag of a dynamic fee, which the pool's hooks may"
                    " change within a swap; remove it"
                )
            if not (0 <= fee_pips <= MAX_FEE_PIPS and 0 < tick_spacing <= WIDEST_SPACING):
                raise ValueError(
                    f"[{fee_pips}, {tick_spacing}] is not a fee of 0 to {MAX_FEE_PIPS} millionths with a tick"
                    f" spacing of 1 to {WIDEST_SPACING}"
                )
        return tiers

    @field_validator("hooks")
    @classmethod
    def _require_neutral_hooks(cls, hooks: str | None) -> str | None:
        if hooks is not None and int(hooks, 16) & RETURNS_DELTA:
            raise ValueError(
                f"{hooks} may take part of a swap's amounts (its address says so); use other pools"
            )
        return hooks

    @model_validator(mode="after")
    def _require_keys_of_kind(self) -> VenueTable:
        if self.kind not in POOL_KINDS:
            raise ValueError(f"kind {self.kind!r} is not known; use {', '.join(POOL_KINDS)}")
        if self.fee == 0:
            raise ValueError("fee is 0; write that of the pairs, such as 0.25%, or remove it")
        if self.fee_pips > MAX_FEE_PIPS:
            raise ValueError("fee is above 10%; write that of the pairs, such as 0.25%")
        venue_keys = POOL_KINDS[self.kind].venue_keys
        common_keys = {"kind", "label", "factory"}
        foreign_keys = (
            self.model_fields_set - common_keys - {*venue_keys.required, *venue_keys.optional}
        )
        if foreign_keys:
            raise ValueError(f"{sorted(foreign_keys)[0]} is not a key of {self.kind}; remove it")
        missing_keys = [key for key in venue_keys.required if getattr(self, key) is None]
        if missing_keys:
            raise ValueError(f"{missing_keys[0]} is missing; {self.kind} needs it")
        return self
