"""Settings of liquidity positions, from [lp], as text for the owner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.config.schema import Config
from agent.config.tables.orders import ExitKeys
from agent.model import Portfolio
from agent.units import format_bps, format_duration


def confirmed_settings(config: Config, portfolio: Portfolio) -> Mapping[str, str]:
    """Return the settings of valued positions; none without positions."""
    if config.lp is None or not portfolio.has_pool_positions:
        return {}
    return {
        "lp": (
            f"volatility {format_bps(config.lp.volatility)} a year,"
            f" horizon {format_duration(config.lp.horizon)}"
        )
    }


def editable_keys(config_before: Config, config_after: Config) -> Iterator[str]:
    """Yield the key of each liquidity target's share, whose sum limits.lp_max_weight bounds. It may
    not rise while an exit is set, nor together with one, because an exit waits for liquidity of a
    pool off the reference.
    """
    targets_before, targets_after = (
        [] if config.lp is None else config.lp.targets for config in (config_before, config_after)
    )
    for target_index, (old_target, new_target) in enumerate(
        zip(targets_before, targets_after, strict=False)
    ):
        if new_target.share <= old_target.share or not (
            has_exits(config_before) or has_exits(config_after)
        ):
            yield f"lp.targets.{target_index}.share"


def has_exits(config: Config) -> bool:
    """Return whether an exit of the portfolio or of an asset is set."""
    order_tables = (config.portfolio.orders, *config.portfolio.assets)
    return any(
        getattr(order_table, exit_key, None)
        for order_table in order_tables
        for exit_key in ExitKeys.model_fields
    )
