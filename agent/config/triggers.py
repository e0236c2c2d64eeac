"""Checks of [policy] trigger and risk, and the trigger with a zone's risk figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.config.schema import Config
from agent.config.tables.triggers import (
    EstimateTable,
    RiskTable,
    TriggerTable,
    build_trigger,
    is_tracking,
    is_zone,
)
from agent.model import AnsweredTrigger, NoTradeZone, RiskEstimationWindow, Trigger
from agent.policy import risk


def require_valid_zone(config: Config) -> None:
    """Raise ValueError naming field and remedy if the zone could not be evaluated."""
    risk_table = config.policy.risk or RiskTable()
    triggers = (config.policy.trigger, *(strategy.trigger for strategy in config.strategies))
    zone_table = next((table for table in triggers if table is not None and is_zone(table)), None)
    if zone_table is None:
        trigger = config.policy.trigger
        # a zone in a list is refused later, by its own message
        lists_zone = isinstance(trigger, list) and any(map(is_zone, trigger))
        if config.policy.risk is not None and not config.strategies and not lists_zone:
            raise ValueError(
                "policy.risk: has no effect without a trigger of kind zone or tracking; remove it"
            )
        return
    if config.limits.plan_cost is None and not is_tracking(zone_table):
        raise ValueError(
            "limits.plan_cost: off, but a zone needs it to limit the cost of a swap; write for"
            ' example "0.5%"'
        )
    symbols = [asset.symbol for asset in config.portfolio.assets]
    unknown_symbols = [symbol for symbol in risk_table.volatilities if symbol not in symbols]
    if unknown_symbols:
        raise ValueError(
            f"policy.risk.volatilities: {unknown_symbols[0]!r} is not an asset; remove it or correct"
            " its spelling"
        )
    pairs = [_pair(pair_name, symbols) for pair_name in risk_table.correlations]
    repeated_pairs = [
        pair_name
        for pair_name, pair in zip(risk_table.correlations, pairs, strict=True)
        if pairs.count(pair) > 1
    ]
    if repeated_pairs:
        raise ValueError(
            f"policy.risk.correlations: {' and '.join(repeated_pairs)} are the same pair; keep one"
        )
    zone = build_trigger_with_risk(config, zone_table)
    symbol_by_address = {asset.address: asset.symbol for asset in config.portfolio.assets}
    if risk_table.estimate is not None:
        _require_valid_estimate(risk_table, risk_table.estimate, symbols)
    fault_and_remedy = (
        next(risk.faults(zone.risk, symbol_by_address), None)
        if isinstance(zone, NoTradeZone)
        else None
    )
    if fault_and_remedy is not None:
        raise ValueError("; ".join(fault_and_remedy))


def _require_valid_estimate(
    risk_table: RiskTable, estimate: EstimateTable, symbols: list[str]
) -> None:
    """Raise ValueError if what is not configured cannot be estimated from prices."""
    if risk_table.correlation is not None:
        raise ValueError(
            "policy.risk.correlation: estimate takes correlations from prices; write only those"
            " of pairs without prices"
        )
    estimated_symbols = [symbol for symbol in symbols if symbol not in risk_table.volatilities]
    asset_count = len(estimated_symbols)
    if estimate.min_history < (asset_count + 1) * estimate.step:
        raise ValueError(
            f"policy.risk.estimate.min_history: {asset_count} assets need at least {asset_count + 1}"
            " steps for a non-singular covariance; write a longer one"
        )


def _pair(pair_name: str, symbols: list[str]) -> frozenset[str]:
    pair_symbols = pair_name.split("/")
    if len(pair_symbols) != 2 or len({*pair_symbols}) != 2 or not {*pair_symbols} <= {*symbols}:
        raise ValueError(
            f"policy.risk.correlations: {pair_name!r} is not a pair of assets; write for example"
            f' "{symbols[0]}/{symbols[1]}"'
        )
    return frozenset(pair_symbols)


def _with_risk(
    zone: NoTradeZone, risk_table: RiskTable | None, address_by_symbol: Mapping[str, str]
) -> NoTradeZone:
    """Add the figures of [policy.risk] to a zone. `address_by_symbol` are addresses by symbol."""
    if risk_table is None:
        return zone
    return NoTradeZone(
        replace(
            zone.risk,
            volatilities_bps=tuple(
                (address_by_symbol[symbol], bps) for symbol, bps in risk_table.volatilities.items()
            ),
            correlations_bps=tuple(_correlations(risk_table, address_by_symbol)),
            estimation_window=None
            if risk_table.estimate is None
            else _estimation_window(risk_table.estimate),
        )
    )


def _estimation_window(estimate: EstimateTable) -> RiskEstimationWindow:
    return RiskEstimationWindow(
        estimate.window, estimate.step, -(-estimate.min_history // estimate.step), estimate.max_age
    )


def _correlations(
    risk_table: RiskTable, address_by_symbol: Mapping[str, str]
) -> list[tuple[str, str, int]]:
    """Return (token, token, bps) of every pair of assets with a correlation."""
    bps_by_pair = {
        frozenset(pair_name.split("/")): bps for pair_name, bps in risk_table.correlations.items()
    }
    symbols = list(address_by_symbol)
    correlated_pairs = []
    for later_index, later_symbol in enumerate(symbols):
        for earlier_symbol in symbols[:later_index]:
            pair = frozenset((later_symbol, earlier_symbol))
            bps = bps_by_pair.get(pair, risk_table.correlation)
            if bps is not None:
                correlated_pairs.append(
                    (address_by_symbol[earlier_symbol], address_by_symbol[later_symbol], bps)
                )
    return correlated_pairs


def build_trigger_with_risk(config: Config, table: TriggerTable) -> Trigger:
    """Build the trigger of [policy] or of a strategy, a zone with the risk of [policy.risk]. Raises
    ConfigError.
    """
    address_by_symbol = {asset.symbol: asset.address for asset in config.portfolio.assets}
    risky_address_by_symbol = {
        symbol: address
        for symbol, address in address_by_symbol.items()
        if symbol != config.portfolio.numeraire
    }
    trigger = build_trigger(table, risky_address_by_symbol)
    if isinstance(trigger, NoTradeZone):
        return _with_risk(trigger, config.policy.risk, address_by_symbol)
    if isinstance(trigger, AnsweredTrigger) and trigger.signal is not None:
        name = trigger.signal.name
        if (signal_table := config.signals.get(name)) is not None:  # require_signals names it
            return replace(trigger, signal=signal_table.settings(name))
    return trigger
