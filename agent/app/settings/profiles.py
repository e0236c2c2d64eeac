"""Profiles: export weights, trigger and limits of a portfolio to a file, and import one into a
config after review.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from agent.config.writing.edits import write_config
from agent.config.writing.profile import (
    MAX_BYTES,
    POLICY_KEYS,
    Profile,
    profile_text,
    read_profile,
    require_addresses,
)
from agent.config.writing.profile_merge import OFF, inline, merge_profile
from agent.config.writing.profile_tokens import ResolvedToken, resolve_token
from agent.config.writing.token_lists import read_token_list
from agent.errors import ConfigError, ErrorCode, Refused, Retryable
from agent.model import LIMITS, LimitUnit

Document = dict[str, Any]
Confirm = Callable[[Document, EditReport, Agent | None], bool]
"""Question to the user, with the profile's changes, the transition, and the agent that planned it
(None if the chain cannot be read)."""
_SHA256 = re.compile(r"(0x)?[0-9a-fA-F]{64}")
OTHER_NUMERAIRE_REASON = "counted in another numeraire"
NO_TARGET = {"target": "0%"}


def export_profile(config: Path | str, profile_path: Path) -> Document:
    """Write the config's profile into a new file. Raises ConfigError if the file exists."""
    loaded = load_config(config)
    text, skipped_keys = profile_text(loaded)
    try:
        with os.fdopen(
            os.open(profile_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644),
            "w",
            encoding="utf-8",
        ) as file:
            file.write(text)
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
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "chain_id": loaded.config.chain.chain_id,
        "skipped": list(skipped_keys),
    }


def import_profile(  # noqa: PLR0913
    config: Path | str,
    source: Path | str,
    confirm: Confirm | None,
    *,
    sha256: str | None = None,
    token_list: Path | None = None,
    token_list_sha256: str | None = None,
    sell_others: bool = False,
    in_slices: bool = False,
    with_past_result: bool = False,
    prices: Path | None = None,
    transports: Sequence[Transport] | None = None,
) -> Document:
    """Import a profile, a file or an https address with its `sha256`, into the config: `confirm` sees
    the changes and the transition; without it nothing is written. With `sell_others` assets that the
    profile lacks are sold; with `in_slices` the edit is allowed if the first slice of its transition
    is. With `with_past_result` the new config is backtested on the packaged prices, with
    `prices` on each year of that file.
    Without a store, the config is written even if its chain cannot be read, without a transition.
    Raises ConfigError for content not allowed in a profile, another chain, a token that is unknown,
    ambiguous or has the display name of another, or an invalid new config; Refused for a transition
    that is not allowed (agent/app/settings/editing.py).
    """
    loaded = load_config(config)
    chain_id = loaded.config.chain.chain_id
    if token_list_sha256 is not None and token_list is None:
        raise ConfigError(
            "--token-list-sha256: no token list is given",
            "add --token-list FILE, or omit the hash",
        )
    listed_tokens: Sequence[TemplateAsset] = ()
    if token_list is not None:
        listed_tokens = read_token_list(token_list, chain_id, token_list_sha256).tokens
    profile = read_profile(_profile_content(str(source), sha256), str(source), loaded, sha256)
    tokens = [
        resolve_token(asset.symbol, loaded.config, listed_tokens, profile.origin)
        for asset in profile.table.assets
    ]
    require_addresses(profile)
    limits = _compare_limits(profile, loaded, tokens)
    adopted_limits = {
        row["key"]: profile.raw["limits"][row["key"]] for row in limits if row["taken"]
    }
    text_before = loaded.path.read_bytes().decode()
    config_text = merge_profile(
        text_before,
        loaded.config,
        profile,
        tokens,
        adopted_limits,
        sell_others,
    )
    merged_config = load_config_text(config_text, loaded.path, f"{loaded.path} with the profile")
    document: Document = {
        "profile": profile.origin,
        "sha256": profile.digest,
        "config": str(loaded.path),
        "chain_id": chain_id,
        **_asset_changes(profile, tokens, loaded, merged_config),
        "policy": _policy_changes(loaded, merged_config),
        "limits": limits + _following_limits(loaded, merged_config, adopted_limits),
        "notes": _weight_notes(merged_config),
        "past": None,
        "other_years": [],
        "minimum_capital": minimum_capital_of(merged_config.config),
    }
    _add_past_results(document, merged_config, prices, with_packaged=with_past_result)

    def merged_text(text: str) -> str:
        _require_unchanged(loaded.path, text_before, text)
        return config_text

    def confirm_edit(report: EditReport, agent: Agent) -> bool:
        return confirm is not None and confirm(document, report, agent)

    try:
        opened_transports = (
            wiring.open_transports(loaded.config) if transports is None else transports
        )
        read_error = ""
    except ConfigError as error:
        opened_transports, read_error = (), error.message
    if not read_error or wiring.store_file(loaded).exists():
        try:
            report = editing.edit(
                loaded.path,
                merged_text,
                in_slices=in_slices,
                keep_holdings=not sell_others,
                confirm=None if confirm is None else confirm_edit,
                transports=opened_transports or None,
            )
            return {**document, "editing": report}
        except Retryable as error:
            if wiring.store_file(loaded).exists():
                raise
            read_error = error.message
    warning = f"the chain cannot be read, so the transition is unknown: {read_error}"
    report = EditReport((), None, None, 0, (warning,), (), "planned")
    if confirm is not None:
        report = replace(report, state="written" if confirm(document, report, None) else "declined")
    if report.state == "written":
        write_config(loaded.path, merged_text(loaded.path.read_bytes().decode()))
    return {**document, "editing": report}


def _require_unchanged(path: Path, text_before: str, text: str) -> None:
    if text != text_before:
        raise Refused(
            f"{path} changed during the import; nothing was written",
            remedy="check the file and import the profile again",
        )


def profile_arguments(
    config: Path | str, text: str, arguments: Sequence[tuple[str, str]] = ()
) -> tuple[tuple[str, str], ...]:
    """Return the `arguments` of an edit with those that import the text of a profile: targets, with
    0 % for assets that it lacks, bands, policy, and tighter limits that bind no exit. Raises
    ConfigError for what an edit cannot import, such as a new asset or an allocator.
    """
    loaded = load_config(config)
    profile = read_profile(text.encode(), "profile", loaded)
    require_addresses(profile)
    tables = tomllib.loads(loaded.path.read_text(encoding="utf-8"))
    assets = {asset["symbol"]: asset for asset in tables["portfolio"]["assets"]}
    entries = {entry["symbol"]: entry for entry in profile.raw["assets"]}
    policy = profile.raw["policy"]
    unsupported = [
        *(f"a new asset, {symbol}" for symbol in entries if symbol not in assets),
        *(
            "another allocator"
            for table in (profile.raw, tables["portfolio"])
            if "weights" in table
        ),
        *(f"no policy.{key}" for key in POLICY_KEYS if key in tables["policy"].keys() - policy),
        *(
            f"no band of {symbol}"
            for symbol in entries
            if "band" in assets.get(symbol, {}).keys() - entries[symbol]
        ),
    ]
    if unsupported:
        raise ConfigError(
            f"profile: it has {unsupported[0]}",
            "import it at the terminal: trimtab import-profile",
        )
    sets = {
        f"policy.{key}": value
        for key, value in policy.items()
        if value != tables["policy"].get(key)
    }
    sets |= {
        f"portfolio.assets.{symbol}.band": entry["band"]
        for symbol, entry in entries.items()
        if entry.get("band") != assets[symbol].get("band")
    }
    tokens = [resolve_token(symbol, loaded.config, (), profile.origin) for symbol in entries]
    sets |= {
        f"limits.{row['key']}": profile.raw["limits"][row["key"]]
        for row in _compare_limits(profile, loaded, tokens)
        if row["taken"] and not LIMITS[row["key"]].binds_exits
    }
    targets = {symbol: entries.get(symbol, NO_TARGET)["target"] for symbol in assets}
    return (
        *arguments,
        *(
            ("target", f"{symbol}={target}")
            for symbol, target in targets.items()
            if target != assets[symbol]["target"]
        ),
        *(
            ("set", f"{key}={tomlkit.item(inline(value)).as_string()}")
            for key, value in sets.items()
        ),
    )


def _profile_content(source: str, sha256: str | None) -> bytes:
    """Return the bytes of a file or of an https address, whose SHA-256 must be pinned. Raises
    ConfigError; Retryable if the address does not answer.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ConfigError(f"--sha256: {sha256!r} is not a SHA-256", "write its 64 hex digits")
    remedy = "use a file written by trimtab export-profile"
    if "://" in source:
        address = urlsplit(source)
        if address.scheme != "https" or address.username or address.password:
            raise ConfigError(
                "FILE: an address is https and has no password", "use such an address, or a file"
            )
        if sha256 is None:
            raise ConfigError(
                f"--sha256: missing; {address.hostname} could send another profile each time",
                "pin the SHA-256 that export-profile printed for its author",
            )
        return download(source, "FILE", MAX_BYTES, remedy)
    try:
        with Path(source).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{source}: not a profile: {error}", remedy) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES:,} bytes", remedy)
    return content


def _compare_limits(
    profile: Profile, loaded: LoadedConfig, tokens: list[ResolvedToken]
) -> list[Document]:
    """Compare each limit of the profile with the config's; take it if tighter and comparable."""
    config_limits, profile_limits = (
        loaded.config.limits,
        read_limits(profile.table.limits, loaded.config.limits),
    )
    has_same_numeraire = _has_same_numeraire(profile, loaded, tokens)
    limit_documents = []
    for key, profile_limit in profile_limits.items():
        config_limit: Limit = getattr(config_limits, key)
        is_comparable = key in LIMITS and (
            has_same_numeraire or LIMITS[key].unit is not LimitUnit.COINS
        )
        is_adopted = is_comparable and is_tighter(key, profile_limit, config_limit)
        why = OTHER_NUMERAIRE_REASON
        if is_adopted:
            why = "tighter"
        elif profile_limit == config_limit:
            why = "the same"
        elif is_comparable:
            why = "yours is tighter"
        limit_documents.append(
            {
                "key": key,
                "yours": _limit_value_text(key, config_limit),
                "profile": _limit_value_text(key, profile_limit),
                "taken": is_adopted,
                "why": why,
            }
        )
    return limit_documents


def _has_same_numeraire(
    profile: Profile, loaded: LoadedConfig, tokens: list[ResolvedToken]
) -> bool:
    """Return whether profile and config have the same numeraire: whether the profile's symbol
    resolves to the address of the config's numeraire.
    """
    config_numeraire = next(
        asset
        for asset in loaded.config.portfolio.assets
        if asset.symbol == loaded.config.portfolio.numeraire
    )
    profile_token = next(
        (token for token in tokens if token.symbol == profile.table.profile.numeraire), None
    )
    return profile_token is not None and profile_token.address == (
        NATIVE if config_numeraire.native else config_numeraire.address
    )


def _add_past_results(
    document: Document, loaded: LoadedConfig, prices: Path | None, *, with_packaged: bool
) -> None:
    """Backtest a config on the packaged prices, and on each year of a file; add results and notes."""
    if with_packaged:
        from agent.app.research.past_results import past_result_or_reason  # loads the simulation

        document["past"], why = past_result_or_reason(loaded)
        document["notes"] += [why] if why else []
    if prices is not None:
        from agent.app.research.past_results import year_results

        document["other_years"], reasons = year_results(loaded, prices)
        document["notes"] += reasons


def _asset_changes(
    profile: Profile, tokens: list[ResolvedToken], loaded: LoadedConfig, merged_config: LoadedConfig
) -> Document:
    """Return targets before and after, with each token's address in config and profile, and assets
    no longer managed.
    """
    old_assets = {_asset_address(asset): asset for asset in loaded.config.portfolio.assets}
    sources = {
        token.symbol: (token.source, asset.address)
        for token, asset in zip(tokens, profile.table.assets, strict=True)
    }
    asset_documents = []
    for asset in merged_config.config.portfolio.assets:
        source, profile_address = sources.get(asset.symbol, ("config", None))
        old_asset = old_assets.get(_asset_address(asset))
        asset_documents.append(
            {
                "symbol": asset.symbol,
                "address": _asset_address(asset),
                "source": source,
                "profile_address": profile_address,
                "differs": profile_address is not None
                and profile_address.lower() != _asset_address(asset).lower(),
                "feed": asset.feed,
                "before_bps": None if old_asset is None else old_asset.target,
                "after_bps": asset.target,
            }
        )
    managed_addresses = {row["address"] for row in asset_documents}
    excluded_documents = [
        {"symbol": asset.symbol, "address": address, "before_bps": asset.target}
        for address, asset in old_assets.items()
        if address not in managed_addresses
    ]
    return {"assets": asset_documents, "excluded": excluded_documents}


def _policy_changes(loaded: LoadedConfig, merged_config: LoadedConfig) -> list[Document]:
    """Return the changes of trigger, destination, bands and weights."""
    old_and_new_values: list[tuple[str, object, object]] = [
        (key, getattr(loaded.config.policy, key), getattr(merged_config.config.policy, key))
        for key in POLICY_KEYS
    ]
    old_and_new_values.append(
        ("weights", loaded.config.portfolio.weights, merged_config.config.portfolio.weights)
    )
    bands = [
        {
            asset.symbol: str(asset.band)
            for asset in loaded_config.config.portfolio.assets
            if asset.band
        }
        or None
        for loaded_config in (loaded, merged_config)
    ]
    old_and_new_values.append(("bands", bands[0], bands[1]))
    return [
        {"key": key, "before": _value_text(old_value), "after": _value_text(new_value)}
        for key, old_value, new_value in old_and_new_values
        if old_value != new_value
    ]


def _following_limits(
    loaded: LoadedConfig, merged_config: LoadedConfig, adopted_limits: Mapping[str, object]
) -> list[Document]:
    """Return the limits that had to change with the assets."""
    if (
        "native_top_up" in adopted_limits
        or loaded.config.limits.native_top_up == merged_config.config.limits.native_top_up
    ):
        return []
    config_text = _limit_value_text("native_top_up", loaded.config.limits.native_top_up)
    why = "unwrapping needs the wrapped native coin among the assets"
    return [
        {"key": "native_top_up", "yours": config_text, "profile": OFF, "taken": True, "why": why}
    ]


def _weight_notes(merged_config: LoadedConfig) -> list[str]:
    """Return notes for the owner on weights whose data is not part of the profile."""
    weights = merged_config.config.portfolio.weights
    if weights is None or weights.kind != "market_cap" or weights.supplies is not None:
        return []
    return [
        "market_cap counts only the supply on this chain, including for wrapped coins; see supplies in"
        " docs/weights.md"
    ]


def _limit_value_text(key: str, value: Limit) -> str:
    return "on" if value is True else limit_text(key, value, "coins")


def _asset_address(asset: AssetTable) -> str:
    return NATIVE if asset.native else asset.address


def _value_text(value: object) -> str:
    """Format a value for display, "off" for none."""
    if value is None:
        return OFF
    if isinstance(value, list):
        return "; ".join(map(_value_text, value))
    dump_model = getattr(value, "model_dump", None)
    if callable(dump_model):
        return ", ".join(
            f"{key} {inner_value}" for key, inner_value in dump_model(exclude_unset=True).items()
        )
    return str(value)
