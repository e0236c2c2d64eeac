"""Checks of a config's limits: those beyond a ceiling are in limits.i_accept, weights are within
max_weight, tip and top-up are possible, and no value of any table disables a protection.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from agent.config.networks.presets import SEQUENCER_FEEDS, SEQUENCER_GRACE, require_known_fees
from agent.config.schema import Config
from agent.config.tables.limits import ANY, CEILINGS, limits_beyond_ceiling
from agent.config.tables.strategies import StrategyTable
from agent.config.tables.weights import (
    AllocatorTable,
    weight_bounds,
)
from agent.model import AllocationMethod, AllocationNeeds
from agent.signing.terms import tip_range_wei
from agent.units import BPS, DAY_S, format_bps, format_gwei


def require_accepted_limits(config: Config) -> None:
    """Raise ValueError for a limit beyond its ceiling that the owner has not accepted by name."""
    limits = config.limits
    unknown_limit = next((name for name in limits.i_accept if name not in CEILINGS), None)
    if unknown_limit is not None:
        raise ValueError(
            f"limits.i_accept: {unknown_limit!r} is not a limit with a ceiling; choose from"
            f" {', '.join(CEILINGS)}"
        )
    fault_by_limit = {
        limit_key: fault_text
        for limit_key, fault_text in limits_beyond_ceiling(limits).items()
        if limit_key not in limits.i_accept
    }
    if fault_by_limit:
        accepted_names = ", ".join(f'"{name}"' for name in (*limits.i_accept, *fault_by_limit))
        raise ValueError(
            f"{'; '.join(fault_by_limit.values())}; lower it, or accept it with i_accept = [{accepted_names}] in"
            " [limits]"
        )


def require_payable_tip(config: Config) -> None:
    """Raise ValueError if the least tip is more than the signer or limits.gas_price allows."""
    min_tip_wei = config.execution.min_tip or 0
    gas_price_limit_wei = config.limits.gas_price
    _, max_tip_wei = tip_range_wei(config.chain.chain_id)
    if min_tip_wei > max_tip_wei:
        raise ValueError(
            f"execution.min_tip: {format_gwei(min_tip_wei)} is above the most that is signed on this"
            f" chain; write at most {format_gwei(max_tip_wei)}"
        )
    if gas_price_limit_wei is not None and min_tip_wei > gas_price_limit_wei:
        raise ValueError(
            f"execution.min_tip: {format_gwei(min_tip_wei)} is above limits.gas_price of"
            f" {format_gwei(gas_price_limit_wei)}; lower it, or raise that limit"
        )


def max_weight_bps(config: Config, symbol: str) -> int | None:
    """Return an asset's maximum weight; None without a limit."""
    max_weights = config.limits.max_weight or {}
    if symbol in max_weights or symbol == config.portfolio.numeraire:
        return max_weights.get(symbol)
    return max_weights.get(ANY)


def require_weights_within_max(config: Config) -> None:
    """Raise ValueError naming asset, value and remedy if a target, or a weight that an allocator
    may choose, is above its limit.
    """
    portfolio = config.portfolio
    max_weights = config.limits.max_weight or {}
    symbols = [asset.symbol for asset in portfolio.assets]
    unknown_symbol = next(
        (name for name in max_weights if name != ANY and name not in symbols), None
    )
    if unknown_symbol is not None:
        raise ValueError(
            f"limits.max_weight.{unknown_symbol}: not an asset; choose from {', '.join(symbols)}, or"
            " write any"
        )
    for symbol in symbols:
        limit_bps = max_weight_bps(config, symbol)
        if limit_bps is None:
            continue
        if not 0 < limit_bps <= BPS:
            raise ValueError(
                f"limits.max_weight: {format_bps(limit_bps)} for {symbol} is not above 0 % and at most"
                " 100 %;"
                " write for example 60%"
            )
        for config_key, weight_bps in _highest_weights(config, symbol):
            if weight_bps > limit_bps:
                raise ValueError(
                    f"{config_key}: {format_bps(weight_bps)} for {symbol} is above limits.max_weight of"
                    f" {format_bps(limit_bps)}; lower it, or raise the limit"
                )


def _highest_weights(config: Config, symbol: str) -> Iterator[tuple[str, int]]:
    """Yield (key, bps): the highest target weight of an asset in each part of the config."""
    portfolio_table = config.portfolio
    if config.strategies:
        strategy_weights = [
            strategy.share * _max_strategy_weight_bps(strategy, symbol, len(portfolio_table.assets))
            for strategy in config.strategies
        ]
        yield "strategies", -(-sum(strategy_weights) // BPS)
        return
    yield (
        f"portfolio.assets.{symbol}.target",
        next(asset.target for asset in portfolio_table.assets if asset.symbol == symbol),
    )
    if portfolio_table.weights is not None:
        weight_limit = portfolio_table.weights.limits.get(symbol)
        has_own_limit = weight_limit is not None and "max" in weight_limit.model_fields_set
        yield (
            f"portfolio.weights.limits.{symbol}.max" if has_own_limit else "portfolio.weights.cap",
            _max_allocator_weight_bps(portfolio_table.weights, symbol),
        )


def _max_strategy_weight_bps(strategy: StrategyTable, symbol: str, asset_count: int) -> int:
    if strategy.weights is None:
        target_bps = -(-BPS // asset_count)
    else:
        target_bps = strategy.weights.get(symbol, 0)
    if isinstance(strategy.allocator, AllocatorTable):
        return max(target_bps, _max_allocator_weight_bps(strategy.allocator, symbol))
    return target_bps


def _max_allocator_weight_bps(allocator_table: AllocatorTable, symbol: str) -> int:
    """Return the highest weight that the allocator may choose; zero for assets that keep their
    target, such as all those of an allocator that chooses weights of markets.
    """
    method = allocator_table.method
    if (
        method is AllocationMethod.FIXED
        or method.needs is AllocationNeeds.MARKETS
        or symbol in allocator_table.fixed
    ):
        return 0
    return weight_bounds(allocator_table, symbol)[1]


MIN_TWAP_WINDOW_S = 1_800
"""Minimum TWAP window. A shorter one can be manipulated within a few blocks (T3)."""
SHORT_WINDOW_BOUNDS_S = (60, 900)
"""Shortest and longest reference.short_window. Over less, a few blocks move it and make plans be
refused; over more, it hardly follows a move sooner than the TWAP.
"""
LONGEST_DEADLINE_S = 1_800
"""Longest deadline. A swap that is valid for longer is a free option for anyone who can delay it
(T7).
"""
MAX_DEPOSIT_AUTO_BPS = 2_500
"""Largest share of the portfolio that counts as a deposit by itself."""
LONGEST_JUMP_WAIT_S = 30 * DAY_S
"""Longest time that an unsolicited transfer can delay purchases."""
LARGEST_JITTER_BPS = BPS // 2
"""Longest random delay, as a share of a schedule's interval."""


def require_protection(config: Config) -> None:
    """Raise ValueError naming the field if a value disables a protection."""
    if "spot" in config.reference.kind and not (
        config.chain.is_local or config.reference.allow_spot
    ):
        raise ValueError(
            "reference.kind: anyone can move spot prices for a block; use feed or twap, or"
            " set reference.allow_spot = true"
        )
    if (
        "twap" in config.reference.kind
        and config.reference.twap_window < MIN_TWAP_WINDOW_S
        and not config.chain.is_local
    ):
        raise ValueError(
            "reference.twap_window: a TWAP over less than 30m can be manipulated within a few"
            " blocks; write 30m or more"
        )
    shortest_s, longest_s = SHORT_WINDOW_BOUNDS_S
    short_window_s = config.reference.short_window
    if short_window_s is not None and not shortest_s <= short_window_s <= longest_s:
        raise ValueError('reference.short_window: not between 1m and 15m; write "5m", or "off"')
    require_known_fees(config.chain.chain_id, local=config.chain.is_local)
    _require_price_consent(config)
    if config.policy.jitter is not None and config.policy.jitter > LARGEST_JITTER_BPS:
        raise ValueError('policy.jitter: more than half of the interval; write less, such as "10%"')
    if not 0 < config.execution.deadline <= LONGEST_DEADLINE_S:
        raise ValueError("execution.deadline: must be above 0s and at most 30m; for example 90s")
    if (config.limits.balance_jump_wait or 0) > LONGEST_JUMP_WAIT_S:
        raise ValueError('limits.balance_jump_wait: more than 30d; write less, such as "24h"')
    if (deposit_auto_bps := config.limits.deposit_auto or 0) > MAX_DEPOSIT_AUTO_BPS:
        raise ValueError(
            f"limits.deposit_auto: {format_bps(deposit_auto_bps)} is above"
            f" {format_bps(MAX_DEPOSIT_AUTO_BPS)}; anyone can send coins: write less, and confirm larger"
            " deposits with trimtab flows confirm NUMBER"
        )
    if config.limits.slippage is not None and config.limits.slippage >= BPS:
        raise ValueError(
            "limits.slippage: 100 % or more accepts any price; write a lower value, such as 0.3%"
        )


def _require_price_consent(config: Config) -> None:
    """Require explicit consent to triggers that one block can fire, and to a rollup without a
    sequencer feed (T3, T13).
    """
    reference = config.reference
    sequencer_feed = SEQUENCER_FEEDS.get(config.chain.chain_id)
    if config.policy.confirm_blocks is None and not config.chain.is_local:
        raise ValueError(
            "policy.confirm_blocks: missing; write 3, or 0 to trigger on the prices of a single"
            " block"
        )
    if sequencer_feed is not None and "sequencer_feed" not in reference.model_fields_set:
        raise ValueError(
            f'reference.sequencer_feed: missing on this rollup; write "{sequencer_feed}" with'
            f' sequencer_grace = "{SEQUENCER_GRACE}", or "off"'
        )
    if reference.sequencer_feed is not None and reference.sequencer_grace is None:
        raise ValueError(
            f'reference.sequencer_grace: missing; write for example "{SEQUENCER_GRACE}"'
        )


def require_valid_native_top_up(config: Config) -> None:
    """Raise ValueError unless limits.native_top_up is above the floor and the wrapped native coin
    is an asset.
    """
    top_up = config.limits.native_top_up
    floor = config.limits.native_floor
    if top_up is None:
        return
    if floor is None or Decimal(top_up) <= Decimal(floor):
        raise ValueError(
            "limits.native_top_up: not above limits.native_floor; raise it, or write off"
        )
    if config.chain.wrapped_native not in [asset.address for asset in config.portfolio.assets]:
        raise ValueError(
            "limits.native_top_up: the wrapped native coin is not an asset, so nothing can be"
            " unwrapped; write off"
        )
