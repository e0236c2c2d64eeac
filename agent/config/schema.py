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
    DurationOrOff,
    GasPrice,
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

SHORT_WINDOW_S = 300


class ReferenceTable(ConfigTable):
    """Sources of reference prices (docs/prices.md)."""

    kind: list[Literal["feed", "twap", "spot"]] = Field(min_length=1)
    """Sources in order; the first that has a price of the token counts. `spot` needs allow_spot on
    a live chain.
    """
    twap_window: Duration
    """Time over which a TWAP averages a pool's price."""
    short_window: DurationOrOff = SHORT_WINDOW_S
    """Window of a second TWAP, which follows a move sooner, 1m to 15m; default: 5m."""
    feed_max_age: Duration
    """Age above which a round of a feed is stale; an asset or hub may have its own."""
    sequencer_feed: AddressOrOff = None
    """Chainlink's uptime feed of a rollup; required on OP Mainnet, Base and Arbitrum One, or "off".
    """
    sequencer_grace: Duration | None = None
    """Time after a restart of the sequencer without trades."""
    allow_spot: bool = False
    """Permits `spot`, which anyone can move for a block, on a live chain."""


class PolicyTable(ConfigTable):
    """When the agent trades and how far (docs/triggers.md)."""

    trigger: TriggerTable
    """One trigger, or a list of 2 to 8 that fires if any of them does."""
    destination: Literal["target", "band", "halfway", "zone"] | None = None
    """Where a rebalance ends: the target, the nearer edge of the band, halfway, or the edge of the
    zone; default: the zone for `tracking` and `zone`, else the target.
    """
    cooldown: Duration
    """Shortest time between two rebalances; default: `trimtab init` writes 1h, a template 1h, 6h or
    1d.
    """
    confirm_blocks: int | None = Field(default=None, ge=0, le=32)
    """Preceding blocks whose prices must confirm a trigger by price; 0: a single block is enough.
    Required on a live chain; default: none, `init` writes 3.
    """
    jitter: ShareOrOff = None
    """Largest random delay of a schedule, as a share of its interval; "off": predictable."""
    only: Literal["sell", "buy", "winners", "losers"] | None = None
    """One side only: sells, buys, or corrections of winners or losers."""
    risk: RiskTable | None = None
    """Volatilities and correlations of the tracking rule or a zone."""


class ExecutionTable(PaceTable):
    """Execution of plans (docs/execution.md), and their style (docs/gradual-execution.md)."""

    router: Literal["swap_router_02", "rebalancer"]
    """Contract that swaps: Uniswap's SwapRouter02, or trimtab's own Rebalancer."""
    deadline: Duration
    """Time after which a transaction that is not in a block has no effect."""
    submit_url: SecretStr = SecretStr("")
    """Private endpoint, the only one that gets signed transactions; empty: the public endpoints. A
    secret.
    """
    submit_public_fallback: bool = False
    """The public endpoints get what the private one fails to take."""
    rebalancer: Address | None = None
    """Address of the Rebalancer; required if it is the router."""
    min_tip: GasPrice | None = None
    """Least tip per unit of gas, where nodes demand more than they suggest."""

    @model_validator(mode="after")
    def _check_submission(self) -> ExecutionTable:
        submit_url = self.submit_url.get_secret_value()
        if submit_url and not submit_url.startswith(("http://", "https://")):
            raise ValueError(
                "submit_url: not an http or https address; write https://…, or leave it empty to use the"
                " public mempool"
            )
        if self.submit_public_fallback and not submit_url:
            raise ValueError(
                "submit_public_fallback: has no effect without submit_url; set submit_url, or"
                " remove it"
            )
        return self


class StoreTable(ConfigTable):
    """Where the store is (docs/journal.md)."""

    url: str
    """Database, such as "sqlite:///trimtab.db", a path beside the config file, or
    "postgresql+psycopg://USER@HOST/DATABASE" (docs/many-wallets.md)."""


TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")]


class Config(LayerTables):
    """The whole file."""

    chain: ChainTable
    """Chain and endpoints."""
    wallet: WalletTable
    """Address, and where its key is."""
    portfolio: PortfolioTable
    """Assets with their targets."""
    reference: ReferenceTable
    """Sources of reference prices."""
    venues: list[VenueTable] = Field(min_length=1)
    """Exchanges."""
    policy: PolicyTable
    """Trigger, destination, cooldown."""
    limits: LimitsTable
    """Limits of the guards."""
    lp: LpTable | None = None
    """Liquidity."""
    execution: ExecutionTable
    """How plans are sent."""
    store: StoreTable
    """Where the store is."""
    strategies: list[StrategyTable] = Field(default_factory=list)
    """Several strategies in one wallet."""
    split: SplitTable | None = None
    """Band of their capital split."""
    futures: AnyFuturesTable | None = None
    """Perpetual futures."""
    signals: dict[TableName, SignalTable] = Field(default_factory=dict)
    """Your own signals, by name."""
    data: dict[TableName, DataTable] = Field(default_factory=dict)
    """Published prices and supplies, by name."""
    service: ServiceTable = Field(default_factory=ServiceTable)
    """Monitoring of trimtab run."""
    alerts: AlertsTable = Field(default_factory=AlertsTable)
    """Messages to the owner."""
    telegram: TelegramTable | None = None
    """The Telegram bot."""
    record: RecordTable | None = None
    """Recording of steps."""

    _resolve_native = model_validator(mode="before")(resolve_native_asset)
