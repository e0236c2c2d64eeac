"""The keys of trimtab.toml as pydantic models: unknown keys are refused, values that decide money have no default."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from agent.config import native
from agent.config.alerts import AlertsTable
from agent.config.bounds import require_accepted, require_protection
from agent.config.chain import ChainTable
from agent.config.fields import (
    Address,
    AddressOrOff,
    DecimalOrOff,
    Duration,
    DurationOrOff,
    GasPriceOrOff,
    PlainDecimal,
    Share,
    ShareOrOff,
    Switch,
    Weight,
)
from agent.config.liquidity import LpTable, PositionTable, require_usable
from agent.config.max_weight import MaxWeight, require_max_weight
from agent.config.orders import OrderKeys, OrdersTable, require_alone, require_orders
from agent.config.pace import PaceTable, require_pace
from agent.config.record import RecordTable
from agent.config.service import ServiceTable
from agent.config.strategies import SplitTable, StrategyTable, require_strategies
from agent.config.table import Table
from agent.config.tax import TaxTable
from agent.config.triggers import Band, TriggerTable
from agent.config.venues import VenuesTable
from agent.config.wallet import WalletTable
from agent.config.weights import WeightsTable, require_weights
from agent.config.zone import RiskTable, require_zone
from agent.units import BPS


class HubTable(Table):
    """A token that routes may pass through without being held. `decimals`, if given, must be the chain's.

    `feed_max_age` is that of its own feed, where its heartbeat is another than that of the rest.
    """

    symbol: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    address: Address
    feed: Address | None = None
    feed_max_age: Duration | None = None
    decimals: int | None = Field(default=None, ge=0, le=36)


class AssetTable(HubTable, OrderKeys):
    """One target. `reserve` is an amount in whole coins that is left alone, `rebasing` what the balance may change by in a day
    without any transfer, as those of rebasing and interest-bearing tokens do. `band` is its own, in place of the trigger's.

    Its orders stand in agent/config/orders.py. `native` is never written: the file then has address = "native", and `address` here
    is that of the wrapped token.
    """

    target: Weight
    reserve: PlainDecimal
    native: bool = False
    rebasing: Share = 0
    band: Band | None = None


class PortfolioTable(Table):
    """Targets that sum to 100 %."""

    numeraire: str
    max_live_value: DecimalOrOff
    assets: list[AssetTable] = Field(min_length=2)
    hubs: list[HubTable] = Field(default_factory=list)
    positions: list[PositionTable] = Field(default_factory=list)
    weights: WeightsTable | None = None
    orders: OrdersTable | None = None

    @field_validator("assets")
    @classmethod
    def _sums_to_one(cls, assets: list[AssetTable]) -> list[AssetTable]:
        total = sum(asset.target for asset in assets)
        if total != BPS:
            raise ValueError(
                f"targets sum to {total / 100:g}%, not 100%; {'add' if total < BPS else 'take away'} {abs(BPS - total) / 100:g}%"
            )
        return assets

    @model_validator(mode="after")
    def _distinct(self) -> PortfolioTable:
        addresses = [a.address for a in self.assets] + [h.address for h in self.hubs]
        symbols = [a.symbol for a in self.assets] + [h.symbol for h in self.hubs]
        for what, values in (("address", addresses), ("symbol", symbols)):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]} is given twice; each token once")
        if self.numeraire not in [a.symbol for a in self.assets]:
            raise ValueError(f"numeraire {self.numeraire!r} is none of the assets; add it with a target (0% is allowed)")
        require_weights(self)
        require_orders(self)
        return self

    @property
    def listed(self) -> list[AssetTable | HubTable]:
        """Assets, then hubs."""
        return [*self.assets, *self.hubs]


class ReferenceTable(Table):
    """Where reference prices come from, in order; on a rollup, whose feed says that its sequencer is up."""

    kind: list[Literal["feed", "twap", "spot"]] = Field(min_length=1)
    twap_window: Duration
    feed_max_age: Duration
    sequencer_feed: AddressOrOff = None
    sequencer_grace: Duration | None = None
    allow_spot: bool = False


class PolicyTable(Table):
    """When to act, how far to go, how long to rest; `risk` is what a zone is measured by.

    Prices fire a trigger once those of `confirm_blocks` blocks before agree; a schedule is late by up to `jitter` of its interval.
    With `only` one side of a rebalance is traded.
    """

    trigger: TriggerTable
    destination: Literal["target", "band", "halfway", "zone"]
    cooldown: Duration
    confirm_blocks: int | None = Field(default=None, ge=0, le=32)
    jitter: ShareOrOff = None
    only: Literal["sell", "buy", "winners", "losers"] | None = None
    risk: RiskTable | None = None


class LimitsTable(Table):
    """Every guard's limit; each may be "off". `i_accept` names those that are off, or above their ceilings, on purpose."""

    price_impact: ShareOrOff
    slippage: ShareOrOff
    plan_cost: ShareOrOff
    turnover: ShareOrOff
    daily_turnover: ShareOrOff
    daily_loss: ShareOrOff
    total_loss: ShareOrOff = None
    oracle_deviation: ShareOrOff
    second_quote_deviation: ShareOrOff
    depeg: ShareOrOff
    gas_price: GasPriceOrOff
    gas_per_day: DecimalOrOff
    native_floor: DecimalOrOff
    native_top_up: DecimalOrOff = None
    head_age: DurationOrOff
    min_trade: DecimalOrOff
    pool_min_value: DecimalOrOff
    impermanent_loss: ShareOrOff
    lp_max_weight: ShareOrOff = None
    balance_jump: ShareOrOff
    balance_jump_wait: DurationOrOff = 86_400
    first_purchase: DurationOrOff = None
    token_screen: Switch = True
    payout_per_day: DecimalOrOff = "0"
    max_weight: MaxWeight | None = None
    i_accept: list[str] = Field(default_factory=list)


class ExecutionTable(PaceTable):
    """How a plan is sent. `rebalancer` is the address of our own contract, needed when it is the router.

    With `submit_url` signed bytes go there alone; `submit_public_fallback` lets them go to the public endpoints where it fails.
    """

    router: Literal["swap_router_02", "rebalancer"]
    deadline: Duration
    submit_url: SecretStr = SecretStr("")
    submit_public_fallback: bool = False
    rebalancer: Address | None = None

    @model_validator(mode="after")
    def _private(self) -> ExecutionTable:
        url = self.submit_url.get_secret_value()
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("submit_url: not an http or https address; write https://…, or leave it empty for the public mempool")
        if self.submit_public_fallback and not url:
            raise ValueError("submit_public_fallback: true without submit_url permits nothing; set submit_url, or remove it")
        return self


class StoreTable(Table):
    """Where the journal lives; relative SQLite paths are relative to the config file."""

    url: str


class Config(Table):
    """The whole file."""

    chain: ChainTable
    wallet: WalletTable
    portfolio: PortfolioTable
    reference: ReferenceTable
    venues: VenuesTable
    policy: PolicyTable
    limits: LimitsTable
    lp: LpTable | None = None
    execution: ExecutionTable
    store: StoreTable
    strategies: list[StrategyTable] = Field(default_factory=list)
    split: SplitTable | None = None
    service: ServiceTable = Field(default_factory=ServiceTable)
    alerts: AlertsTable = Field(default_factory=AlertsTable)
    tax: TaxTable | None = None
    record: RecordTable | None = None

    _native = model_validator(mode="before")(native.resolve)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for check in (
            require_protection,
            require_max_weight,
            require_usable,
            require_zone,
            require_pace,
            require_strategies,
            require_alone,
            native.require_sensible,
            require_accepted,
        ):
            check(self)
        if self.wallet.test_account is not None and not self.chain.local:
            raise ValueError("wallet.test_account is for local chains only; use keystore")
        return self
