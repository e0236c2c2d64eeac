"""Profiles: export weights, trigger and limits of a portfolio to a file, and import one into a config
after review.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import wiring
from agent.app.agent import Agent
from agent.app.describe import limit_text
from agent.app.settings import editing
from agent.app.settings.editing import EditReport
from agent.chain.rpc import Transport
from agent.config.load import load_config, load_config_text
from agent.config.loaded import LoadedConfig
from agent.config.presets import TemplateAsset
from agent.config.tables.limits import Limit, is_tighter, read_limits
from agent.config.tables.portfolio import NATIVE, AssetTable
from agent.config.writing.edits import write_config
from agent.config.writing.profile import (
    POLICY_KEYS,
    Profile,
    profile_text,
    read_profile,
    require_addresses,
)
from agent.config.writing.profile_merge import OFF, merge_profile
from agent.config.writing.profile_tokens import ResolvedToken, resolve_token
from agent.config.writing.token_lists import read_token_list
from agent.errors import ConfigError, ErrorCode, Retryable
from agent.model import LIMITS, LimitUnit

Document = dict[str, Any]
Confirm = Callable[[Document, EditReport, Agent | None], bool]
"""Question to the user, with the profile's changes, the transition, and the agent that planned it
(None if the chain cannot be read)."""
COUNTED_ELSE = "counted in another numeraire"


def export_profile(config: Path | str, target: Path) -> Document:
    """Write the config's profile into a new file. Raises ConfigError if the file exists."""
    loaded = load_config(config)
    text, left_out = profile_text(loaded)
    try:
        with os.fdopen(
            os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8"
        ) as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(
            f"{target}: exists already; nothing was changed",
            "name another file",
            code=ErrorCode.EXISTS,
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror}", "choose a folder that exists"
        ) from None
    return {
        "profile": str(target),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "chain_id": loaded.config.chain.chain_id,
        "left_out": list(left_out),
    }


def import_profile(  # noqa: PLR0913
    config: Path | str,
    source: Path,
    confirm: Confirm | None,
    *,
    sha256: str | None = None,
    token_list: Path | None = None,
    token_list_sha256: str | None = None,
    sell_others: bool = False,
    in_rounds: bool = False,
    past: bool = False,
    transports: Sequence[Transport] | None = None,
) -> Document:
    """Import a profile into the config: `confirm` sees the changes and the transition; without it
    nothing is written. With `past` the new config is backtested on the packaged prices. Without a
    store, the config is written even if its chain cannot be read, without a transition. Raises
    ConfigError for content not allowed in a profile, another chain, a token that is unknown,
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
    listed: Sequence[TemplateAsset] = ()
    if token_list is not None:
        listed = read_token_list(token_list, chain_id, token_list_sha256).tokens
    profile = read_profile(source, loaded, sha256)
    tokens = [
        resolve_token(asset.symbol, loaded.config, listed, profile.origin)
        for asset in profile.table.assets
    ]
    require_addresses(profile)
    limits = _limits(profile, loaded, tokens)
    taken = {row["key"]: profile.raw["limits"][row["key"]] for row in limits if row["taken"]}
    text = merge_profile(
        loaded.path.read_text(encoding="utf-8"), loaded.config, profile, tokens, taken, sell_others
    )
    new = load_config_text(text, loaded.path, f"{loaded.path} with the profile")
    document: Document = {
        "profile": profile.origin,
        "sha256": profile.digest,
        "config": str(loaded.path),
        "chain_id": chain_id,
        **_assets(profile, tokens, loaded, new),
        "policy": _policy(loaded, new),
        "limits": limits + _followed(loaded, new, taken),
        "notes": _notes(new),
        "past": None,
    }
    if past:
        from agent.app.research.past_results import past_result_or_reason  # loads the simulation

        document["past"], why = past_result_or_reason(new)
        document["notes"] += [why] if why else []

    def shown(report: EditReport, agent: Agent) -> bool:
        return confirm is not None and confirm(document, report, agent)

    try:
        lines = wiring.open_transports(loaded.config) if transports is None else transports
        unasked = ""
    except ConfigError as error:
        lines, unasked = (), error.message
    if not unasked or wiring.store_file(loaded).exists():
        try:
            report = editing.edit(
                loaded.path,
                lambda _: text,
                in_rounds=in_rounds,
                keep_holdings=not sell_others,
                confirm=None if confirm is None else shown,
                transports=lines or None,
            )
            return {**document, "editing": report}
        except Retryable as error:
            if wiring.store_file(loaded).exists():
                raise
            unasked = error.message
    warning = f"the chain cannot be read, so the transition is unknown: {unasked}"
    report = EditReport((), None, None, 0, (warning,), (), "planned")
    if confirm is not None:
        report = replace(report, state="written" if confirm(document, report, None) else "declined")
    if report.state == "written":
        write_config(loaded.path, text)
    return {**document, "editing": report}


def _limits(profile: Profile, loaded: LoadedConfig, tokens: list[ResolvedToken]) -> list[Document]:
    """Compare each limit of the profile with the config's; take it if tighter and comparable."""
    mine, theirs = loaded.config.limits, read_limits(profile.table.limits, loaded.config.limits)
    same = _same_numeraire(profile, loaded, tokens)
    rows = []
    for key, value in theirs.items():
        ours: Limit = getattr(mine, key)
        comparable = key in LIMITS and (same or LIMITS[key].unit is not LimitUnit.COINS)
        taken = comparable and is_tighter(key, value, ours)
        why = COUNTED_ELSE
        if taken:
            why = "tighter"
        elif value == ours:
            why = "the same"
        elif comparable:
            why = "yours is tighter"
        rows.append(
            {
                "key": key,
                "yours": _limit(key, ours),
                "profile": _limit(key, value),
                "taken": taken,
                "why": why,
            }
        )
    return rows


def _same_numeraire(profile: Profile, loaded: LoadedConfig, tokens: list[ResolvedToken]) -> bool:
    """Return whether profile and config have the same numeraire: whether the profile's symbol
    resolves to the address of the config's numeraire.
    """
    ours = next(
        asset
        for asset in loaded.config.portfolio.assets
        if asset.symbol == loaded.config.portfolio.numeraire
    )
    theirs = next(
        (token for token in tokens if token.symbol == profile.table.profile.numeraire), None
    )
    return theirs is not None and theirs.address == (NATIVE if ours.native else ours.address)


def _assets(
    profile: Profile, tokens: list[ResolvedToken], loaded: LoadedConfig, new: LoadedConfig
) -> Document:
    """Return targets before and after, with each token's address in config and profile, and assets
    no longer managed.
    """
    before = {_place(asset): asset for asset in loaded.config.portfolio.assets}
    sources = {
        token.symbol: (token.source, asset.address)
        for token, asset in zip(tokens, profile.table.assets, strict=True)
    }
    rows = []
    for asset in new.config.portfolio.assets:
        source, theirs = sources.get(asset.symbol, ("config", None))
        old = before.get(_place(asset))
        rows.append(
            {
                "symbol": asset.symbol,
                "address": _place(asset),
                "source": source,
                "profile_address": theirs,
                "differs": theirs is not None and theirs.lower() != _place(asset).lower(),
                "feed": asset.feed,
                "before_bps": None if old is None else old.target,
                "after_bps": asset.target,
            }
        )
    kept = {row["address"] for row in rows}
    gone = [
        {"symbol": asset.symbol, "address": place, "before_bps": asset.target}
        for place, asset in before.items()
        if place not in kept
    ]
    return {"assets": rows, "excluded": gone}


def _policy(loaded: LoadedConfig, new: LoadedConfig) -> list[Document]:
    """Return the changes of trigger, destination, bands and weights."""
    pairs: list[tuple[str, object, object]] = [
        (key, getattr(loaded.config.policy, key), getattr(new.config.policy, key))
        for key in POLICY_KEYS
    ]
    pairs.append(("weights", loaded.config.portfolio.weights, new.config.portfolio.weights))
    bands = [
        {
            asset.symbol: str(asset.band)
            for asset in loaded_config.config.portfolio.assets
            if asset.band
        }
        or None
        for loaded_config in (loaded, new)
    ]
    pairs.append(("bands", bands[0], bands[1]))
    return [
        {"key": key, "before": _words(old), "after": _words(now)}
        for key, old, now in pairs
        if old != now
    ]


def _followed(
    loaded: LoadedConfig, new: LoadedConfig, taken: Mapping[str, object]
) -> list[Document]:
    """Return the limits that had to change with the assets."""
    if (
        "native_top_up" in taken
        or loaded.config.limits.native_top_up == new.config.limits.native_top_up
    ):
        return []
    ours = _limit("native_top_up", loaded.config.limits.native_top_up)
    why = "unwrapping needs the wrapped native coin among the assets"
    return [{"key": "native_top_up", "yours": ours, "profile": OFF, "taken": True, "why": why}]


def _notes(new: LoadedConfig) -> list[str]:
    """Return notes for the owner on weights whose data is not part of the profile."""
    weights = new.config.portfolio.weights
    if weights is None or weights.kind != "market_cap" or weights.supplies is not None:
        return []
    return [
        "market_cap counts only the supply on this chain, including for wrapped coins; see supplies in"
        " docs/weights.md"
    ]


def _limit(key: str, value: Limit) -> str:
    return "on" if value is True else limit_text(key, value, "coins")


def _place(asset: AssetTable) -> str:
    return NATIVE if asset.native else asset.address


def _words(value: object) -> str:
    """Format a value for display, "off" for none."""
    if value is None:
        return OFF
    if isinstance(value, list):
        return "; ".join(map(_words, value))
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return ", ".join(f"{key} {inner}" for key, inner in dump(exclude_unset=True).items())
    return str(value)
