"""The settings of a config as its owner reads them, without secrets."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from agent.app.describe import limit_text
from agent.app.documents.status import (
    SettingDocument,
    SettingsDocument,
    SettingsSectionDocument,
    TargetSettingDocument,
)
from agent.config.build import build_policy, build_portfolio
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.config.networks.presets import PRESETS
from agent.config.tables.orders import OrderKeys
from agent.config.writing.profile import FILE_KEYS
from agent.layers.settings import EDITABLE
from agent.model import LIMITS, LimitUnit, NoTradeZone
from agent.policy import drift
from agent.policy.triggers import trigger_text
from agent.units import Token, format_duration

ASSUMED_DECIMALS = 18
"""Decimals of a token whose config leaves them to the chain; no setting depends on them."""
DESCRIPTIONS: Mapping[str, str] = {
    "policy.destination": "where a rebalance ends: at the targets, at the bands, or halfway",
    "policy.cooldown": "shortest time between two rebalances",
    "policy.confirm_blocks": "earlier blocks whose prices must agree",
    "policy.jitter": "longest random delay of a schedule, as a share of its interval",
    "policy.only": "the side that is traded",
    "portfolio.max_live_value": "highest managed value",
    "portfolio.use_cash": "most numeraire taken from the wallet",
    "portfolio.weights.kind": "allocator that chooses the weights",
    "portfolio.weights.every": "interval between two choices",
    "portfolio.weights.window": "how far back the prices for a choice go",
    "portfolio.orders.absent": "where the weight of a sold asset goes",
    "portfolio.orders.hysteresis": "minimum distance between price and level at arming",
    "execution.router": "contract that swaps",
    "execution.deadline": "time after which a sent swap is void",
    "execution.style": "how a rebalance is spread over time",
    "alerts.quiet": "hours in which only urgent alerts are sent",
    "alerts.cooldown": "shortest time between two equal alerts",
    "alerts.repeat": "time after which a lasting condition is sent again",
    "chain.confirmations": "blocks until a transaction counts as final",
    "chain.finality": "block tag that final transactions have reached",
    "chain.max_lag_blocks": "largest distance between the newest blocks of the operators",
    "reference.kind": "sources of prices, in order",
    "reference.feed_max_age": "age above which a feed's price is refused",
    "tax.method": "order in which lots are sold",
    "tax.year_limit": "highest realised gain of a year",
}
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Trigger": ("policy",),
    "Limits": (),
    "Allocator": ("portfolio.weights",),
    "Orders": ("portfolio.orders",),
    "Execution": ("execution",),
    "Strategies": ("strategies", "split"),
    "Futures": (
        "futures.venue", "futures.network", "futures.account", "futures.collateral", "futures.leverage",
        "futures.band", "futures.leverage_band", "futures.ask", "futures.funding_horizon",
        "futures.markets", "futures.limits", "futures.hedge",
    ),
    "Liquidity": ("lp",),
    "Prices": ("reference",),
    "Alerts": ("alerts",),
    "Tax": ("tax.method", "tax.year_limit", "tax.currency"),
    "Network": ("chain.confirmations", "chain.finality", "chain.max_lag_blocks", "chain.single_operator"),
    "Wallet": ("wallet.address", "wallet.mode", "wallet.safe", "wallet.payout_addresses"),
}  # fmt: skip
"""Tables and keys shown under each title. No other key is ever shown."""
EXCLUDED_KEYS = ("policy.trigger", "execution.submit_url", "alerts.targets")
"""Keys under these tables that are shown differently, or not at all."""


def settings_document(config: ConfigSource) -> SettingsDocument:
    """Return the settings in force, from the config alone. Raises ConfigError."""
    loaded = load_config(config)
    settings_tables = loaded.config
    tokens = {
        token.address: Token(
            token.address,
            token.symbol,
            ASSUMED_DECIMALS if token.decimals is None else token.decimals,
        )
        for token in settings_tables.portfolio.listed
    }
    portfolio, policy = build_portfolio(settings_tables, tokens), build_policy(settings_tables)
    config_values = tomllib.loads(loaded.redacted_text)
    order_texts = {
        asset_values["symbol"]: ", ".join(
            f"{key} {_setting_text(asset_values[key])}"
            for key in OrderKeys.model_fields
            if key in asset_values
        )
        for asset_values in config_values["portfolio"]["assets"]
    }
    assets: list[TargetSettingDocument] = []
    for asset_table, asset in zip(settings_tables.portfolio.assets, portfolio.assets, strict=True):
        band_edges = drift.band(policy.trigger, asset.target_bps, asset.band, asset.max_bps)
        has_zone = isinstance(policy.trigger, NoTradeZone)
        assets.append(
            {
                "symbol": asset_table.symbol,
                "address": asset_table.address,
                "target_bps": asset_table.target,
                "band_bps": None if has_zone else [float(edge) for edge in band_edges],
                "reserve": asset_table.reserve,
                "orders": order_texts[asset_table.symbol],
            }
        )
    sections: list[SettingsSectionDocument] = []
    editable_keys = {
        key for list_keys in EDITABLE for key in list_keys(settings_tables, settings_tables)
    }
    for title, keys in SECTIONS.items():
        section_settings = [
            *_derived_settings(title, loaded),
            *_settings_below(config_values, keys),
        ]
        if section_settings:
            shown_keys = [setting["key"] for setting in section_settings]
            editable = [key for key in shown_keys if key in editable_keys]
            sections.append({"title": title, "settings": section_settings, "editable": editable})
    return {
        "config_hash": loaded.digest,
        "numeraire": settings_tables.portfolio.numeraire,
        "trigger": trigger_text.format_trigger(policy.trigger, portfolio),
        "assets": assets,
        "sections": sections,
    }


def _derived_settings(title: str, loaded: LoadedConfig) -> list[SettingDocument]:
    """Return the settings whose text differs from that of the config."""
    config = loaded.config
    match title:
        case "Limits":
            return _limit_settings(loaded)
        case "Allocator" if config.portfolio.weights is None:
            return [_setting_document("portfolio.weights", "fixed: the targets above")]
        case "Execution":
            is_private = bool(config.execution.submit_url.get_secret_value())
            return [
                _setting_document(
                    "execution.submit_url",
                    "to a private endpoint" if is_private else "to the endpoints of the chain",
                    "where signed transactions are sent",
                )
            ]
        case "Alerts":
            return [
                _setting_document(
                    f"alerts.targets.{target.name}",
                    "all events" if target.events is None else ", ".join(target.events),
                    "events sent to this target",
                )
                for target in config.alerts.targets
            ]
        case "Network":
            operators = sorted({endpoint.operator for endpoint in config.chain.rpc})
            return [
                _setting_document("chain.chain_id", str(config.chain.chain_id)),
                _setting_document("chain.rpc", ", ".join(operators), "operators of the endpoints"),
                _setting_document(
                    "chain.quorum", str(config.chain.min_operators), "operators that have to agree"
                ),
                _setting_document("chain.explorer", config.chain.explorer or "none"),
            ]
    return []


def _limit_settings(loaded: LoadedConfig) -> list[SettingDocument]:
    limits, portfolio = loaded.config.limits, loaded.config.portfolio
    settings = [
        _setting_document(
            "portfolio.max_live_value", _coins_text(portfolio.max_live_value, portfolio.numeraire)
        )
    ]
    if portfolio.use_cash is not None:
        settings.append(
            _setting_document(
                "portfolio.use_cash", _coins_text(portfolio.use_cash, portfolio.numeraire)
            )
        )
    for key in type(limits).model_fields:
        value = getattr(limits, key)
        if key in LIMITS or value:
            limit = LIMITS.get(key)
            value_text = limit_text(key, value, portfolio.numeraire)
            if limit is not None and limit.unit is LimitUnit.DURATION and value is not None:
                value_text = format_duration(value)
            settings.append(
                _setting_document(
                    f"limits.{key}", value_text, "" if limit is None else limit.comment
                )
            )
    return settings


def _coins_text(amount: str | None, numeraire: str) -> str:
    return "off" if amount is None else f"{amount} {numeraire}"


def _settings_below(
    config_values: Mapping[str, Any], keys: tuple[str, ...]
) -> list[SettingDocument]:
    """Return a row for each value below the keys, in the order of the config."""
    settings = []
    for key in keys:
        value: Any = config_values
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            settings += [
                _setting_document(path, value_text)
                for path, value_text in _flat_settings(key, value)
            ]
    return settings


def _flat_settings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if path in EXCLUDED_KEYS or path.rpartition(".")[2] in FILE_KEYS:
        return
    if isinstance(value, dict):
        for name, inner_value in value.items():
            yield from _flat_settings(f"{path}.{name}", inner_value)
    elif isinstance(value, list) and any(isinstance(list_item, dict) for list_item in value):
        for number, list_item in enumerate(value):
            name = next((list_item[key] for key in ("symbol", "name") if key in list_item), number)
            yield from _flat_settings(f"{path}.{name}", list_item)
    else:
        yield path, _setting_text(value)


def _setting_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _setting_document(key: str, value: str, about: str = "") -> SettingDocument:
    return {"key": key, "about": about or DESCRIPTIONS.get(key, ""), "value": value}


def identity(source: ConfigSource) -> dict[str, str]:
    """Return `network`, its name or chain id, `local`, "yes" for a local chain or a fork, whose coins
    are worth nothing, else empty, and `wallet`, its address. Raises ConfigError.
    """
    config = load_config(source).config
    chain = config.chain
    preset_names = (name for name, preset in PRESETS.items() if preset.chain_id == chain.chain_id)
    network = "local chain" if chain.local else next(preset_names, f"chain {chain.chain_id}")
    local = "yes" if chain.local else ""
    return {"network": network, "local": local, "wallet": config.wallet.address}
