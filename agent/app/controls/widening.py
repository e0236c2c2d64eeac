"""Restriction of queued edits: they may change targets, bands, orders and triggers, and tighten
limits. Everything else decides what the agent is permitted to do, and is edited at the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from agent.config.fields import ConfigTable
from agent.config.limits import ANY, is_tighter
from agent.config.orders import OrderKeys
from agent.config.schema import AssetTable, Config
from agent.errors import Refused
from agent.model import LIMITS, ControlCode, Verdict
from agent.units import BPS

POLICY_KEYS = frozenset({"trigger", "destination", "cooldown", "only", "risk", "jitter"})
ASSET_KEYS = frozenset({"target", "band", "reserve", *OrderKeys.model_fields})
AT_THE_TERMINAL = "change it at the terminal: trimtab edit"


def require_no_widening(before: Config, after: Config) -> None:
    """Raise Refused if the edited config may permit more than the present one: another address,
    contract, token, endpoint or key, a looser limit, or anything else outside the lists above.
    """
    for key in _widening_keys(before, after):
        verdict = Verdict("control_edit", key, "targets, orders, triggers, tighter limits", False)
        raise Refused(
            f"{key}: a control may not change it, because it decides what the agent may do",
            (verdict,),
            AT_THE_TERMINAL,
            code=ControlCode.WIDENS,
        )


def _widening_keys(before: Config, after: Config) -> Iterator[str]:
    for name in Config.model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        match name:
            case "portfolio":
                yield from _portfolio_keys(before, after)
            case "policy":
                yield from _policy_keys(old, new)
            case "limits":
                yield from _limit_keys(old, new)
            case _ if isinstance(old, ConfigTable) and type(old) is type(new):
                yield from (
                    f"{name}.{key}"
                    for key in type(old).model_fields
                    if getattr(old, key) != getattr(new, key)
                )
            case _:
                yield name


def _portfolio_keys(before: Config, after: Config) -> Iterator[str]:
    old, new = before.portfolio, after.portfolio
    for name in type(old).model_fields:
        if name == "assets" or getattr(old, name) == getattr(new, name):
            continue
        if name != "max_live_value" or not _is_lower(new.max_live_value, old.max_live_value):
            yield f"portfolio.{name}"
    known = {asset.symbol: asset for asset in old.assets}
    for asset in new.assets:
        if (mine := known.get(asset.symbol)) is None:
            yield f"portfolio.assets.{asset.symbol}"
            continue
        for name in AssetTable.model_fields:
            if name not in ASSET_KEYS and getattr(mine, name) != getattr(asset, name):
                yield f"portfolio.assets.{asset.symbol}.{name}"


def _policy_keys(old: Any, new: Any) -> Iterator[str]:
    for name in type(old).model_fields:
        mine, theirs = getattr(old, name), getattr(new, name)
        if mine == theirs or name in POLICY_KEYS:
            continue
        if name != "confirm_blocks" or theirs is None or theirs < (mine or 0):
            yield f"policy.{name}"


def _limit_keys(old: Any, new: Any) -> Iterator[str]:
    for name in type(old).model_fields:
        mine, theirs = getattr(old, name), getattr(new, name)
        if mine == theirs:
            continue
        if name == "i_accept":
            tighter = set(theirs) <= set(mine)
        elif name == "max_weight":
            tighter = _caps_are_lower(theirs, mine)
        elif name in LIMITS:
            tighter = is_tighter(name, theirs, mine)
        else:
            tighter = _is_lower(theirs, mine)
        if not tighter:
            yield f"limits.{name}"


def _caps_are_lower(new: dict[str, int] | None, old: dict[str, int] | None) -> bool:
    """Return whether no asset's cap is higher than before; None means no caps. A new cap of an asset
    replaces that of "any".
    """
    if new is None:
        return False
    caps = old or {}
    return set(caps) <= set(new) and all(
        cap <= caps.get(name, caps.get(ANY, BPS)) for name, cap in new.items()
    )


def _is_lower(new: Any, old: Any) -> bool:
    """Return whether a cap is lower; None is the loosest."""
    if new is None:
        return False
    return old is None or Decimal(new) < Decimal(old)
