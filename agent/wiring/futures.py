"""Scope, venue and signing terms of the futures layer, built from a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from agent.chain.perpetuals import PerpMarketRef, PerpScope
from agent.chain.rpc import Transport
from agent.config.futures import build_futures
from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.config.tables.futures import HyperliquidTable, PerpetualProtocolTable
from agent.errors import ConfigError
from agent.layers.futures.policy.needs import is_reduction_due
from agent.layers.futures.policy.plans import emergency_gas_price_limit_wei
from agent.model import (
    FuturesPolicy,
    Limits,
    PerpOrderKind,
    Portfolio,
    Snapshot,
)
from agent.paper.order_venue import PaperHyperliquid
from agent.paper.venue import PaperPerpetualProtocol
from agent.ports import Clock, Reader, ReaderLayer, SigningKey, TransactionStatus
from agent.ports.perpetuals import OrderVenue
from agent.signing.keys import is_published
from agent.signing.secret import AgentPrivateKey, PrivateKey
from agent.signing.terms import FuturesRules
from agent.store.store import Store, TrustStore
from agent.units import Token
from agent.venues.hyperliquid.account import USDC, parse_market_numbers
from agent.venues.hyperliquid.agent_key import AgentKey
from agent.venues.hyperliquid.budget import RequestBudget
from agent.venues.hyperliquid.client import HyperliquidClient
from agent.venues.hyperliquid.connection import HyperliquidConnection
from agent.venues.hyperliquid.venue import HyperliquidPerps
from agent.venues.perpetual_protocol import PerpetualProtocol, PerpetualProtocolAddresses

VENUE_TIMEOUT_S = 10.0


def perp_scope(config: Config, portfolio: Portfolio) -> PerpScope | None:
    """Return the margin account and the markets that the lens reads; None without [futures] on the
    chain.
    """
    futures_table = config.futures
    if not isinstance(futures_table, PerpetualProtocolTable):
        return None
    token_by_symbol = _token_by_symbol(portfolio)
    return PerpScope(
        trader=futures_table.account or config.wallet.address,
        collateral=token_by_symbol[futures_table.collateral],
        vault=futures_table.vault,
        account_balance_contract=futures_table.account_balance,
        clearing_house=futures_table.clearing_house,
        exchange=futures_table.exchange,
        market_registry=futures_table.market_registry,
        config_contract=futures_table.config,
        markets=tuple(
            PerpMarketRef(
                market.base,
                market.symbol,
                "" if market.asset is None else token_by_symbol[market.asset].address,
                market.aggregator,
            )
            for market in futures_table.markets
        ),
    )


def perp_addresses(config: Config) -> PerpetualProtocolAddresses | None:
    """Return the contracts that the futures layer calls; None without [futures] on the chain."""
    futures_table = config.futures
    if not isinstance(futures_table, PerpetualProtocolTable):
        return None
    return PerpetualProtocolAddresses(
        futures_table.clearing_house,
        futures_table.vault,
        futures_table.delegate_approval,
        futures_table.account or config.wallet.address,
    )


def futures_policy(config: Config, portfolio: Portfolio, *, on_paper: bool) -> FuturesPolicy | None:
    """Return targets and limits of futures; None without [futures]. On paper nothing rests: there
    are no stops, and openings are market orders.
    """
    policy = build_futures(config, _token_by_symbol(portfolio))
    if policy is None or not on_paper:
        return policy
    limits = replace(policy.limits, resting_stop_bps=0)
    return replace(policy, limits=limits, order_kind=PerpOrderKind.MARKET)


def futures_rules(
    config: Config, portfolio: Portfolio, spot_limits: Limits, trust: TrustStore
) -> FuturesRules | None:
    """Return the signer's futures terms, with the pinned market numbers of an off-chain venue; None
    without [futures].
    """
    futures_table = config.futures
    policy = build_futures(config, _token_by_symbol(portfolio))
    if futures_table is None or policy is None:
        return None
    limits = policy.limits
    contract_addresses = ("", "", "")
    market_numbers: Mapping[str, int] = {}
    if isinstance(futures_table, HyperliquidTable):
        market_numbers = trust.market_numbers(futures_table.network)
    if (protocol_contracts := perp_addresses(config)) is not None:
        contract_addresses = (
            protocol_contracts.clearing_house,
            protocol_contracts.vault,
            protocol_contracts.delegate_approval,
        )
    return FuturesRules(
        *contract_addresses,
        policy.collateral,
        futures_table.account or config.wallet.address,
        futures_table.delegate if isinstance(futures_table, PerpetualProtocolTable) else None,
        tuple(market.venue_key for market in futures_table.markets),
        limits.max_leverage_bps,
        limits.slippage_bps,
        limits.emergency_slippage_bps,
        limits.index_age_s,
        emergency_gas_price_limit_wei(limits, spot_limits),
        config.execution.deadline,
        tuple(market_numbers.items()),
        policy.order_kind,
    )


def chain_venue(
    config: Config,
    portfolio: Portfolio,
    transport: Transport,
    status_of: Callable[[str], TransactionStatus],
) -> PerpetualProtocol | None:
    """Return the on-chain venue of [futures]; None if there is none."""
    contracts = perp_addresses(config)
    policy = build_futures(config, _token_by_symbol(portfolio))
    if contracts is None or policy is None:
        return None
    return PerpetualProtocol(
        contracts,
        config.wallet.address,
        policy.collateral,
        config.execution.deadline,
        transport,
        status_of,
    )


def paper_venue(
    config: Config, portfolio: Portfolio, transport: Transport
) -> PaperPerpetualProtocol | None:
    """Return the simulated venue of paper trading; None without [futures] on the chain."""
    contracts = perp_addresses(config)
    futures_table = config.futures
    if contracts is None or not isinstance(futures_table, PerpetualProtocolTable):
        return None
    collateral = _token_by_symbol(portfolio)[futures_table.collateral].address
    return PaperPerpetualProtocol(contracts, futures_table.exchange, collateral, transport)


def require_venue_decimals(config: Config, portfolio: Portfolio) -> None:
    """Raise ConfigError if the collateral has other decimals than the venue's amounts, which are
    USDC with 6 decimals; on some chains it has 18.
    """
    futures_table = config.futures
    if not isinstance(futures_table, HyperliquidTable):
        return
    if (
        collateral_decimals := _token_by_symbol(portfolio)[futures_table.collateral].decimals
    ) != USDC.decimals:
        raise ConfigError(
            f"futures.collateral: {futures_table.collateral} has {collateral_decimals} decimals on chain"
            f" {config.chain.chain_id}; amounts at Hyperliquid have {USDC.decimals}",
            "use a chain whose USDC has 6 decimals, or remove [futures]",
        )


def missing_agent_key_reason(loaded_config: LoadedConfig) -> str:
    """Return why there is no agent key for the venue of [futures]; empty if its keystore exists or
    another source is set. Variables and the keyring are looked at when the key is loaded: a process
    that only reads may have neither. On a fork there is none: the venue is the real one.
    """
    if loaded_config.config.chain.fork:
        return "the chain is a fork, and the venue's orders would be real"
    futures_table = loaded_config.config.futures
    if not isinstance(futures_table, HyperliquidTable) or not futures_table.has_agent_key_source:
        return "no agent key is configured; set futures.agent_keystore"
    if (
        futures_table.agent_keystore
        and not (loaded_config.path.parent / futures_table.agent_keystore).exists()
    ):
        return (
            f"the agent key {futures_table.agent_keystore} does not exist; "
            "create it with trimtab delegate --send"
        )
    return ""


def venue_client(
    loaded_config: LoadedConfig,
    portfolio: Portfolio,
    store: Store,
    clock: Clock,
    budget: RequestBudget,
) -> HyperliquidClient | None:
    """Return the reading client of the off-chain venue of [futures]; None if there is none. One
    client keeps what changes rarely; `budget` counts its requests. Raises ConfigError.
    """
    config = loaded_config.config
    futures_table = config.futures
    if not isinstance(futures_table, HyperliquidTable):
        return None
    token_by_symbol = _token_by_symbol(portfolio)
    client = HyperliquidClient(
        HyperliquidConnection(
            futures_table.api_url,
            is_mainnet=futures_table.network == "mainnet",
            timeout_s=VENUE_TIMEOUT_S,
            budget=budget,
        ),
        futures_table.account or config.wallet.address,
        {
            market.symbol: "" if market.asset is None else token_by_symbol[market.asset].address
            for market in futures_table.markets
        },
        lambda: clock.now_s() * 1000,
        None,
        (lambda: None) if loaded_config.is_paper else store.ledger.funding_since_s,
        partial(store.trust.market_numbers, futures_table.network),
    )
    return client.keeping(store.trust)


def order_venue(
    loaded_config: LoadedConfig,
    client: HyperliquidClient | None,
    store: Store,
    clock: Clock,
    key: SigningKey | None = None,
) -> HyperliquidPerps | PaperHyperliquid | None:
    """Return the off-chain venue of [futures], on paper for a paper store; None if there is none.
    Without `key` it is read-only. Raises ConfigError.
    """
    config = loaded_config.config
    futures_table = config.futures
    if client is None or not isinstance(futures_table, HyperliquidTable):
        return None
    if key is not None:
        client = client.with_key(build_agent_key(config, key))
    venue = HyperliquidPerps(
        client,
        clock,
        config.execution.deadline,
        store.journal.newest_venue_nonce,
        futures_table.agent_name,
        store.trust,
        no_key_reason=missing_agent_key_reason(loaded_config),
    )
    if loaded_config.is_paper:
        return PaperHyperliquid(venue, client, store.paper, store.ledger.funding_since_s)
    return venue


def listed_market_numbers(futures_table: HyperliquidTable) -> dict[str, int]:
    """Return the number of every market that the venue lists, by name. Raises Retryable."""
    is_mainnet = futures_table.network == "mainnet"
    connection = HyperliquidConnection(
        futures_table.api_url, is_mainnet=is_mainnet, timeout_s=VENUE_TIMEOUT_S
    )
    return parse_market_numbers(connection.info(type="metaAndAssetCtxs"))


def build_agent_key(config: Config, key: SigningKey) -> AgentKey:
    """Return the agent's key. Raises ConfigError for a key with another purpose, a published key,
    or a key that cannot sign messages.
    """
    futures_table = config.futures
    if not isinstance(futures_table, HyperliquidTable):
        raise ConfigError("futures: the venue does not use an agent key", "remove it")
    if key.address in (config.wallet.address, futures_table.account):
        raise ConfigError(
            f"futures: the agent key {key.address} is the wallet's or the account's own",
            "create a key for the agent: trimtab wallet create",
        )
    if not isinstance(key, PrivateKey):
        raise ConfigError(
            "futures: the agent key must be held by trimtab, not by a key service",
            "set agent_keystore, agent_keyring or agent_key_env",
        )
    if is_published(key.address) and not config.chain.is_local:
        raise ConfigError(
            f"futures: the agent key {key.address} is published", "create your own key"
        )
    return AgentKey(AgentPrivateKey(key), is_mainnet=futures_table.network == "mainnet")


class OrderVenueReader(ReaderLayer):
    """ports.Reader whose snapshots include the margin account of an off-chain venue."""

    def __init__(
        self,
        reader: Reader,
        venue: OrderVenue,
        policy: FuturesPolicy | None,
        is_exit_due: Callable[[Snapshot], bool],
    ) -> None:
        """`is_exit_due` judges a snapshot whose account may be unknown or old in parts."""
        self.reader = reader
        self._venue = venue
        self._policy = policy
        self._is_exit_due = is_exit_due

    def snapshot(self) -> Snapshot:
        """See ports.Reader; the account is read after the chain. If the venue limits or fails
        requests, a look waits for it, unless an exit is due, which needs no venue, or a reduction,
        which needs little.
        """
        snapshot = self._venue.read_promptly(self.reader.snapshot())
        if (
            not self._venue.has_left_out_reads
            or is_reduction_due(snapshot, self._policy)
            or self._is_exit_due(snapshot)
        ):
            return snapshot
        self._venue.wait_for_budget()
        return self._venue.read(self.reader.snapshot())


def _token_by_symbol(portfolio: Portfolio) -> Mapping[str, Token]:
    return {asset.token.symbol: asset.token for asset in portfolio.assets}
