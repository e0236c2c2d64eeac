"""[[venues]]: the exchanges to trade on."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from agent.amm import POOL_KINDS
from agent.amm.v3.pool import WIDEST_SPACING
from agent.config.tables.fields import Address, ConfigTable, Share
from agent.units import BPS, PIPS

DYNAMIC_FEE = 0x800000
"""LPFeeLibrary.DYNAMIC_FEE_FLAG."""
MAX_FEE_PIPS = 100_000
RETURNS_DELTA = 1 << 3 | 1 << 2
"""Hooks.BEFORE_SWAP_RETURNS_DELTA_FLAG and AFTER_SWAP_RETURNS_DELTA_FLAG, bits of a hook's address."""


class VenueTable(ConfigTable):
    """One deployment of a kind of exchange; `label` tells several of one kind apart.

    `router` is the kind's own router (for "uniswap_v3" SwapRouter02), `quoter` QuoterV2,
    `quoter_v1` the Quoter for uniswap-python, if installed. `fee` is that of all pairs of a V2
    fork. `deployer` makes the pools if not the factory, `init_code_hash` is that of their init
    code if it is a fork's, `pool_implementation` what Slipstream's pools are clones of. `pools`
    replaces discovery by an explicit list.

    Of Uniswap V4 `factory` is the PoolManager, `quoter` V4Quoter, `tiers` are fees (millionths) with
    tick spacings, and `hooks` is the contract that the pools of this entry have as their hooks.
    """

    kind: str
    label: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,20}$")
    factory: Address
    router: Address | None = None
    quoter: Address | None = None
    quoter_v1: Address | None = None
    position_manager: Address | None = None
    deployer: Address | None = None
    pool_implementation: Address | None = None
    init_code_hash: str | None = Field(default=None, pattern=r"^0x[0-9a-f]{64}$")
    fee: Share | None = None
    fee_tiers: list[int] | None = Field(default=None, min_length=1)
    tick_spacings: list[int] | None = Field(default=None, min_length=1)
    tiers: list[tuple[int, int]] | None = Field(default=None, min_length=1)
    hooks: Address | None = None
    pools: list[Address] | None = None

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
        for fee_pips, spacing in tiers or ():
            if fee_pips == DYNAMIC_FEE:
                raise ValueError(
                    f"[{fee_pips}, {spacing}] has the flag of a dynamic fee, which the pool's hooks may"
                    " change within a swap; remove it"
                )
            if not (0 <= fee_pips <= MAX_FEE_PIPS and 0 < spacing <= WIDEST_SPACING):
                raise ValueError(
                    f"[{fee_pips}, {spacing}] is not a fee of 0 to {MAX_FEE_PIPS} millionths with a tick"
                    f" spacing of 1 to {WIDEST_SPACING}"
                )
        return tiers

    @field_validator("hooks")
    @classmethod
    def _require_neutral_hooks(cls, hooks: str | None) -> str | None:
        if hooks is not None and int(hooks, 16) == 0:
            raise ValueError("is the zero address; remove it for pools without hooks")
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
        keys = POOL_KINDS[self.kind].venue_keys
        common_keys = {"kind", "label", "factory"}
        foreign_keys = self.model_fields_set - common_keys - {*keys.required, *keys.optional}
        if foreign_keys:
            raise ValueError(f"{sorted(foreign_keys)[0]} is not a key of {self.kind}; remove it")
        missing_keys = [key for key in keys.required if getattr(self, key) is None]
        if missing_keys:
            raise ValueError(f"{missing_keys[0]} is missing; {self.kind} needs it")
        return self
