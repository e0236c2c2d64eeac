"""[signals.NAME]: user-defined signals, by the name of their entry point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from agent.config.fields import ConfigTable, Duration
from agent.config.weights import WeightsTable
from agent.model.weights import SignalMarket, SignalSettings

if TYPE_CHECKING:
    from agent.config.schema import Config

LONGEST_TIMEOUT_S = 60
MOST_OPTIONS = 50


class SignalTable(ConfigTable):
    """One signal: the time limit of an answer, and options that are passed as text."""

    timeout: Duration
    options: dict[str, str] = Field(default_factory=dict, max_length=MOST_OPTIONS)

    @field_validator("timeout")
    @classmethod
    def _sane(cls, timeout: int) -> int:
        if not 0 < timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(f"{timeout}s; write above 0s and at most {LONGEST_TIMEOUT_S}s")
        return timeout

    @field_validator("options", mode="before")
    @classmethod
    def _texts(cls, options: object) -> object:
        if not isinstance(options, dict):
            return options
        return {
            key: str(value) if isinstance(value, int | float) else value
            for key, value in options.items()
        }


def require_signals(config: Config) -> None:
    """Raise ValueError naming the field if a signal is missing or unused, or if its futures weights
    would have no band.
    """
    used = dict(_used(config))
    for field, name in used.items():
        if name not in config.signals:
            raise ValueError(
                f"{field}: no [signals.{name}]; add it with a timeout, or correct the name"
            )
    for name in config.signals:
        if name not in used.values():
            raise ValueError(
                f"signals.{name}: unused; name it in an allocator of kind 'signal', or remove it"
            )
    futures = config.futures
    if used and futures is not None and "leverage_band" not in futures.model_fields_set:
        raise ValueError(
            "futures.leverage_band: missing; a signal changes the total notional: write for example"
            ' "20%", or "off"'
        )


def _used(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (field, name) of each signal that an allocator names."""
    tables = {"portfolio.weights.signal": config.portfolio.weights}
    for strategy in config.strategies:
        if isinstance(strategy.allocator, WeightsTable):
            tables[f"strategies.{strategy.name}.allocator.signal"] = strategy.allocator
    for field, table in tables.items():
        if table is not None and table.signal is not None:
            yield field, table.signal


def build_signals(config: Config) -> Mapping[str, SignalSettings]:
    """Build the settings of each signal by name."""
    markets = (
        ()
        if config.futures is None
        else tuple(
            SignalMarket(market.symbol, market.name, market.asset or "")
            for market in config.futures.markets
        )
    )
    return {
        name: SignalSettings(name, table.timeout, tuple(sorted(table.options.items())), markets)
        for name, table in config.signals.items()
    }
