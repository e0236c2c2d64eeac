"""Profiles: export weights, trigger and limits of a portfolio to a file, and import one into a
config after review.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomlkit

from agent import wiring
from agent.app.agent import Agent
from agent.app.describe import limit_text
from agent.app.records.published import download
from agent.app.settings import editing
from agent.app.settings.editing import EditReport
from agent.app.start.capital import minimum_capital_of
from agent.chain.rpc import Transport
from agent.config.load import load_config, load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.networks.presets import TemplateAsset
from agent.config.tables.limits import Limit, is_tighter, read_limits
from agent.config.tables.portfolio import NATIVE, AssetTable
from agent.config.writing.config_file import write_config
from agent.config.writing.profile import (
    MAX_BYTES,
    POLICY_KEYS,
    Profile,
    profile_text,
    read_profile,
    require_valid_addresses,
)
from agent.config.writing.profile_merge import OFF, merge_profile, to_inline
from agent.config.writing.profile_tokens import ResolvedToken, resolve_token
from agent.config.writing.token_lists import read_token_list
from agent.errors import ConfigError, ErrorCode, Refused, Retryable
from agent.foreign_text import failure_words, read_toml
from agent.model import LIMITS, LimitUnit

Document = dict[str, Any]
Confirm = Callable[[Document, EditReport, Agent | None], bool]
"""Question to the user, with the profile's changes, the transition, and the agent that planned it
(None if the chain cannot be read)."""
_SHA256_PATTERN = re.compile(r"(0x)?[0-9a-fA-F]{64}")
OTHER_NUMERAIRE_REASON = "counted in another numeraire"
NO_TARGET = {"target": "0%"}


def export_profile(config: Path | str, profile_path: Path) -> Document:
    """Write the config's profile into a new file. Raises ConfigError if the file exists."""
    loaded_config = load_config(config)
    exported_text, skipped_keys = profile_text(loaded_config)
    try:
        with os.fdopen(
            os.open(profile_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644),
            "w",
            encoding="utf-8",
        ) as file:
            file.write(exported_text)
    except FileExistsError:
        raise ConfigError(
            f"{profile_path}: exists already; nothing was changed",
            "name another file",
            code=ErrorCode.EXISTS,
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{profile_path}: cannot be written: {error.strerror}", "choose a folder that exists"
        ) from None
    return {
        "profile": str(profile_path),
        "sha256": hashlib.sha256(exported_text.encode()).hexdigest(),
        "chain_id": loaded_config.config.chain.chain_id,
        "skipped": list(skipped_keys),
    }


@dataclass(frozen=True, slots=True)
class ProfileSource:
    """A profile, as a file or an https address, and the token list that resolves its symbols; each
    with the SHA-256 that it must have, which an address needs.
    """

    origin: Path | str
    sha256: str | None = None
    token_list: Path | None = None
    token_list_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class PastResultPrices:
    """Prices on which an imported config is backtested: those of the package, and each year of a
    file.
    """

    with_packaged: bool = False
    file: Path | None = None


NO_PAST_RESULT_PRICES = PastResultPrices()


def import_profile(
    config: Path | str,
    source: ProfileSource,
    confirm: Confirm | None,
    *,
    sell_others: bool = False,
    in_slices: bool = False,
    past_prices: PastResultPrices = NO_PAST_RESULT_PRICES,
    transports: Sequence[Transport] | None = None,
) -> Document:
    """Import a profile into the config: `confirm` sees the changes and the transition; without it
    nothing is written. With `sell_others` assets that the profile lacks are sold; with `in_slices`
    the edit is allowed if the first slice of its transition is. Without a store, the config is
    written even if its chain cannot be read, without a transition. Raises ConfigError for content not allowed in a profile,
    another chain, a token that is unknown, ambiguous or has the display name of another, or an
    invalid new config; Refused for a transition that is not allowed
    (agent/app/settings/editing.py).
    """
    loaded_config = load_config(config)
    chain_id = loaded_config.config.chain.chain_id
    if source.token_list_sha256 is not None and source.token_list is None:
        raise ConfigError(
            "--token-list-sha256: no token list is given",
            "add --token-list FILE, or omit the hash",
        )
    listed_tokens: Sequence[TemplateAsset] = ()
    if source.token_list is not None:
        listed_tokens = read_token_list(
            source.token_list, chain_id, source.token_list_sha256
        ).tokens
    profile = read_profile(
        _profile_content(str(source.origin), source.sha256),
        str(source.origin),
        loaded_config,
        source.sha256,
    )
    resolved_tokens = [
        resolve_token(asset.symbol, loaded_config.config, listed_tokens, profile.origin)
        for asset in profile.table.assets
    ]
    require_valid_addresses(profile)
    limit_documents = _compare_limits(profile, loaded_config, resolved_tokens)
    adopted_limits = {
        limit_document["key"]: profile.file_values["limits"][limit_document["key"]]
        for limit_document in limit_documents
        if limit_document["taken"]
    }
    text_before = loaded_config.path.read_bytes().decode()
    new_config_text = merge_profile(
        text_before,
        loaded_config.config,
        profile,
        resolved_tokens,
        adopted_limits,
        sell_others,
    )
    merged_config = load_config_text(
        new_config_text,
        loaded_config.path,
        f"{loaded_config.path} with the profile",
        remedy=f"nothing was written; correct the profile {profile.origin}",
    )
    import_document: Document = {
        "profile": profile.origin,
        "sha256": profile.digest,
        "config": str(loaded_config.path),
        "chain_id": chain_id,
        **_asset_changes(profile, resolved_tokens, loaded_config, merged_config),
        "policy": _policy_changes(loaded_config, merged_config),
        "limits": limit_documents
        + _asset_dependent_limits(loaded_config, merged_config, adopted_limits),
        "notes": _weight_notes(merged_config),
        "past": None,
        "other_years": [],
        "minimum_capital": minimum_capital_of(merged_config.config),
    }
    _add_past_results(import_document, merged_config, past_prices)

    def new_text_if_unchanged(current_text: str) -> str:
        _require_unchanged(loaded_config.path, text_before, current_text)
        return new_config_text

    def confirm_edit(report: EditReport, agent: Agent) -> bool:
        return confirm is not None and confirm(import_document, report, agent)

    try:
        opened_transports = (
            wiring.open_transports(loaded_config.config) if transports is None else transports
        )
        chain_error = ""
    except ConfigError as error:
        opened_transports = ()
        chain_error = error.message
    if not chain_error or wiring.has_store(loaded_config):
        try:
            report = editing.edit(
                loaded_config.path,
                editing.TextEdit(new_text_if_unchanged),
                editing.EditOptions(in_slices, keep_holdings=not sell_others),
                confirm=None if confirm is None else confirm_edit,
                transports=opened_transports or None,
            )
            return {**import_document, "editing": report}
        except Retryable as error:
            if wiring.has_store(loaded_config):
                raise
            chain_error = error.message
    warning = f"the chain cannot be read, so the transition is unknown: {chain_error}"
    report = EditReport((), None, None, 0, (warning,), (), "planned")
    if confirm is not None:
        report = replace(
            report, state="written" if confirm(import_document, report, None) else "declined"
        )
    if report.state == "written":
        write_config(
            loaded_config.path, new_text_if_unchanged(loaded_config.path.read_bytes().decode())
        )
    return {**import_document, "editing": report}


def _require_unchanged(config_path: Path, text_before: str, current_text: str) -> None:
    if current_text != text_before:
        raise Refused(
            f"{config_path} changed during the import; nothing was written",
            remedy="check the file and import the profile again",
        )


def profile_arguments(
    config: Path | str, profile_toml: str, arguments: Sequence[tuple[str, str]] = ()
) -> tuple[tuple[str, str], ...]:
    """Return the `arguments` of an edit with those that import the text of a profile: targets, with
    0 % for assets that it lacks, bands, policy, and tighter limits that bind no exit. Raises
    ConfigError for what an edit cannot import, such as a new asset or an allocator.
    """
    loaded_config = load_config(config)
    profile = read_profile(profile_toml.encode(), "profile", loaded_config)
    require_valid_addresses(profile)
    config_tables = read_toml(loaded_config.path.read_text(encoding="utf-8"))
    config_asset_by_symbol = {
        asset["symbol"]: asset for asset in config_tables["portfolio"]["assets"]
    }
    profile_asset_by_symbol = {
        profile_asset["symbol"]: profile_asset for profile_asset in profile.file_values["assets"]
    }
    profile_policy = profile.file_values["policy"]
    unsupported_parts = [
        *(
            f"a new asset, {symbol}"
            for symbol in profile_asset_by_symbol
            if symbol not in config_asset_by_symbol
        ),
        *(
            ["another allocator"]
            if profile.file_values.get("weights") != config_tables["portfolio"].get("weights")
            else ()
        ),
        *(
            f"no policy.{setting_key}"
            for setting_key in POLICY_KEYS
            if setting_key in config_tables["policy"].keys() - profile_policy
        ),
        *(
            f"no band of {symbol}"
            for symbol in profile_asset_by_symbol
            if "band"
            in config_asset_by_symbol.get(symbol, {}).keys() - profile_asset_by_symbol[symbol]
        ),
    ]
    if unsupported_parts:
        raise ConfigError(
            f"profile: it has {unsupported_parts[0]}",
            "import it at the terminal: trimtab import-profile",
        )
    new_settings = {
        f"policy.{setting_key}": setting
        for setting_key, setting in profile_policy.items()
        if setting != config_tables["policy"].get(setting_key)
    }
    new_settings |= {
        f"portfolio.assets.{symbol}.band": profile_asset["band"]
        for symbol, profile_asset in profile_asset_by_symbol.items()
        if profile_asset.get("band") != config_asset_by_symbol[symbol].get("band")
    }
    resolved_tokens = [
        resolve_token(symbol, loaded_config.config, (), profile.origin)
        for symbol in profile_asset_by_symbol
    ]
    new_settings |= {
        f"limits.{limit_document['key']}": profile.file_values["limits"][limit_document["key"]]
        for limit_document in _compare_limits(profile, loaded_config, resolved_tokens)
        if limit_document["taken"] and not LIMITS[limit_document["key"]].binds_exits
    }
    target_by_symbol = {
        symbol: profile_asset_by_symbol.get(symbol, NO_TARGET)["target"]
        for symbol in config_asset_by_symbol
    }
    return (
        *arguments,
        *(
            ("target", f"{symbol}={target}")
            for symbol, target in target_by_symbol.items()
            if target != config_asset_by_symbol[symbol]["target"]
        ),
        *(
            ("set", f"{setting_key}={tomlkit.item(to_inline(setting)).as_string()}")
            for setting_key, setting in new_settings.items()
        ),
    )


def _profile_content(source: str, sha256: str | None) -> bytes:
    """Return the bytes of a file or of an https address, whose SHA-256 must be pinned. Raises
    ConfigError; Retryable if the address does not answer.
    """
    if sha256 is not None and not _SHA256_PATTERN.fullmatch(sha256):
        raise ConfigError(f"--sha256: {sha256!r} is not a SHA-256", "write its 64 hex digits")
    remedy = "use a file written by trimtab export-profile"
    if "://" in source:
        url_parts = urlsplit(source)
        if url_parts.scheme != "https" or url_parts.username or url_parts.password:
            raise ConfigError(
                "FILE: an address is https and has no password", "use such an address, or a file"
            )
        if sha256 is None:
            raise ConfigError(
                f"--sha256: missing; {url_parts.hostname} could send another profile each time",
                "pin the SHA-256 that export-profile printed for its author",
            )
        return download(source, "FILE", MAX_BYTES, remedy)
    try:
        with Path(source).open("rb") as file:
            profile_bytes = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{source}: not a profile: {failure_words(error)}", remedy) from None
    if len(profile_bytes) > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES:,} bytes", remedy)
    return profile_bytes


def _compare_limits(
    profile: Profile, loaded_config: LoadedConfig, resolved_tokens: list[ResolvedToken]
) -> list[Document]:
    """Compare each limit of the profile with the config's; take it if tighter and comparable."""
    config_limits = loaded_config.config.limits
    profile_limits = read_limits(profile.table.limits, loaded_config.config.limits)
    has_same_numeraire = _has_same_numeraire(profile, loaded_config, resolved_tokens)
    limit_documents = []
    for limit_key, profile_limit in profile_limits.items():
        config_limit: Limit = getattr(config_limits, limit_key)
        is_comparable = has_same_numeraire or LIMITS[limit_key].unit is not LimitUnit.COINS
        is_adopted = is_comparable and is_tighter(limit_key, profile_limit, config_limit)
        comparison_reason = "yours is tighter"
        if not is_comparable:
            comparison_reason = OTHER_NUMERAIRE_REASON
        elif is_adopted:
            comparison_reason = "tighter"
        elif profile_limit == config_limit:
            comparison_reason = "the same"
        limit_documents.append(
            {
                "key": limit_key,
                "yours": _limit_value_text(limit_key, config_limit),
                "profile": _limit_value_text(limit_key, profile_limit),
                "taken": is_adopted,
                "why": comparison_reason,
            }
        )
    return limit_documents


def _has_same_numeraire(
    profile: Profile, loaded_config: LoadedConfig, resolved_tokens: list[ResolvedToken]
) -> bool:
    """Return whether profile and config have the same numeraire: whether the profile's symbol
    resolves to the address of the config's numeraire.
    """
    config_numeraire = next(
        asset
        for asset in loaded_config.config.portfolio.assets
        if asset.symbol == loaded_config.config.portfolio.numeraire
    )
    profile_token = next(
        (token for token in resolved_tokens if token.symbol == profile.table.profile.numeraire),
        None,
    )
    return profile_token is not None and profile_token.address == (
        NATIVE if config_numeraire.native else config_numeraire.address
    )


def _add_past_results(
    import_document: Document,
    loaded_config: LoadedConfig,
    past_prices: PastResultPrices,
) -> None:
    """Backtest a config on past prices; add results and notes."""
    if past_prices.with_packaged:
        from agent.app.research.past_results import past_result_or_reason  # loads the simulation

        import_document["past"], no_result_reason = past_result_or_reason(loaded_config)
        import_document["notes"] += [no_result_reason] if no_result_reason else []
    if past_prices.file is not None:
        from agent.app.research.past_results import year_results

        import_document["other_years"], no_result_reasons = year_results(
            loaded_config, past_prices.file
        )
        import_document["notes"] += no_result_reasons


def _asset_changes(
    profile: Profile,
    resolved_tokens: list[ResolvedToken],
    loaded_config: LoadedConfig,
    merged_config: LoadedConfig,
) -> Document:
    """Return targets before and after, with each token's address in config and profile, and assets
    no longer managed.
    """
    old_asset_by_address = {
        _asset_address(asset): asset for asset in loaded_config.config.portfolio.assets
    }
    source_by_symbol = {
        token.symbol: (token.source, asset.address)
        for token, asset in zip(resolved_tokens, profile.table.assets, strict=True)
    }
    asset_documents = []
    for asset in merged_config.config.portfolio.assets:
        address_source, profile_address = source_by_symbol.get(asset.symbol, ("config", None))
        old_asset = old_asset_by_address.get(_asset_address(asset))
        asset_documents.append(
            {
                "symbol": asset.symbol,
                "address": _asset_address(asset),
                "source": address_source,
                "profile_address": profile_address,
                "differs": profile_address is not None
                and profile_address.lower() != _asset_address(asset).lower(),
                "feed": asset.feed,
                "before_bps": None if old_asset is None else old_asset.target,
                "after_bps": asset.target,
            }
        )
    managed_addresses = {asset_document["address"] for asset_document in asset_documents}
    excluded_documents = [
        {"symbol": asset.symbol, "address": address, "before_bps": asset.target}
        for address, asset in old_asset_by_address.items()
        if address not in managed_addresses
    ]
    return {"assets": asset_documents, "excluded": excluded_documents}


def _policy_changes(loaded_config: LoadedConfig, merged_config: LoadedConfig) -> list[Document]:
    """Return the changes of POLICY_KEYS, weights and bands."""
    old_and_new_values: list[tuple[str, object, object]] = [
        (
            policy_key,
            getattr(loaded_config.config.policy, policy_key),
            getattr(merged_config.config.policy, policy_key),
        )
        for policy_key in POLICY_KEYS
    ]
    old_and_new_values.append(
        ("weights", loaded_config.config.portfolio.weights, merged_config.config.portfolio.weights)
    )
    old_and_new_bands = [
        {
            asset.symbol: str(asset.band)
            for asset in compared_config.config.portfolio.assets
            if asset.band
        }
        or None
        for compared_config in (loaded_config, merged_config)
    ]
    old_and_new_values.append(("bands", old_and_new_bands[0], old_and_new_bands[1]))
    return [
        {"key": policy_key, "before": _value_text(old_value), "after": _value_text(new_value)}
        for policy_key, old_value, new_value in old_and_new_values
        if old_value != new_value
    ]


def _asset_dependent_limits(
    loaded_config: LoadedConfig, merged_config: LoadedConfig, adopted_limits: Mapping[str, object]
) -> list[Document]:
    """Return the limits that had to change with the assets."""
    if (
        "native_top_up" in adopted_limits
        or loaded_config.config.limits.native_top_up == merged_config.config.limits.native_top_up
    ):
        return []
    config_limit_text = _limit_value_text(
        "native_top_up", loaded_config.config.limits.native_top_up
    )
    limit_reason = "unwrapping needs the wrapped native coin among the assets"
    return [
        {
            "key": "native_top_up",
            "yours": config_limit_text,
            "profile": OFF,
            "taken": True,
            "why": limit_reason,
        }
    ]


def _weight_notes(merged_config: LoadedConfig) -> list[str]:
    """Return notes for the owner on weights whose data is not part of the profile."""
    weights = merged_config.config.portfolio.weights
    if weights is None or weights.kind != "market_cap" or weights.supplies is not None:
        return []
    return [
        "market_cap counts only the supply on this chain, including for wrapped coins; write supplies ="
        ' "package" in [portfolio.weights], or see docs/weights.md'
    ]


def _limit_value_text(key: str, limit: Limit) -> str:
    return limit_text(key, limit, "coins")


def _asset_address(asset: AssetTable) -> str:
    return NATIVE if asset.native else asset.address


def _value_text(setting: object) -> str:
    """Format a value for display, "off" for none."""
    if setting is None:
        return OFF
    if isinstance(setting, list):
        return "; ".join(map(_value_text, setting))
    dump_model = getattr(setting, "model_dump", None)
    if callable(dump_model):
        return ", ".join(
            f"{key} {inner_setting}"
            for key, inner_setting in dump_model(exclude_unset=True).items()
        )
    return str(setting)
