"""The rules of a signer, from the confirmed config of a wallet."""

from __future__ import annotations

from dataclasses import replace

from agent.amm.lp.venues import LpVenue
from agent.signing.rules import SigningRules
from agent.venues.deployment import rebalancer_init_hash
from agent.wiring.context import AgentContext, pool_makers
from agent.wiring.futures import futures_rules


def signing_rules(context: AgentContext) -> SigningRules:
    """Return the signing rules, which permit only the configured router (under its kind), the
    liquidity contracts, the pools' observations, the payout addresses, the futures terms, and the
    deployment of our Rebalancer.
    """
    config = context.config
    execution = context.execution
    is_own_rebalancer = execution.router_kind == "rebalancer"
    rules = SigningRules(
        config.chain.chain_id,
        config.wallet.address,
        () if is_own_rebalancer else (execution.router,),
        context.token_addresses,
        config.execution.deadline,
        context.limits.gas_price_wei,
        (execution.router,) if is_own_rebalancer else (),
        config.chain.wrapped_native,
        tuple(pool_makers(config).items()),
    )
    v3_managers = tuple(
        contract for venue, contract in execution.contract_by_venue if venue == LpVenue.V3
    )
    v2_routers = tuple(
        contract for venue, contract in execution.contract_by_venue if venue == LpVenue.V2
    )
    v2_pairs = tuple(pool.address for pool in context.pools if pool.venue == LpVenue.V2)
    return replace(
        rules,
        v3_managers=v3_managers,
        v2_routers=v2_routers,
        oracle_pools=tuple(pool.address for pool in context.pools if pool.keeps_observations),
        payout_addresses=context.payout_addresses,
        v2_pairs=v2_pairs if v2_routers else (),
        init_code_hash=rebalancer_init_hash(),
        futures=futures_rules(config, context.portfolio, context.limits, context.store.trust),
    )
