"""Execution style of the config: its checks, its build and its text."""

from __future__ import annotations

from fractions import Fraction

from agent.config.schema import Config
from agent.config.tables.pace import (
    EXAMPLE_BY_KEY,
    MAX_DURATION_S,
    MAX_LIMIT_BPS,
    MAX_SIZE_JITTER_BPS,
    MAX_TIME_JITTER_BPS,
    MIN_DURATION_S,
    STYLE_KEYS,
    ZONE_KEYWORD,
)
from agent.config.tables.triggers import is_zone
from agent.model import (
    ExecutionPace,
    ExecutionStyle,
)
from agent.units import format_bps, format_duration


def require_valid_pace(config: Config) -> None:
    """Raise ValueError naming field and remedy if the execution style cannot be executed."""
    execution_table = config.execution
    missing_keys = [
        key
        for key in STYLE_KEYS[execution_table.style]
        if key not in execution_table.model_fields_set
    ]
    if missing_keys:
        raise ValueError(
            f"execution.{missing_keys[0]}: missing; style = {execution_table.style!r} needs it, for example"
            f" {EXAMPLE_BY_KEY[missing_keys[0]]}"
        )
    for key in ("interval", "recovery", "over", "patience"):
        seconds = getattr(execution_table, key)
        if seconds is not None and not MIN_DURATION_S <= seconds <= MAX_DURATION_S:
            raise ValueError(
                f"execution.{key}: {seconds} s is not between {MIN_DURATION_S}s and 28d; write for"
                f" example {EXAMPLE_BY_KEY[key]}"
            )
    for key, max_jitter_bps in (
        ("size_jitter", MAX_SIZE_JITTER_BPS),
        ("time_jitter", MAX_TIME_JITTER_BPS),
    ):
        if (getattr(execution_table, key) or 0) > max_jitter_bps:
            raise ValueError(
                f"execution.{key}: more than {max_jitter_bps // 100} % would produce empty slices; write for"
                f" example {EXAMPLE_BY_KEY[key]}"
            )
    if (
        execution_table.over is not None
        and execution_table.max_rounds is not None
        and execution_table.over < execution_table.max_rounds * MIN_DURATION_S
    ):
        raise ValueError(
            f"execution.over: too short for {execution_table.max_rounds} slices; write at least"
            f" {execution_table.max_rounds * MIN_DURATION_S}s"
        )
    if execution_table.limit is not None and abs(execution_table.limit) > MAX_LIMIT_BPS:
        raise ValueError(
            f"execution.limit: more than {MAX_LIMIT_BPS // 100} % off arrival prices; write for"
            f" example {EXAMPLE_BY_KEY['limit']}"
        )
    if execution_table.waiting_cost == ZONE_KEYWORD and not is_zone(config.policy.trigger):
        raise ValueError(
            'execution.waiting_cost: "zone" requires a zone trigger; write a cost per hour, such'
            ' as "0.5bps"'
        )


def build_pace(config: Config) -> ExecutionPace:
    """Build the pace of gradual execution."""
    execution_table = config.execution
    waiting_cost = execution_table.waiting_cost
    return ExecutionPace(
        style=ExecutionStyle(execution_table.style),
        max_rounds=execution_table.max_rounds or 1,
        interval_s=execution_table.interval or 0,
        twap_duration_s=execution_table.over or 0,
        recovery_s=execution_table.recovery or 0,
        size_jitter_bps=execution_table.size_jitter or 0,
        time_jitter_bps=execution_table.time_jitter or 0,
        max_loss_bps=execution_table.budget,
        waiting_bps_hour=waiting_cost if isinstance(waiting_cost, Fraction) else None,
        limit_bps=execution_table.limit or 0,
        patience_s=execution_table.patience or 0,
    )


def pace_text(config: Config) -> str:
    """Return the execution style and its keys as text."""
    execution_table = config.execution
    style_values = {key: getattr(execution_table, key) for key in STYLE_KEYS[execution_table.style]}
    key_texts = [f"{key} {_value_text(key, value)}" for key, value in style_values.items()]
    return ", ".join([execution_table.style, *key_texts])


def _value_text(key: str, style_value: object) -> str:
    if style_value is None:
        return "off"
    if key in ("interval", "recovery", "over", "patience") and isinstance(style_value, int):
        return format_duration(style_value)
    if isinstance(style_value, int) and key != "max_rounds":
        return format_bps(style_value)
    if isinstance(style_value, Fraction):
        return f"{float(style_value):g} bps per hour"
    return str(style_value)
