"""Tables of trimtab.toml as pydantic models. Unknown keys are rejected, and values that affect
money have no default, except some limits (agent/model/limits.py).
"""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from agent.amm import POOL_KINDS
from agent.codec import json_field
from agent.config.fields import (
    Address,
    AddressOrOff,
    ConfigTable,
    DecimalOrOff,
    Duration,
    KeyringName,
    PageAddress,
    PlainDecimal,
    Share,
    ShareOrOff,
    Variable,
    Weight,
)
from agent.config.futures import AnyFuturesTable, require_futures
from agent.config.limits import (
    LimitsTable,
    require_accepted,
    require_countable_cash,
    require_max_weight,
    require_protection,
)
from agent.config.liquidity import LpPositionTable, LpTable, require_usable
from agent.config.orders import (
    OrderKeys,
    OrdersTable,
    PaceTable,
    require_orders,
    require_pace,
    require_strategy_orders,
)
from agent.config.service import AlertsTable, RecordTable, ServiceTable, TelegramTable
from agent.config.strategies import SplitTable, StrategyTable, require_strategies
from agent.config.triggers import Band, RiskTable, TriggerTable, require_zone
from agent.config.weights import (
    DataTable,
    SignalTable,
    WeightsTable,
    require_futures_allocators,
    require_signals,
    require_weights,
)
from agent.errors import ConfigError
from agent.layers.config import CHECKS, LayerTables
from agent.units import BPS

# --- [chain] and [[chain.rpc]]: the chain, its endpoints, and the operators that must agree.


LOCAL_CHAIN_IDS = frozenset({1337, 31337, 131277322940537})
"""Ids of development chains: anvil, ganache, eth-tester."""
LONGEST_TIMEOUT_S = 60


class RpcTable(ConfigTable):
    """One endpoint. Endpoints of one operator count once for the quorum. The URL is a secret.
    `timeout` bounds one request.
    """

    operator: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    url: SecretStr | None = None
    url_env: Variable | None = None
    timeout: Duration = 10

    @model_validator(mode="after")
    def _one_source(self) -> RpcTable:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give exactly one of url and url_env")
        if not 0 < self.timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(
                f"timeout: {self.timeout}s; write 1s to {LONGEST_TIMEOUT_S}s, for example 10s"
            )
        return self

    def resolve(self) -> str:
        """Return the URL, from file or environment. Raises ConfigError if the variable is not set."""
        if self.url is not None:
            return self.url.get_secret_value()
        value = os.environ.get(self.url_env or "")
        if not value:
            raise ConfigError(
                f"chain.rpc.url_env: environment variable {self.url_env} is not set",
                "export it, or put it into .env beside the config",
            )
        return value


class ChainTable(ConfigTable):
    """The chain.

    `single_operator` names the only operator, whose answers are then trusted alone; local chains do
    not need it. `fork` marks a local copy of a live chain with that chain's id, on which only
    published test keys sign. `quorum` requires more operators than the default. Nothing is signed
    unless the newest blocks of enough operators are within `max_lag_blocks` of each other.
    """

    chain_id: int = Field(gt=0)
    confirmations: int = Field(ge=1, le=64)
    wrapped_native: Address
    rpc: list[RpcTable] = Field(min_length=1)
    single_operator: str | None = None
    quorum: int | None = None
    max_lag_blocks: int = Field(default=3, ge=0, le=64)
    fork: bool = False
    explorer: PageAddress = ""

    @model_validator(mode="after")
    def _enough(self) -> ChainTable:
        if self.quorum is None:
            return self
        if self.quorum < self._least:
            raise ValueError(
                f"quorum: {self.quorum} is below the {self._least} operators that must agree"
                " here; raise it, or name a single operator in single_operator"
            )
        if self.quorum > (known := len({endpoint.operator for endpoint in self.rpc})):
            raise ValueError(
                f"quorum: {self.quorum} operators must agree, but [[chain.rpc]] names {known};"
                " add endpoints, or lower quorum"
            )
        return self

    @property
    def local(self) -> bool:
        """True for development chains and local forks."""
        return self.fork or self.chain_id in LOCAL_CHAIN_IDS

    @property
    def min_operators(self) -> int:
        """Operators that must agree: `quorum`, else two (one if local or `single_operator`)."""
        return max(self._least, self.quorum or 0)

    @property
    def _least(self) -> int:
        alone = {endpoint.operator for endpoint in self.rpc} == {self.single_operator}
        return 1 if self.local or alone else 2


# --- [venues]: the exchanges to trade on.


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
    def _live(cls, data: Any) -> Any:
        """Reject pool kinds that only plans and backtests support."""
        simulated = sorted(POOL_KINDS.keys() - cls.model_fields.keys())
        named = [kind for kind in simulated if isinstance(data, dict) and kind in data]
        if named:
            raise ValueError(
                f"{named[0]} can only be backtested: live trading does not support it; remove it"
            )
        return data

    @model_validator(mode="after")
    def _some(self) -> VenuesTable:
        if self.uniswap_v2 is None and self.uniswap_v3 is None:
            raise ValueError("no venue; add [venues.uniswap_v3] or [venues.uniswap_v2]")
        return self


# --- [wallet]: its address and key source.


class WalletTable(ConfigTable):
    """Wallet of the portfolio. A key source is needed only for sending.

    `keyring` is service/name in the keyring of the operating system. In mode "propose" nothing is
    signed here: transactions are written into the folder `proposals` for an external signer. `safe`
    marks the address as a Safe, whose owners sign.
    """

    address: Address
    keystore: str | None = None
    key_env: Variable | None = None
    keyring: KeyringName | None = None
    prompt: bool = False
    test_account: int | None = Field(default=None, ge=0, le=9)
    mode: Literal["sign", "propose"] = "sign"
    safe: bool = False
    proposals: str = Field(default="proposals", min_length=1)
    payout_addresses: list[Address] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_key(self) -> WalletTable:
        given = [n for n in ("keystore", "key_env", "keyring", "prompt") if getattr(self, n)]
        if self.test_account is not None:
            given.append("test_account")
        if len(given) > 1:
            raise ValueError(f"more than one key source ({', '.join(given)}); keep one")
        if self.mode == "propose" and given:
            raise ValueError(
                f'mode "propose" signs nothing here and takes no {given[0]}; remove it, or write'
                ' mode = "sign"'
            )
        if self.safe and self.mode != "propose":
            raise ValueError('safe: a Safe has no key to sign with here; write mode = "propose"')
        return self


# --- The native coin: an asset with address = "native", and its refill for gas.


NATIVE = "native"


def resolve_native_asset(data: object) -> object:
    """Return the tables with the asset "native" moved to the wrapped token's address and `native`
    set.

    Native coin and wrapped token count as one asset. Raises ValueError if the config has both.
    """
    if not isinstance(data, dict):
        return data
    portfolio, chain = data.get("portfolio"), data.get("chain")
    assets = json_field(portfolio, "assets")
    if (
        not isinstance(portfolio, dict)
        or not isinstance(chain, dict)
        or not isinstance(assets, list)
    ):
        return data
    for asset in assets:
        if isinstance(asset, dict) and "native" in asset:
            raise ValueError('portfolio.assets.native: unknown key; write address = "native"')
    coins = [
        asset for asset in assets if isinstance(asset, dict) and asset.get("address") == NATIVE
    ]
    if not coins:
        return data
    wrapped = chain.get("wrapped_native")
    hubs = portfolio.get("hubs")
    others = [asset for asset in assets if asset not in coins]
    if isinstance(hubs, list):
        others += hubs
    duplicates = [
        token.get("symbol")
        for token in others
        if isinstance(token, dict) and _same(token.get("address"), wrapped)
    ]
    duplicates += [coin.get("symbol") for coin in coins[1:]]
    if duplicates:
        raise ValueError(
            f"portfolio: {coins[0].get('symbol')} is the native coin, which counts together with"
            f" its wrapped token; remove {duplicates[0]}: both are one asset"
        )
    native = {"address": wrapped, "native": True}
    resolved: list[Any] = [{**asset, **native} if asset in coins else asset for asset in assets]
    return {**data, "portfolio": {**portfolio, "assets": resolved}}


def require_native_top_up(config: Config) -> None:
    """Raise ValueError unless limits.native_top_up is above the floor and the wrapped native coin
    is an asset.
    """
    target, floor = config.limits.native_top_up, config.limits.native_floor
    if target is None:
        return
    if floor is None or Decimal(target) <= Decimal(floor):
        raise ValueError(
            "limits.native_top_up: not above limits.native_floor; raise it, or write off"
        )
    if config.chain.wrapped_native not in [asset.address for asset in config.portfolio.assets]:
        raise ValueError(
            "limits.native_top_up: the wrapped native coin is not an asset, so nothing can be"
            " unwrapped; write off"
        )


def _same(address: object, wrapped: object) -> bool:
    return (
        isinstance(address, str) and isinstance(wrapped, str) and address.lower() == wrapped.lower()
    )


class HubTable(ConfigTable):
    """A token that routes may pass through without being held. `decimals`, if given, must match the
    chain. `feed_max_age` overrides the maximum age of its feed.
    """

    symbol: str = Field(pattern=r"^[A-Za-z0-9._-]{1,16}$")
    address: Address
    feed: Address | None = None
    feed_max_age: Duration | None = None
    decimals: int | None = Field(default=None, ge=0, le=36)


class AssetTable(HubTable, OrderKeys):
    """One asset with its target.

    `reserve` is an unmanaged amount in whole coins. `rebasing` is the largest daily change of the
    balance without a transfer, for rebasing and interest-bearing tokens. `band` overrides the
    trigger's. Orders are in agent/config/orders.py. `native` is not a key of the file; it is set if
    the file has address = "native", and `address` is then the wrapped token's.
    """

    target: Weight
    reserve: PlainDecimal
    native: bool = False
    rebasing: Share = 0
    band: Band | None = None


class PortfolioTable(ConfigTable):
    """Assets with targets that sum to 100 %. `use_cash` is the maximum numeraire that the agent
    takes from the wallet, in whole coins.
    """

    numeraire: str
    max_live_value: DecimalOrOff
    use_cash: DecimalOrOff = None
    assets: list[AssetTable] = Field(min_length=2)
    hubs: list[HubTable] = Field(default_factory=list)
    positions: list[LpPositionTable] = Field(default_factory=list)
    weights: WeightsTable | None = None
    orders: OrdersTable | None = None

    @field_validator("assets")
    @classmethod
    def _sums_to_one(cls, assets: list[AssetTable]) -> list[AssetTable]:
        total = sum(asset.target for asset in assets)
        if total != BPS:
            raise ValueError(
                f"targets sum to {total / 100:g}%, not 100%;"
                f" {'add' if total < BPS else 'take away'} {abs(BPS - total) / 100:g}%"
            )
        return assets

    @model_validator(mode="after")
    def _distinct(self) -> PortfolioTable:
        addresses = [a.address for a in self.assets] + [h.address for h in self.hubs]
        symbols = [a.symbol for a in self.assets] + [h.symbol for h in self.hubs]
        for key, values in (("address", addresses), ("symbol", symbols)):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"{key} {twice[0]} is given twice; list each token once")
        if self.numeraire not in [a.symbol for a in self.assets]:
            raise ValueError(
                f"numeraire {self.numeraire!r} is not an asset; add it with a target (0% is"
                " allowed)"
            )
        require_countable_cash(self)
        require_weights(self)
        require_orders(self)
        return self

    @property
    def listed(self) -> list[AssetTable | HubTable]:
        """Assets, then hubs."""
        return [*self.assets, *self.hubs]


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
    def _private(self) -> ExecutionTable:
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
    venues: VenuesTable
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

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for check in (
            require_protection,
            require_max_weight,
            require_usable,
            require_zone,
            require_pace,
            require_strategies,
            require_strategy_orders,
            require_native_top_up,
            require_futures,
            require_signals,
            require_futures_allocators,
            require_accepted,
            *CHECKS,
        ):
            check(self)
        if self.wallet.test_account is not None and not self.chain.local:
            raise ValueError("wallet.test_account is for local chains only; use keystore")
        return self
