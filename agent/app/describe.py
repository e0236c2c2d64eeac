"""Texts about steps and configs for their owner. Reads no chain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.config.build import build_policy
from agent.config.networks import ORDERED_BY_SEQUENCER
from agent.config.networks.presets import SEQUENCED_CHAINS
from agent.config.pace import pace_text
from agent.config.schema import Config, ReferenceTable
from agent.config.strategies import build_split, strategy_as_portfolio
from agent.config.tables.limits import LimitsTable
from agent.config.tables.triggers import RiskTable
from agent.config.tables.weights import AllocatorTable
from agent.config.weights import allocator_sentences
from agent.figures import replace_pool_addresses
from agent.guards.sandwich import (
    SandwichExposure,
    max_extractable_profit,
    plan_sandwich_loss,
    sandwich_exposure,
)
from agent.layers import settings as layer_settings
from agent.layers.strategies.policy.capital import target_capital_shares
from agent.layers.strategies.state import CapitalSplit, StrategiesState, Strategy
from agent.model import (
    LIMITS,
    LimitUnit,
    LpTarget,
    Portfolio,
    Snapshot,
)
from agent.policy.orders import conditional as conditional_orders
from agent.policy.triggers import bands, trigger_text
from agent.units import BPS, Value, decimal_text, format_bps, format_duration, short_address

if TYPE_CHECKING:
    from agent.execution.step_context import StepOutcome


def pool_names(snapshot: Snapshot, portfolio: Portfolio) -> dict[str, str]:
    """Return unique names of the pools read, by address: WETH/USDC 0.05 %, or V2 after the pair for
    a V2 pool.
    """

    def rank(token: str) -> int:
        """Return the rank of a token in a pair's name: other tokens first, then wrapped native
        coin, dollar, numeraire.
        """
        if token == portfolio.numeraire.address:
            return 3
        if any(dollar_name in portfolio.token(token).label for dollar_name in ("USD", "DAI")):
            return 2
        return int(token == portfolio.wrapped_native)

    name_by_pool: dict[str, str] = {}
    for pool in snapshot.pools:
        pair_label = "/".join(
            portfolio.token(token).label for token in sorted((pool.token0, pool.token1), key=rank)
        )
        pool_name = f"{pair_label}{pool.label} {pool.fee_pips / 10_000:g} %"
        if pool_name in name_by_pool.values():
            pool_name += f" {short_address(pool.address)}"
        name_by_pool[pool.address] = pool_name
    return name_by_pool


def off_target_reasons(outcome: StepOutcome) -> list[str]:
    """Return why assets stay off target after the plan of an outcome, one text for each."""
    if outcome.plan is None:
        return []
    step = outcome.step_input
    name_by_pool = pool_names(outcome.step_input.snapshot, outcome.step_input.portfolio)
    asset_labels = {asset.token.label for asset in step.portfolio.assets}
    return [
        f"{skipped_asset.subject} stays {replace_pool_addresses(skipped_asset.why, name_by_pool)}"
        for skipped_asset in outcome.plan.skipped
        if skipped_asset.subject in asset_labels
    ]


PRIVATE_PATH = "private endpoint"
"""Signed transactions are sent to execution.submit_url alone."""
PUBLIC_PATH = "public mempool"
"""They are sent to the endpoints of the chain."""
EITHER_PATH = "private endpoint, public mempool if it fails"
"""They are sent to the endpoints of the chain if execution.submit_url fails."""
HIDDEN_PATHS = (PRIVATE_PATH, ORDERED_BY_SEQUENCER)
"""Ways by which no stranger sees a transaction before its block."""

APPROVAL_LEAK = (
    "a public approval reveals which token is sold, and how much, before the swap is sent"
)
"""Part of the warning before public submission (T15)."""


@dataclass(frozen=True, slots=True)
class PlanSandwichRisk:
    """Sandwich exposure of a plan.

    `is_public` is True if others may see the transaction before it is mined; never on a local
    chain. `max_loss` is the exact bound for the plan's swaps in numeraire base units (None without
    a plan or with a missing price), `max_loss_bps` its share of the turnover, rounded up.
    `exposure_under_limits` is the bound for any plan. `max_profit` bounds the profit of a searcher
    that also receives the plan's fees, impact and skew, and gains by reference prices that lag.
    """

    submission: str
    is_public: bool
    max_loss: Value | None
    max_loss_bps: int | None
    exposure_under_limits: SandwichExposure
    max_profit: Value | None = None


def submission_channel(config: Config) -> str:
    """Return where signed transactions are sent: public mempool, private endpoint, or either; on a
    rollup to its sequencer.
    """
    if not config.execution.submit_url.get_secret_value():
        return ORDERED_BY_SEQUENCER if config.chain.chain_id in SEQUENCED_CHAINS else PUBLIC_PATH
    return EITHER_PATH if config.execution.submit_public_fallback else PRIVATE_PATH


def exposure_under_limits(config: Config) -> SandwichExposure:
    """Return the sandwich exposure of public transactions under the limits."""
    limits = config.limits
    numeraire = config.portfolio.numeraire
    other_assets = [asset for asset in config.portfolio.assets if asset.symbol != numeraire]
    return sandwich_exposure(
        limits.plan_cost,
        limits.slippage,
        limits.turnover,
        limits.daily_turnover,
        limits.oracle_deviation,
        priced_tokens_per_swap=2 if len(other_assets) > 1 else 1,
    )


def plan_sandwich_risk(config: Config, outcome: StepOutcome) -> PlanSandwichRisk:
    """Return the sandwich exposure of a step's plan."""
    plan = outcome.plan
    loss_bound = loss_bound_bps = profit_bound = None
    if plan is not None:
        loss_bound = plan_sandwich_loss(outcome.step_input, plan)
        profit_bound = max_extractable_profit(outcome.step_input, plan, loss_bound)
        if loss_bound is not None and plan.turnover > 0:
            loss_bound_bps = math.ceil(loss_bound / plan.turnover * BPS)
    submission_path = submission_channel(config)
    return PlanSandwichRisk(
        submission_path,
        submission_path not in HIDDEN_PATHS and not config.chain.is_local,
        loss_bound,
        loss_bound_bps,
        exposure_under_limits(config),
        profit_bound,
    )


def submission_text(config: Config) -> str:
    """Return the submission path as text, on a live chain with the possible loss, for the owner to
    confirm.
    """
    submission_path = submission_channel(config)
    if submission_path in HIDDEN_PATHS or config.chain.is_local:
        return submission_path
    return f"{submission_path}: {exposure_under_limits(config).description}; {APPROVAL_LEAK}"


def strategy_target_shares(
    split: CapitalSplit, strategies_state: StrategiesState
) -> dict[str, Fraction]:
    """Return the target share of capital of each strategy; the configured shares if the stored
    strategies differ from the config's.
    """
    books = strategies_state.books
    if books is None:
        return {}
    if {strategy.name for strategy in split.strategies} != set(books.by_name):
        return {strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies}
    return target_capital_shares(split, books.by_name)


def strategy_parameters(
    split: CapitalSplit | None, portfolio: Portfolio, allocator_texts: Mapping[str, str]
) -> dict[str, str]:
    """Return the parameters of each strategy and of the split, as text by name; empty for a single
    strategy.

    `allocator_texts` describes each allocator, by strategy name.
    """
    if split is None:
        return {}
    text_by_parameter = {
        f"strategy {strategy.name}": _strategy_text(
            strategy, portfolio, allocator_texts.get(strategy.name, "")
        )
        for strategy in split.strategies
    }
    band = split.band
    width_texts = [] if band.absolute_bps is None else [f"{band.absolute_bps / 100:g} points"]
    width_texts += (
        [] if band.relative_bps is None else [f"{format_bps(band.relative_bps)} of a share"]
    )
    return text_by_parameter | {"split": f"restored beyond {' or '.join(width_texts)}"}


def _strategy_text(strategy: Strategy, portfolio: Portfolio, allocator_text: str) -> str:
    label_by_token = {asset.token.address: asset.token.label for asset in portfolio.assets}
    weight_list = ", ".join(
        f"{label_by_token.get(token, token)} {format_bps(weight_bps)}"
        for token, weight_bps in strategy.weights_bps
    )
    health_rule = strategy.health
    health_text = "off"
    if health_rule is not None:
        min_sharpe_text = decimal_text(health_rule.limit_milli, 3)
        recovery_text = decimal_text(health_rule.recover_milli, 3)
        health_text = (
            f"Sharpe ratio of {format_duration(health_rule.window_s)} below {min_sharpe_text} for"
            f" {format_duration(health_rule.period_s)}, back at {recovery_text} for"
            f" {format_duration(health_rule.recover_s)}"
        )
    part_texts = [
        f"{format_bps(strategy.share_bps)} of the capital, floor {format_bps(strategy.floor_bps)}",
        weight_list,
        *([allocator_text] if allocator_text else []),
    ]
    part_texts += [
        trigger_text.format_trigger(strategy.trigger, portfolio),
        strategy.destination.value,
        f"cooldown {format_duration(strategy.cooldown_s)}",
        f"health {health_text}",
    ]
    return "; ".join(part_texts)


def binding_parameters(config: Config, portfolio: Portfolio, router: str) -> dict[str, str]:
    """Return the parameters by name, without secrets: URLs show as their operators."""
    numeraire = portfolio.numeraire.label
    text_by_parameter = {
        **_account_parameters(config, router),
        **_execution_parameters(config),
        **_portfolio_parameters(config, portfolio),
        **_policy_parameters(config, portfolio),
        **_reference_parameters(config.reference),
        "max_live_value": limit_text("max_live_value", config.portfolio.max_live_value, numeraire),
    }
    if config.execution.min_tip is not None:
        text_by_parameter["min_tip"] = f"{decimal_text(config.execution.min_tip, 9)} gwei"
    for layer in layer_settings.LAYERS:
        text_by_parameter |= layer.confirmed(config, portfolio)
    allocator_texts = {
        strategy.name: allocator_sentences(strategy_as_portfolio(config.portfolio, strategy))
        for strategy in config.strategies
        if isinstance(strategy.allocator, AllocatorTable)
    }
    text_by_parameter |= strategy_parameters(build_split(config), portfolio, allocator_texts)
    if config.policy.risk is not None:
        text_by_parameter["risk"] = risk_text(config.policy.risk)
    for limit_name in LimitsTable.model_fields:
        text_by_parameter[limit_name] = limit_text(
            limit_name, getattr(config.limits, limit_name), numeraire
        )
    return text_by_parameter


def _account_parameters(config: Config, router: str) -> dict[str, str]:
    """Return which account acts on which chain, by whose word, and to whom it may pay."""
    chain = config.chain
    operators = sorted({endpoint.operator for endpoint in chain.rpc})
    return {
        "chain": f"{chain.chain_id}{' (a local fork)' if chain.fork else ''}",
        "endpoints": f"{', '.join(operators)}; {chain.min_operators} must agree",
        "wallet": config.wallet.address,
        "key": _key_text(config),
        "router": f"{config.execution.router} {router}",
        "payout addresses": ", ".join(config.wallet.payout_addresses) or "none",
    }


def _execution_parameters(config: Config) -> dict[str, str]:
    """Return how transactions are sent, and when they count as final."""
    chain = config.chain
    finality_texts = [chain.finality_tag] if chain.finality_tag else []
    return {
        "submission": submission_text(config),
        "deadline": format_duration(config.execution.deadline),
        "style": pace_text(config),
        "confirmations": ", then ".join([str(chain.confirmations), *finality_texts]),
    }


def _portfolio_parameters(config: Config, portfolio: Portfolio) -> dict[str, str]:
    """Return what the wallet shall hold, and what is kept out of it."""
    use_cash = config.portfolio.use_cash
    target_texts = [
        f"{asset.token.label} {format_bps(asset.target_bps)}" for asset in portfolio.assets
    ]
    reserve_texts = [
        f"{decimal_text(asset.reserve_raw, asset.token.decimals)} {asset.token.label}"
        for asset in portfolio.assets
        if asset.reserve_raw
    ]
    position_names = [position.name for position in portfolio.positions]
    lp_target_texts = [_lp_target_text(target) for target in portfolio.lp_targets]
    cash_text = f"at most {use_cash} {portfolio.numeraire.label} of the wallet"
    return {
        "targets": ", ".join(target_texts),
        "reserves": ", ".join(reserve_texts) or "none",
        "cash used": "all" if use_cash is None else cash_text,
        "weights": allocator_sentences(config.portfolio),
        "liquidity positions": ", ".join(position_names) or "none",
        "liquidity targets": ", ".join(lp_target_texts) or "none",
        "orders": conditional_orders.format_orders(portfolio) or "none",
    }


def _policy_parameters(config: Config, portfolio: Portfolio) -> dict[str, str]:
    """Return when assets are traded, and how far."""
    policy = build_policy(config)
    side_text = "both sides"
    if policy.trade_side is not None:
        side_text = f"{policy.trade_side.value}: {trigger_text.SIDE_TEXTS[policy.trade_side]}"
    jitter_bps = config.policy.jitter
    return {
        "trigger": trigger_text.format_trigger(policy.trigger, portfolio),
        "bands of single assets": bands.format_bands(portfolio) or "none",
        "destination": policy.destination.value,
        "only": side_text,
        "cooldown": format_duration(config.policy.cooldown),
        "confirm_blocks": str(config.policy.confirm_blocks or 0),
        "jitter": "off" if jitter_bps is None else format_bps(jitter_bps),
    }


def _reference_parameters(reference: ReferenceTable) -> dict[str, str]:
    """Return which prices count, and how old they may be."""
    short_window_s = reference.short_window
    sequencer_text = "off"
    if reference.sequencer_feed:
        grace_text = format_duration(reference.sequencer_grace or 0)
        sequencer_text = f"{reference.sequencer_feed}, {grace_text}"
    return {
        "reference prices": ", then ".join(reference.kind),
        "twap_window": format_duration(reference.twap_window),
        "short_window": "off" if short_window_s is None else format_duration(short_window_s),
        "feed_max_age": format_duration(reference.feed_max_age),
        "sequencer": sequencer_text,
    }


def _lp_target_text(target: LpTarget) -> str:
    width_text = "" if target.width_bps is None else f", width {format_bps(target.width_bps)}"
    return f"{format_bps(target.share_bps)} in {target.venue} {target.pool}{width_text}"


def risk_text(risk_table: RiskTable) -> str:
    """Return volatilities and correlations."""
    part_texts = [
        f"volatility of {symbol} {format_bps(bps)}"
        for symbol, bps in risk_table.volatilities.items()
    ]
    part_texts += [
        f"correlation of {symbol_pair} {format_bps(bps)}"
        for symbol_pair, bps in risk_table.correlations.items()
    ]
    if (estimate_table := risk_table.estimate) is not None:
        part_texts.append(
            f"all others from recorded prices: returns over {format_duration(estimate_table.step)} of"
            f" {format_duration(estimate_table.window)}, at least {format_duration(estimate_table.min_history)}, none"
            f" older than {format_duration(estimate_table.max_age)}"
        )
    part_texts += (
        [f"of other pairs {format_bps(risk_table.correlation)}"]
        if risk_table.correlation is not None
        else []
    )
    return ", ".join(part_texts)


def limit_text(
    limit_name: str,
    limit_value: bool | int | str | list[str] | dict[str, int] | None,
    numeraire: str,
) -> str:
    """Format a limit with its unit: switches as on or off, shares in percent, gas prices in gwei,
    durations in words, the rest in coins.
    """
    if limit_value is None or isinstance(limit_value, bool):
        return "on" if limit_value else "off"
    if isinstance(limit_value, list):
        return ", ".join(limit_value) or "none"
    if isinstance(limit_value, dict):
        return ", ".join(
            f"{symbol} {format_bps(limit_bps)}" for symbol, limit_bps in limit_value.items()
        )
    unit = LIMITS[limit_name].unit if limit_name in LIMITS else None
    if isinstance(limit_value, str):
        return f"{limit_value} {'native' if unit is LimitUnit.NATIVE else numeraire}"
    if unit is LimitUnit.GAS_PRICE:
        return f"{decimal_text(limit_value, 9)} gwei"
    return format_duration(limit_value) if unit is LimitUnit.DURATION else format_bps(limit_value)


def _key_text(config: Config) -> str:
    wallet = config.wallet
    if wallet.mode == "propose":
        signer_text = "the owner of the wallet to sign"
        if wallet.safe:
            signer_text = "the owners of the Safe to sign; who executes them pays the gas"
        return f"external signer: transactions are written to {wallet.proposals}, for {signer_text}"
    if wallet.keystore is not None:
        return f"keystore {wallet.keystore}"
    if wallet.keyring is not None:
        return f"keyring entry {wallet.keyring}"
    if wallet.key_env is not None:
        return f"environment variable {wallet.key_env}"
    if wallet.signer_url_env is not None:
        return f"remote signer at the address in {wallet.signer_url_env}"
    if wallet.test_account is not None:
        return f"published test account {wallet.test_account}"
    return "typed at a prompt" if wallet.prompt else "none"
