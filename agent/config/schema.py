"""Tables of trimtab.toml as pydantic models. Unknown keys are rejected, and values that affect
money have no default, except some limits (agent/model/limits.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from agent.config.tables.alerts import AlertsTable
from agent.config.tables.chain import ChainTable
from agent.config.tables.fields import (
    Address,
    AddressOrOff,
    ConfigTable,
    Duration,
    ShareOrOff,
)
from agent.config.tables.futures import AnyFuturesTable
from agent.config.tables.limits import LimitsTable
from agent.config.tables.liquidity import LpTable
from agent.config.tables.pace import PaceTable
from agent.config.tables.portfolio import PortfolioTable, resolve_native_asset
from agent.config.tables.record import RecordTable
from agent.config.tables.service import ServiceTable
from agent.config.tables.strategies import SplitTable, StrategyTable
from agent.config.tables.telegram import TelegramTable
from agent.config.tables.triggers import RiskTable, TriggerTable
from agent.config.tables.venues import VenueTable
from agent.config.tables.wallet import WalletTable
from agent.config.tables.weights import DataTable, SignalTable
from agent.layers.config import LayerTables


class ReferenceTable(ConfigTable):
    """Sources of reference prices, in order. On a rollup, also the sequencer's uptime feed."""

    kind: list[Literal["feed", "twap", "spot"]] = Field(min_length=1)
    twap_window: Duration
    feed_max_age: Duration
    sequencer_feed: AddressOrOff = None
    sequencer_grace: Duration | None = None
    allow_spot: bool = False


class PolicyTable(ConfigTable):
    """Trigger, destination and cooldown. `risk` has the volatilities and correlations of a zone.

    Price triggers fire once the prices of `confirm_blocks` earlier blocks agree; schedules are
    delayed by up to `jitter` of their interval. `only` restricts a rebalance to one side.
    """

    trigger: TriggerTable
    destination: Literal["target", "band", "halfway", "zone"]
    cooldown: Duration
    confirm_blocks: int | None = Field(default=None, ge=0, le=32)
    jitter: ShareOrOff = None
    only: Literal["sell", "buy", "winners", "losers"] | None = None
    risk: RiskTable | None = None


class ExecutionTable(PaceTable):
    """Execution of plans.

    `rebalancer` is the address of the Rebalancer contract, required if it is the router. With
    `submit_url`, signed transactions are sent only there; `submit_public_fallback` allows the
    public endpoints if it fails.
    """

    router: Literal["swap_router_02", "rebalancer"]
    deadline: Duration
    submit_url: SecretStr = SecretStr("")
    submit_public_fallback: bool = False
    rebalancer: Address | None = None

    @model_validator(mode="after")
    def _check_submission(self) -> ExecutionTable:
        url = self.submit_url.get_secret_value()
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(
                "submit_url: not an http or https address; write https://…, or leave it empty to use the"
                " public mempool"
            )
        if self.submit_public_fallback and not url:
            raise ValueError(
                "submit_public_fallback: has no effect without submit_url; set submit_url, or"
                " remove it"
            )
        return self


class StoreTable(ConfigTable):
    """Location of the store; relative SQLite paths are relative to the config file."""

    url: str


SignalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")]


class Config(LayerTables):
    """The whole file; the tables of layers are in its base."""

    chain: ChainTable
    wallet: WalletTable
    portfolio: PortfolioTable
    reference: ReferenceTable
    venues: list[VenueTable] = Field(min_length=1)
    policy: PolicyTable
    limits: LimitsTable
    lp: LpTable | None = None
    execution: ExecutionTable
    store: StoreTable
    strategies: list[StrategyTable] = Field(default_factory=list)
    split: SplitTable | None = None
    futures: AnyFuturesTable | None = None
    signals: dict[SignalName, SignalTable] = Field(default_factory=dict)
    data: dict[SignalName, DataTable] = Field(default_factory=dict)
    service: ServiceTable = Field(default_factory=ServiceTable)
    alerts: AlertsTable = Field(default_factory=AlertsTable)
    telegram: TelegramTable | None = None
    record: RecordTable | None = None

    _native = model_validator(mode="before")(resolve_native_asset)
