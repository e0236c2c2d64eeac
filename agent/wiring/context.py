"""Build the agent's context from a config: endpoints, store, tokens, pools, readers, paper chain,
recorder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from secrets import SystemRandom
from typing import TYPE_CHECKING

from agent.amm.lp.venues import LpVenue
from agent.chain.endpoints import EndpointPool
from agent.chain.fees.data_fees import copied_fee_kind
from agent.chain.pools.own_positions import PositionReader
from agent.chain.pools.positions import resolve_positions
from agent.chain.pools.reading import PoolRef
from agent.chain.rpc import Transport
from agent.chain.safe import SafeContract, SafeReader
from agent.chain.screening import TokenScreen
from agent.chain.second_quote import (
    EvidenceGatherer,
    UnanimousQuoter,
    build_quoter,
)
from agent.chain.tokens import find_proxies, read_tokens
from agent.chain.watch import SnapshotScope
from agent.config.build import (
    allowed_payees,
    build_execution,
    build_limits,
    build_policy,
    build_reference,
    contract_names,
    factory_by_venue,
)
from agent.config.liquidity import build_targets, counted_positions, liquidity_contracts
from agent.config.loaded import LoadedConfig
from agent.config.networks import typical_fees
from agent.config.schema import Config
from agent.config.tables.chain import RpcTable
from agent.config.tables.record import DEFAULT_KEEP_FILES, DEFAULT_KEEP_MEGABYTES
from agent.config.venues import position_manager
from agent.config.weights import allocator_supply_tokens, portfolio_with_allocator
from agent.errors import ConfigError
from agent.execution.adopted_budgets import PriorDayPause, with_recorded_day
from agent.execution.step_context import StepReaders
from agent.execution.step_memory import LayerReader, read_memory
from agent.layers.futures.policy.venue import distrust_changed_venue
from agent.layers.futures.state import FuturesConfig
from agent.layers.inputs import assemble_input
from agent.layers.liquidity.memory import record_unknown_positions
from agent.layers.settings import build_layer_settings
from agent.layers.signals.host import SignalHost
from agent.layers.signals.memory import SignalReader
from agent.model import (
    NATIVE_VENUE,
    ExecutionConfig,
    FuturesPolicy,
    History,
    LayerConfig,
    Limits,
    Policy,
    PoolMaker,
    Portfolio,
    ReferenceConfig,
    Snapshot,
    StepInput,
    SwapStyle,
    active_layer_parts,
    data_fee_kind,
)
from agent.paper.chain import PaperChain, PaperEvidence, PaperReader
from agent.paper.order_venue import PaperHyperliquid
from agent.policy import quarantine
from agent.policy.decide import is_exit_due
from agent.ports import Clock, MonotonicClock, SigningKey
from agent.signing import keys
from agent.store.files.pause import KillSwitch
from agent.store.files.recorder import RecorderLimits, StepRecorder, prepare_folder
from agent.store.store import Store
from agent.venues.calldata import require_own_rebalancer
from agent.venues.discovery import discover_pools, require_router_factories
from agent.venues.hyperliquid.budget import RequestBudget
from agent.venues.hyperliquid.client import HyperliquidClient
from agent.venues.hyperliquid.venue import HyperliquidPerps
from agent.venues.kinds import VENUE_KINDS
from agent.venues.kinds.venue import NO_HOOKS, AmmVenue
from agent.wiring.call_budgets import CallBudgets
from agent.wiring.futures import (
    OrderVenueReader,
    futures_policy,
    order_venue,
    paper_venue,
    perp_scope,
    require_venue_decimals,
    venue_client,
)
from agent.wiring.paper import PAPER_FOLDER, paper_chain, prepare_paper_store
from agent.wiring.stores import open_store_offline
from agent.wiring.tax import TaxRunCache

if TYPE_CHECKING:
    from agent.chain.providers.block_reading import BlockReader
    from agent.chain.providers.call_budgets import CallBudget

DEFAULT_TICK_RANGE_BPS = 1_000
"""Price impact for which ticks are read if the impact limit is off."""


MEGABYTE = 10**6


def open_recorder(loaded_config: LoadedConfig, folder: Path | None) -> StepRecorder | None:
    """Open a recorder into `folder`, or into record.dir beside the config; None without either.
    Raises ConfigError if the folder cannot be used.
    """
    record_table = loaded_config.config.record
    store_kind = "paper" if loaded_config.is_paper else "live"
    recorder_limits = RecorderLimits(DEFAULT_KEEP_FILES, DEFAULT_KEEP_MEGABYTES * MEGABYTE)
    if record_table is not None:
        recorder_limits = RecorderLimits(
            record_table.keep_files, record_table.keep_megabytes * MEGABYTE
        )
    if folder is None:
        if record_table is None:
            return None
        folder = loaded_config.path.parent / record_table.dir
        if loaded_config.is_paper:
            prepare_folder(folder)
            folder /= PAPER_FOLDER
    return StepRecorder(folder, loaded_config.digest, store_kind, recorder_limits)


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> int:
        """Return the current Unix time in seconds."""
        return int(time.time())

    def monotonic_s(self) -> float:
        """Return seconds that no one sets."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep for this many seconds."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class AgentContext:
    """Everything needed to read, evaluate and build the transactor. `transport` is the quorum over
    `endpoints`.
    """

    loaded_config: LoadedConfig
    endpoints: EndpointPool
    transport: Transport
    portfolio: Portfolio
    pools: tuple[PoolRef, ...]
    policy: Policy
    reference: ReferenceConfig
    limits: Limits
    execution: ExecutionConfig
    store: Store
    kill_switch: KillSwitch
    clock: Clock
    position_reader: PositionReader
    quoter: UnanimousQuoter
    """Second quoter, shared by all cycles because the caches of uniswap-python never release an
    object.
    """
    signal_host: SignalHost
    venue_budget: RequestBudget
    """Budget of requests to the off-chain futures venue."""
    key_source: keys.KeySource | None = None
    """Key that replaces the config's, if the calling program has one."""
    agent_key_source: keys.KeySource | None = None
    """Agent key of the futures venue that replaces the config's, if the calling program has one."""
    layers: tuple[LayerConfig, ...] = ()
    """Settings of the layers from the config alone."""
    futures_policy: FuturesPolicy | None = None
    tax_runs: TaxRunCache | None = None
    prior_day_pause: PriorDayPause = field(default_factory=PriorDayPause)
    venue_client: HyperliquidClient | None = None
    """Reading client of the off-chain futures venue; None without one."""
    paper_chain: PaperChain | None = None
    """Simulated chain of paper trading; None for a live agent."""
    recorder: StepRecorder | None = None
    confirmed_hash: str | None = None
    """Hash of the config version that was confirmed when the context was opened."""
    waits_for_venue: bool = True
    """Whether a look waits for a futures venue that limits requests, if no exit is due."""

    @property
    def config(self) -> Config:
        """Tables of the config."""
        return self.loaded_config.config

    @property
    def with_user_present(self) -> AgentContext:
        """The context of a step started by the user, in which no futures trigger waits for
        confirmation.
        """
        if self.futures_policy is None or not self.futures_policy.manual_triggers:
            return self
        return replace(self, futures_policy=replace(self.futures_policy, manual_triggers=()))

    @property
    def without_venue_waits(self) -> AgentContext:
        """The context of what protects the wallet alone: a stop, a hard pause."""
        return replace(self, waits_for_venue=False)

    @property
    def portfolio_with_positions(self) -> Portfolio:
        """The portfolio with its liquidity positions, confirmed in the config or opened by the
        agent.
        """
        return replace(
            self.portfolio,
            positions=counted_positions(
                self.config, self.portfolio, self.store.positions.changes()
            ),
        )

    def bare_input(self, snapshot: Snapshot, history: History) -> StepInput:
        """Return the snapshot with config and history, for `assemble_input` to complete."""
        return StepInput(
            snapshot,
            self.portfolio_with_positions,
            self.policy,
            self.reference,
            self.limits,
            self.execution,
            history,
            layer_configs=active_layer_parts((FuturesConfig(self.futures_policy), *self.layers)),
        )

    def assemble(self, snapshot: Snapshot, history: History) -> StepInput:
        """Assemble the step input from a snapshot, the config and the store. A new store's missing
        history is read from the chain.
        """
        code_hash_by_address = self.store.trust.pins()
        implementations = self.store.trust.implementations()
        if self.futures_policy is not None and self.config.futures is not None:
            snapshot = distrust_changed_venue(
                snapshot,
                self.futures_policy.trader,
                self.config.futures.contract_name_by_address,
                code_hash_by_address,
                implementations,
            )
        partial_input = with_recorded_day(
            self.bare_input(snapshot, history),
            self.store.balances,
            self.store.budgets,
            self.endpoints,
            self.config.wallet.safe,
            self.prior_day_pause,
        )
        partial_input = record_unknown_positions(
            partial_input,
            self.store.positions,
            self.store.budgets,
            self.transport,
            position_manager(self.config),
        )
        changed_tokens = quarantine.tokens_with_changed_code(
            snapshot, self.token_addresses, code_hash_by_address, implementations
        )
        return assemble_input(
            partial_input,
            read_memory(partial_input, self.store, changed_tokens, self.layer_readers),
        )

    @property
    def layer_readers(self) -> tuple[LayerReader, ...]:
        """Readers of what layers know by a service: signals, and the tax lots of the ledger."""
        signal_reader = SignalReader(self.signal_host, self.signal_host.fault)
        return (
            (signal_reader,)
            if self.tax_runs is None
            else (signal_reader, self.tax_runs.reader(self.store))
        )

    @property
    def token_addresses(self) -> tuple[str, ...]:
        """Addresses of assets and hubs."""
        return tuple(
            token.address
            for token in (*(asset.token for asset in self.portfolio.assets), *self.portfolio.hubs)
        )

    @property
    def payout_addresses(self) -> tuple[str, ...]:
        """Payout addresses that the config names and the owner has confirmed, without contracts."""
        if not self.config.wallet.payout_addresses:
            return ()
        return allowed_payees(self.config, self.store.requests.payout_addresses())

    @property
    def token_screen(self) -> TokenScreen:
        """Token screen, which simulates transfers."""
        return TokenScreen(self.transport, self.config.chain.wrapped_native)

    @property
    def readers(self) -> StepReaders:
        """Readers of a step: chain, store and evidence, or the simulated chain on paper."""
        evidence_gatherer = EvidenceGatherer(
            read_kill_switch=self._read_switch,
            read_pins=lambda: tuple(self.store.trust.pins().items()),
            quoter=self.quoter,
            clock=self.clock,
            min_operators=self.config.chain.min_operators,
            screen_tokens=self.token_screen,
        )
        readers = StepReaders(
            self.position_reader,
            self.assemble,
            self.store.budgets.history,
            evidence_gatherer,
            self.clock,
            SystemRandom().random,
        )
        if self.paper_chain is not None:
            readers = replace(
                readers,
                reader=PaperReader(self.position_reader, self.paper_chain),
                evidence_source=PaperEvidence(evidence_gatherer, self.paper_chain),
            )
        elif self.config.wallet.safe:
            safe = SafeContract(self.transport, self.config.wallet.address)
            return replace(readers, reader=SafeReader(self.position_reader, safe))
        if (venue := self.order_venue()) is not None:
            return replace(
                readers,
                reader=OrderVenueReader(
                    readers.reader,
                    venue,
                    self.futures_policy,
                    partial(self._is_exit_due, readers),
                ),
            )
        return readers

    def _is_exit_due(self, readers: StepReaders, snapshot: Snapshot) -> bool:
        return not self.waits_for_venue or is_exit_due(readers.step_input_at(snapshot))

    def order_venue(
        self, key: SigningKey | None = None
    ) -> HyperliquidPerps | PaperHyperliquid | None:
        """Return the off-chain futures venue; None if there is none. Without `key` it is
        read-only.
        """
        return order_venue(self.loaded_config, self.venue_client, self.store, self.clock, key)

    def _read_switch(self) -> tuple[bool, str]:
        switch_state = self.kill_switch.read()
        return switch_state.paused is not False, switch_state.reason


def pool_makers(config: Config) -> dict[str, PoolMaker]:
    """Return who makes the pools of each venue, and the wrapped native coin for wrapping."""
    maker_by_venue = {venue.name: venue.maker for venue in amm_venues(config)}
    return maker_by_venue | {NATIVE_VENUE: PoolMaker(SwapStyle.NATIVE, config.chain.wrapped_native)}


def amm_venues(config: Config) -> list[AmmVenue]:
    """Return the deployments of [[venues]]."""
    return [
        VENUE_KINDS[table.kind](
            name=table.name,
            factory=table.factory,
            router=table.router or "",
            quoter=table.quoter or "",
            quoter_v1=table.quoter_v1 or "",
            deployer=table.deployer or "",
            pool_implementation=table.pool_implementation or "",
            init_code_hash=table.init_code_hash or "",
            fee_pips=table.fee_pips,
            fee_tiers=tuple(table.fee_tiers or ()),
            tick_spacings=tuple(table.tick_spacings or ()),
            tiers=tuple(table.tiers or ()),
            hooks=table.hooks or NO_HOOKS,
            wrapped_native=config.chain.wrapped_native,
            pools=None if table.pools is None else tuple(table.pools),
        )
        for table in config.venues
    ]


def open_transports(config: Config) -> tuple[Transport, ...]:
    """Open one transport per endpoint of the config. Raises ConfigError if two operators have one."""
    config.chain.require_own_endpoints()
    attempts = endpoint_attempts(config)
    budgets = CallBudgets()
    return tuple(
        open_transport(endpoint, attempts, budgets.budget(endpoint))
        for endpoint in config.chain.rpc
    )


def endpoint_attempts(config: Config) -> int:
    """Return the attempts of a read at one endpoint: a second endpoint is faster than a retry."""
    return 3 if len(config.chain.rpc) == 1 else 2


def open_transport(
    endpoint: RpcTable, attempts: int = 1, call_budget: CallBudget | None = None
) -> Transport:
    """Open the transport of one endpoint, with the call budget of its operator, if it has one.
    Raises ConfigError if its variable is not set.
    """
    from agent.chain.providers.endpoint import EndpointProvider  # web3 is loaded to connect only

    provider = EndpointProvider(
        endpoint.read_url(), endpoint.operator, float(endpoint.timeout), attempts=attempts
    )
    provider.call_budget = call_budget
    return provider


def open_endpoint_pool(
    config: Config, transports: Sequence[Transport] | None, clock: Clock
) -> EndpointPool:
    """Open the endpoints of the config, or `transports`, as one pool. Raises ConfigError for too
    few operators.
    """
    if transports is None:
        transports = open_transports(config)
    chain_table = config.chain
    fee_kind = data_fee_kind(chain_table.chain_id)
    if chain_table.fork:
        fee_kind = copied_fee_kind(chain_table.chain_id, transports[0])
    return EndpointPool(
        transports,
        chain_table.min_operators,
        max_lag_blocks=chain_table.max_lag_blocks,
        data_fee_kind=fee_kind,
        now_s=clock.now_s,
        monotonic_s=clock.monotonic_s if isinstance(clock, MonotonicClock) else None,
    )


def open_block_reader(config: Config, transports: Sequence[Transport], clock: Clock) -> BlockReader:
    """Open the reader of blocks for several wallets of a chain, over these transports of the
    config's endpoints.
    """
    from agent.chain.providers.block_reading import BlockReader  # web3 is loaded to connect only

    chain_table = config.chain
    return BlockReader(
        open_endpoint_pool(config, transports, clock),
        chain_table.chain_id,
        clock,
        chain_table.min_operators,
        typical_fees(chain_table.chain_id).priority_fee_wei,
    )


@contextmanager
def open_context(
    loaded_config: LoadedConfig,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
    includes_untrusted_pools: bool = False,
    record_folder: Path | None = None,
    allows_undeployed_rebalancer: bool = False,
) -> Iterator[AgentContext]:
    """Connect to the chain and the store; read tokens, discover pools. With
    `allows_undeployed_rebalancer` the config may name a Rebalancer that is not on the chain yet.

    Once pools are pinned, unpinned pools are excluded, so that a pool created after `trimtab trust`
    needs the owner's confirmation; `includes_untrusted_pools` includes them for display. With
    `record_folder`, or [record] in the config, each step is written as a file.
    """
    clock = clock or SystemClock()
    endpoint_pool = open_endpoint_pool(loaded_config.config, transports, clock)
    portfolio, layers = _target_portfolio(loaded_config, endpoint_pool)
    with open_store_offline(loaded_config) as (store, kill_switch):
        confirmed_hash = store.configs.confirmed_digest()
        if loaded_config.is_paper:
            prepare_paper_store(loaded_config, store)
        if (recorder := open_recorder(loaded_config, record_folder)) is not None:
            store.steps.on_step_recorded = recorder.write_step
        context = _build_context(
            loaded_config,
            portfolio,
            layers,
            AgentResources(endpoint_pool, store, kill_switch, clock, RequestBudget(clock)),
            includes_untrusted_pools=includes_untrusted_pools,
            allows_undeployed_rebalancer=allows_undeployed_rebalancer,
        )
        yield replace(context, recorder=recorder, confirmed_hash=confirmed_hash)


def reopen_context(context: AgentContext, loaded_config: LoadedConfig) -> AgentContext:
    """Return the context for a newly confirmed config, over the same endpoints, store, clock and
    key. What limits its requests goes on: the venue's budget, the pause after a failed read of the
    last 24 h.
    """
    new_context = _build_context(
        loaded_config,
        *_target_portfolio(loaded_config, context.endpoints),
        AgentResources(
            context.endpoints,
            context.store,
            context.kill_switch,
            context.clock,
            context.venue_budget,
        ),
        includes_untrusted_pools=False,
    )
    if context.recorder is not None:
        context.recorder.config_hash = loaded_config.digest
    return replace(
        new_context,
        recorder=context.recorder,
        confirmed_hash=loaded_config.digest,
        key_source=context.key_source,
        agent_key_source=context.agent_key_source,
        prior_day_pause=context.prior_day_pause,
    )


def _target_portfolio(
    loaded_config: LoadedConfig, endpoint_pool: EndpointPool
) -> tuple[Portfolio, tuple[LayerConfig, ...]]:
    """Build the target portfolio and the settings of layers, with token metadata from the chain."""
    from agent.chain.providers.quorum import QuorumProvider  # web3 is loaded to connect only

    config = loaded_config.config
    token_addresses = [token.address for token in config.portfolio.listed_tokens]
    listed_tokens = read_tokens(QuorumProvider(endpoint_pool), token_addresses)
    token_by_address = {token.address: token for token in listed_tokens}
    portfolio = portfolio_with_allocator(loaded_config, token_by_address)
    return portfolio, build_layer_settings(loaded_config, portfolio)


def _require_fixed_hooks(transport: Transport, venues: Sequence[AmmVenue]) -> None:
    """Raise ConfigError for hooks that are proxies: their code could stay while what they do
    changes.
    """
    venue_by_hooks = {venue.hooks: venue.name for venue in venues if venue.hooks != NO_HOOKS}
    for proxy in find_proxies(transport, tuple(venue_by_hooks)) if venue_by_hooks else ():
        raise ConfigError(
            f"venues.{venue_by_hooks[proxy.proxy]}.hooks: {proxy.proxy} is a proxy, whose implementation may change",
            "remove the venue, or name hooks whose code cannot change",
        )


def _asking_account(config: Config, pools: Sequence[PoolRef]) -> str:
    """Return the account that asks what pools answer to the wallet alone; empty if none does, or if
    transactions of the wallet, a Safe, come from its owners.
    """
    depends_on_caller = any(pool.reader.depends_on_caller for pool in pools)
    return config.wallet.address if depends_on_caller and not config.wallet.safe else ""


@dataclass(frozen=True, slots=True)
class AgentResources:
    """What a context is built over, and a new config keeps."""

    endpoints: EndpointPool
    store: Store
    kill_switch: KillSwitch
    clock: Clock
    venue_budget: RequestBudget


def _build_context(
    loaded_config: LoadedConfig,
    portfolio: Portfolio,
    layers: tuple[LayerConfig, ...],
    resources: AgentResources,
    *,
    includes_untrusted_pools: bool,
    allows_undeployed_rebalancer: bool = False,
) -> AgentContext:
    """Discover the pools of the portfolio's tokens and build the context."""
    from agent.chain.providers.quorum import QuorumProvider  # web3 is loaded to connect only
    from agent.chain.snapshot import ChainReader

    config = loaded_config.config
    store = resources.store
    transport = QuorumProvider(resources.endpoints)
    require_venue_decimals(config, portfolio)
    limits = build_limits(config, portfolio.numeraire)
    tokens = (*(asset.token for asset in portfolio.assets), *portfolio.hubs)
    token_addresses = [token.address for token in tokens]
    venues = amm_venues(config)
    pools = discover_pools(transport, venues, tokens, portfolio.hubs)
    portfolio = replace(portfolio, lp_targets=build_targets(config, portfolio, pools))
    code_hash_by_address = store.trust.pins()
    reference = build_reference(
        config,
        [
            (pool.address, code_hash_by_address[pool.address])
            for pool in pools
            if pool.address in code_hash_by_address
        ],
    )
    if not includes_untrusted_pools:
        pools = tuple(pool for pool in pools if pool.contract in code_hash_by_address) or pools
    pinned_addresses = tuple(
        dict.fromkeys((*contract_names(config, store.positions.changes()), *token_addresses))
    )
    execution = replace(
        build_execution(config, pinned_addresses),
        contract_by_venue=liquidity_contracts(config, store.positions.changes()),
    )
    if execution.router_kind == "rebalancer":
        if not allows_undeployed_rebalancer:
            require_own_rebalancer(transport, execution.router)
        venue_by_name = {venue.name: venue for venue in venues}
        for pool in pools:
            venue_by_name[pool.venue].require_derived(pool)
    elif includes_untrusted_pools:  # what is pinned was compared before
        require_router_factories(transport, execution.router, venues)
    futures_contracts = (
        () if config.futures is None else tuple(config.futures.contract_name_by_address)
    )
    _require_fixed_hooks(transport, venues)
    proxies = find_proxies(transport, (*token_addresses, *futures_contracts))
    snapshot_scope = SnapshotScope(
        owner=config.wallet.address,
        tokens=tokens,
        spenders=(execution.router, *(contract for _, contract in execution.contract_by_venue)),
        pools=pools,
        proxies=proxies,
        supply_tokens=allocator_supply_tokens(portfolio, layers),
        feeds=(*portfolio.feeds(), *reference.uptime_feeds),
        code_addresses=tuple(
            dict.fromkeys(
                (
                    *pinned_addresses,
                    *(pool.contract for pool in pools),
                    *(proxy.first_implementation for proxy in proxies),
                )
            )
        ),
        twap_window_s=reference.twap_window_s,
        short_window_s=reference.short_window_s,
        impact_bps=(
            DEFAULT_TICK_RANGE_BPS if limits.price_impact_bps is None else limits.price_impact_bps
        ),
        pair_token_spender=dict(execution.contract_by_venue).get(LpVenue.V2),
        layer_scopes=()
        if (futures_scope := perp_scope(config, portfolio)) is None
        else (futures_scope,),
        data_fee_kind=resources.endpoints.data_fee_kind,
        caller=_asking_account(config, pools),
    )
    chain_reader = ChainReader(
        resources.endpoints,
        config.chain.chain_id,
        snapshot_scope,
        resources.clock,
        min_operators=config.chain.min_operators,
        usual_tip_wei=typical_fees(config.chain.chain_id).priority_fee_wei,
    )
    confirmed_positions = resolve_positions(
        transport, counted_positions(config, portfolio, ()), factory_by_venue(config)
    )
    read_known_positions = partial(counted_positions, config, portfolio)
    position_reader = PositionReader(
        chain_reader,
        confirmed_positions,
        factory_by_venue(config),
        store.positions.changes,
        read_known_positions,
    )
    return AgentContext(
        loaded_config,
        resources.endpoints,
        transport,
        portfolio,
        pools,
        build_policy(config),
        reference,
        limits,
        execution,
        store,
        resources.kill_switch,
        resources.clock,
        position_reader,
        build_quoter(transport, venues, {pool.address: pool.tier for pool in pools}),
        SignalHost(loaded_config.path.parent),
        resources.venue_budget,
        layers=layers,
        futures_policy=futures_policy(config, portfolio, on_paper=loaded_config.is_paper),
        tax_runs=TaxRunCache(loaded_config, portfolio),
        venue_client=venue_client(
            loaded_config, portfolio, store, resources.clock, resources.venue_budget
        ),
        paper_chain=(
            paper_chain(
                config,
                execution,
                resources.endpoints,
                store,
                position_reader,
                paper_venue(config, portfolio, transport),
            )
            if loaded_config.is_paper
            else None
        ),
    )
