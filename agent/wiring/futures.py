"""Scope and contracts of the futures venue, built from a config."""

from __future__ import annotations

from agent.chain.perpetuals import PerpMarketRef, PerpScope
from agent.config.futures import build_futures
from agent.config.schema import Config
from agent.model import Portfolio
from agent.signing.base import FuturesRules
from agent.units import Token
from agent.venues.perpetual_protocol import PerpContracts


def perp_scope(config: Config, portfolio: Portfolio) -> PerpScope | None:
    """Return the margin account and the markets to read; None without [futures]."""
    table = config.futures
    if table is None:
        return None
    tokens = _tokens(portfolio)
    return PerpScope(
        trader=table.account or config.wallet.address,
        collateral=tokens[table.collateral],
        vault=table.vault,
        account_balance=table.account_balance,
        clearing_house=table.clearing_house,
        exchange=table.exchange,
        market_registry=table.market_registry,
        config=table.config,
        markets=tuple(
            PerpMarketRef(
                market.base,
                market.symbol,
                "" if market.asset is None else tokens[market.asset].address,
                market.aggregator,
            )
            for market in table.markets
        ),
    )


def perp_contracts(config: Config) -> PerpContracts | None:
    """Return the contracts that the futures layer calls; None without [futures]."""
    table = config.futures
    if table is None:
        return None
    return PerpContracts(
        table.clearing_house,
        table.vault,
        table.delegate_approval,
        table.account or config.wallet.address,
    )


def futures_rules(config: Config, portfolio: Portfolio) -> FuturesRules | None:
    """Return the signer's terms of the futures layer; None without [futures]. No delegate is
    configured, so none may be allowed.
    """
    table, policy = config.futures, build_futures(config, _tokens(portfolio))
    if table is None or policy is None:
        return None
    limits = policy.limits
    return FuturesRules(
        table.clearing_house,
        table.vault,
        table.delegate_approval,
        policy.collateral,
        table.account or config.wallet.address,
        None,
        tuple(market.base for market in table.markets),
        limits.max_leverage_bps,
        limits.slippage_bps,
        limits.emergency_slippage_bps,
        limits.index_age_s,
    )


def _tokens(portfolio: Portfolio) -> dict[str, Token]:
    return {asset.token.symbol: asset.token for asset in portfolio.assets}
