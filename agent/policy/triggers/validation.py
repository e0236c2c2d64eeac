"""Validation of each trigger, and of combinations in a policy."""

from __future__ import annotations

from collections.abc import Mapping

from agent.errors import ConfigError
from agent.model import (
    AnyOf,
    Destination,
    NoTradeZone,
    Policy,
    Threshold,
    TradeSide,
    Trigger,
)
from agent.policy.drift import has_band
from agent.policy.triggers.bands import (
    validate_band,
)
from agent.policy.triggers.rules import MAX_TRIGGERS, RULES


def validate_trigger(trigger: Trigger) -> None:
    """Raise ConfigError for a trigger that could never fire, or has invalid numbers."""
    if not isinstance(trigger, AnyOf):
        RULES[type(trigger)].validate(trigger)
        return
    if not 2 <= len(trigger.triggers) <= MAX_TRIGGERS:
        raise ConfigError(
            f"policy.trigger: a list of {len(trigger.triggers)}",
            f"write 2 to {MAX_TRIGGERS} triggers, or one by itself",
        )
    for member in trigger.triggers:
        validate_trigger(member)


def validate_policy(policy: Policy, band_by_symbol: Mapping[str, Threshold] | None = None) -> None:
    """Raise ConfigError if the trigger is invalid or conflicts with destination, sides or the
    assets' own bands.
    """
    validate_trigger(policy.trigger)
    if policy.cooldown_s < 0:
        raise ConfigError(
            f"policy.cooldown: {policy.cooldown_s} s is negative", 'write a time such as "1h"'
        )
    trigger_has_band = has_band(policy.trigger)
    if (
        policy.destination is Destination.BAND
        and not trigger_has_band
        and not isinstance(policy.trigger, NoTradeZone)
    ):
        raise ConfigError(
            "policy.destination: band, but the trigger has no band",
            'use a threshold or hybrid trigger, or "target"',
        )
    if policy.trade_side in (TradeSide.WINNERS, TradeSide.LOSERS) and not trigger_has_band:
        raise ConfigError(
            f"policy.only: {policy.trade_side.value} needs bands, but the trigger has none",
            'use a threshold or hybrid trigger, or only = "sell"',
        )
    if (
        policy.trade_side is not None
        and isinstance(policy.trigger, NoTradeZone)
        and policy.trigger.risk.horizon_s is not None
    ):
        raise ConfigError(
            f"policy.only: {policy.trade_side.value}, but a zone with a horizon trades both sides",
            "remove it, or use a threshold or tracking",
        )
    for symbol, band in (band_by_symbol or {}).items():
        config_key = f"portfolio.assets.{symbol}.band"
        validate_band(band, config_key)
        if not trigger_has_band:
            raise ConfigError(
                f"{config_key}: the trigger has no bands",
                "remove it, or use a threshold or hybrid trigger",
            )
    _require_zone_with_destination(policy)


def _require_zone_with_destination(policy: Policy) -> None:
    is_zone = isinstance(policy.trigger, NoTradeZone)
    if is_zone and policy.destination is not Destination.ZONE:
        destination = policy.destination.value
        raise ConfigError(
            f"policy.destination: {destination}, but the trigger is a zone",
            'write destination = "zone"',
        )
    if policy.destination is Destination.ZONE and not is_zone:
        raise ConfigError(
            "policy.destination: zone, but the trigger is not a zone",
            'use trigger = { kind = "zone", … }, or "target"',
        )
