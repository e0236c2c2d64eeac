"""The settings of a config as its owner reads them, without secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent.app.describe import limit_text
from agent.app.documents.status import (
    SettingDocument,
    SettingsDocument,
    SettingsSectionDocument,
    TargetSettingDocument,
)
from agent.app.settings.key_meanings import key_meaning
from agent.config.build import build_policy, build_portfolio
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.config.networks.presets import PRESETS
from agent.config.tables.alerts import EVENTS
from agent.config.tables.fields import parse_duration_s
from agent.config.tables.orders import OrderKeys
from agent.config.writing.profile import FILE_KEYS
from agent.errors import ConfigError
from agent.figures import as_sentence
from agent.foreign_text import read_toml
from agent.layers import settings as layer_settings
from agent.model import LIMITS, NoTradeZone, PortfolioIdentity
from agent.policy import drift
from agent.policy.triggers import trigger_text
from agent.units import Token, format_duration

ASSUMED_DECIMALS = 18
"""Decimals of a token whose config leaves them to the chain; no setting depends on them."""
LIMIT_MEANINGS: Mapping[str, str] = {
    "daily_turnover": "of the portfolio, within 24 h",
    "gas_per_day": "native coin spent on gas within 24 h",
    "gas_price": "highest price of a unit of gas",
    "head_age": "age of the newest block above which nothing is decided",
    "min_trade": "value below which nothing is swapped",
}
"""Meanings of limits whose rules have no comment that says it."""
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Trigger": ("policy",),
    "Limits": (),
    "Allocator": ("portfolio.weights",),
    "Orders": ("portfolio.orders",),
    "Execution": ("execution",),
    "Strategies": ("strategies", "split"),
    "Futures": (
        "futures.venue",
        "futures.network",
        "futures.account",
        "futures.collateral",
        "futures.leverage",
        "futures.band",
        "futures.leverage_band",
        "futures.every",
        "futures.cron",
        "futures.timezone",
        "futures.ask",
        "futures.funding_horizon",
        "futures.markets",
        "futures.limits",
        "futures.hedge",
    ),
    "Liquidity": ("lp",),
    "Prices": ("reference",),
    "Alerts": ("alerts",),
    "Tax": ("tax.method", "tax.year_limit", "tax.rate", "tax.currency"),
    "Holding": ("holding",),
    "Sweep": ("sweep",),
    "Second opinions": ("second_opinions",),
    "Hubs": ("portfolio.hubs",),
    "Network": (
        "chain.confirmations",
        "chain.finality",
        "chain.max_lag_blocks",
        "chain.single_operator",
    ),
    "Wallet": ("wallet.address", "wallet.mode", "wallet.safe", "wallet.payout_addresses"),
}
"""Tables and keys of the config shown under each title, as they are written; `_derived_settings`
adds those whose text differs.
"""
EXCLUDED_KEYS = (
    "execution.submit_url",
    "alerts.targets",
    "second_opinions.zero_x_env",
)
"""Keys under these tables that are shown differently, or not at all."""


def settings_document(config: ConfigSource) -> SettingsDocument:
    """Return the settings in force, from the config alone. Raises ConfigError."""
    loaded_config = load_config(config)
    settings_tables = loaded_config.config
    token_by_address = {
        token.address: Token(
            token.address,
            token.symbol,
            ASSUMED_DECIMALS if token.decimals is None else token.decimals,
        )
        for token in settings_tables.portfolio.listed_tokens
    }
    portfolio = build_portfolio(settings_tables, token_by_address)
    policy = build_policy(settings_tables)
    config_values = read_toml(loaded_config.redacted_text)
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
    editable_keys = layer_settings.editable_keys(settings_tables, settings_tables)
    for title, keys in SECTIONS.items():
        section_settings = [
            *_derived_settings(title, loaded_config),
            *_settings_below(config_values, keys),
        ]
        if section_settings:
            shown_keys = [setting["key"] for setting in section_settings]
            shown_editable_keys = [key for key in shown_keys if key in editable_keys]
            sections.append(
                {"title": title, "settings": section_settings, "editable": shown_editable_keys}
            )
    return {
        "config_hash": loaded_config.digest,
        "numeraire": settings_tables.portfolio.numeraire,
        "trigger": trigger_text.format_trigger(policy.trigger, portfolio),
        "assets": assets,
        "payout_addresses": list(settings_tables.wallet.payout_addresses),
        "sections": sections,
    }


def _derived_settings(title: str, loaded_config: LoadedConfig) -> list[SettingDocument]:
    """Return the settings whose text differs from that of the config."""
    config = loaded_config.config
    match title:
        case "Limits":
            return _limit_settings(loaded_config)
        case "Allocator" if config.portfolio.weights is None:
            return [_setting_document("portfolio.weights.kind", "fixed: the targets above")]
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
                    f"alerts.targets.{target.name}.events",
                    "all events" if events == list(EVENTS) else ", ".join(events) or "none",
                )
                for target in config.alerts.targets
                for events in (config.alerts.events_of(target),)
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


def _limit_settings(loaded_config: LoadedConfig) -> list[SettingDocument]:
    limits = loaded_config.config.limits
    portfolio = loaded_config.config.portfolio
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
        limit_value = getattr(limits, key)
        if key in LIMITS or limit_value:
            limit_rule = LIMITS.get(key)
            settings.append(
                _setting_document(
                    f"limits.{key}",
                    limit_text(key, limit_value, portfolio.numeraire),
                    LIMIT_MEANINGS.get(key) or ("" if limit_rule is None else limit_rule.comment),
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
        config_value: Any = config_values
        for key_part in key.split("."):
            config_value = config_value.get(key_part) if isinstance(config_value, dict) else None
        if config_value is not None:
            settings += [
                _setting_document(key_path, setting_text)
                for key_path, setting_text in _flat_settings(key, config_value)
            ]
    return settings


def _flat_settings(key_path: str, config_value: Any) -> Iterator[tuple[str, str]]:
    if key_path in EXCLUDED_KEYS or key_path.rpartition(".")[2] in FILE_KEYS:
        return
    if isinstance(config_value, dict):
        for sub_key, sub_value in config_value.items():
            yield from _flat_settings(f"{key_path}.{sub_key}", sub_value)
    elif isinstance(config_value, list) and any(
        isinstance(sub_table, dict) for sub_table in config_value
    ):
        for table_index, sub_table in enumerate(config_value):
            sub_key = next(
                (sub_table[key] for key in ("symbol", "name") if key in sub_table), table_index
            )
            yield from _flat_settings(f"{key_path}.{sub_key}", sub_table)
    else:
        yield key_path, _setting_text(config_value)


def _setting_text(setting: object) -> str:
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, list):
        return ", ".join(map(str, setting)) or "none"
    try:
        return format_duration(parse_duration_s(setting))
    except ConfigError:
        return str(setting)


def _setting_document(key: str, setting_text: str, about: str = "") -> SettingDocument:
    meaning = about or key_meaning(key)
    return {"key": key, "about": as_sentence(meaning), "value": setting_text}


def portfolio_identity(source: ConfigSource) -> PortfolioIdentity:
    """Return network and wallet of a config. Raises ConfigError."""
    config = load_config(source).config
    chain = config.chain
    preset_names = (
        preset_name for preset_name, preset in PRESETS.items() if preset.chain_id == chain.chain_id
    )
    network = "local chain" if chain.is_local else next(preset_names, f"chain {chain.chain_id}")
    return PortfolioIdentity(network, chain.is_local, config.wallet.address)
