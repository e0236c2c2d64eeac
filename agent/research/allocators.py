"""Allocators of a backtest: the keys of a config's [portfolio.weights] (docs/weights.md), and
functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError

from agent.backtest.data import PriceTable
from agent.backtest.settings import BacktestSpec
from agent.calls import checked_call, described
from agent.config.tables.messages import describe_errors
from agent.config.tables.weights import (
    DEFAULT_MAX_CHANGE_BPS,
    AllocatorTable,
    require_valid_allocator,
)
from agent.config.weights import build_allocator
from agent.errors import ConfigError
from agent.model import (
    PRICE_ONLY_METHODS,
    AllocationMethod,
    AllocationNeeds,
    AllocatorConfig,
    Portfolio,
    Signal,
)
from agent.research.signals import FunctionRunner, FunctionSignal
from agent.research.signals import signal as signal_of
from agent.units import exact_duration, format_bps

AnyAllocator = AllocatorTable | FunctionSignal | Signal
_EXAMPLE_KEYS = 'every="28d", keep="7d", churn="1%", until_chosen="targets", fixed=["USD"]'
_EXAMPLE_SAMPLING = 'window="60d", step="1d", min_history="30d", max_age="2d"'


class Allocator(AllocatorTable):
    """The keys of a config's [portfolio.weights], which are shown as they were written."""

    _written: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    def __repr__(self) -> str:
        keys = [f"{name}={value!r}" for name, value in self._written.items()]
        return f"allocator({', '.join((repr(self.kind), *keys))})"

    def __str__(self) -> str:
        return repr(self)


def _advice(kind: str = AllocationMethod.EQUAL.value) -> str:
    keys = _EXAMPLE_KEYS
    if kind in {method.value for method in PRICE_ONLY_METHODS if method.needs_returns}:
        keys = f"{_EXAMPLE_KEYS}, {_EXAMPLE_SAMPLING}"
    else:
        kind = AllocationMethod.EQUAL.value
    return (
        f'write for example research.allocator("{kind}", {keys}); docs/weights.md has the keys of each'
        " kind"
    )


@checked_call
def allocator(kind: str, **keys: Any) -> Allocator:
    """Choose the weights by an allocator of trimtab, with the keys of a config's
    `[portfolio.weights]`. `kind` is "equal", or one that is chosen by returns: "inverse_volatility",
    "minimum_variance", "risk_parity" or "hrp", with `window`, `step`, `min_history` and `max_age`,
    too. Assets of `fixed` keep their own target; others share the rest, the numeraire too, whose
    constant price needs it there for all kinds but "equal". Raises ConfigError.

    >>> allocator("equal", every="28d", keep="7d", churn="1%", until_chosen="targets", fixed=["USD"])
    allocator('equal', every='28d', keep='7d', churn='1%', until_chosen='targets', fixed=['USD'])
    """
    values = {"kind": kind} | keys
    try:
        table = Allocator.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(describe_errors(error, values, Allocator))
        raise ConfigError(f"allocator: {mistakes}", _advice(kind)) from None
    table._written = keys
    return table


def allocator_of(portfolio: Portfolio, config: AllocatorConfig) -> Allocator:
    """Return the keys of an allocator that needs nothing but prices, without bounds of weights."""
    duration_by_key = {"every": config.every_s, "keep": config.max_overdue_s}
    if config.method.needs is not AllocationNeeds.NOTHING:
        duration_by_key |= {
            "window": config.window_s,
            "step": config.step_s,
            "min_history": config.min_returns * config.step_s,
            "max_age": config.max_age_s,
        }
    fixed_symbols = [
        asset.token.symbol
        for asset in portfolio.assets
        if asset.token.address in config.fixed_tokens
    ]
    return allocator(
        config.method.value,
        **{key: exact_duration(seconds) for key, seconds in duration_by_key.items()},
        churn=format_bps(config.churn_bps).replace(" ", ""),
        until_chosen=config.initial_weights.value,
        **({"fixed": fixed_symbols} if fixed_symbols else {}),
    )


def with_allocator(
    spec: BacktestSpec, table: PriceTable, choice: AllocatorTable | FunctionSignal
) -> BacktestSpec:
    """Return the spec with what chooses the weights of these prices. Raises ConfigError."""
    if isinstance(choice, AllocatorTable):
        return with_table(spec, choice)
    portfolio = spec.portfolio
    if len(portfolio.assets) == 1:
        symbol = portfolio.assets[0].token.symbol
        numeraire = portfolio.numeraire.symbol
        added_symbol = table.symbols[0] if symbol == numeraire else numeraire
        raise ConfigError(
            f"{choice.argument}: {symbol} is the only target, so there is nothing to choose",
            f'add "{added_symbol}": 0 to targets',
        )
    portfolio = replace(portfolio, allocator=choice.allocator(table))
    return replace(
        spec,
        portfolio=portfolio,
        signal_runner=FunctionRunner(choice),
        max_change_bps=DEFAULT_MAX_CHANGE_BPS,
    )


def chosen_allocator(
    signal: Signal | FunctionSignal | None, any_allocator: AnyAllocator | None
) -> AllocatorTable | FunctionSignal | None:
    """Return what chooses the weights, a function as a signal. Raises ConfigError for both arguments,
    or another kind.
    """
    if any_allocator is None:
        return signal if isinstance(signal, FunctionSignal | None) else signal_of(signal)
    if signal is not None:
        raise ConfigError("allocator: signal chooses the weights already", "give one of the two")
    if isinstance(any_allocator, AllocatorTable):
        return any_allocator
    if isinstance(any_allocator, FunctionSignal):
        return replace(any_allocator, argument="allocator")
    maker: object = allocator
    if not callable(any_allocator) or isinstance(any_allocator, type) or any_allocator is maker:
        kind = getattr(any_allocator, "value", any_allocator)
        advice = _advice(kind) if isinstance(kind, str) else _advice()
        raise ConfigError(f"allocator: {described(any_allocator)} is no allocator", advice)
    return replace(signal_of(any_allocator), argument="allocator")


def weighed_cash_notes(portfolio: Portfolio) -> tuple[str, ...]:
    """Return that an allocator weighs the numeraire as any other asset; empty if it does not."""
    config = portfolio.allocator
    numeraire = portfolio.numeraire
    tokens = [asset.token for asset in portfolio.assets]
    if config is None or config.method is not AllocationMethod.EQUAL:
        return ()
    if numeraire not in tokens or numeraire.address in config.fixed_tokens:
        return ()
    return (
        f"allocator: equal gives {numeraire.symbol} the share of each of {len(tokens)} assets;"
        f' fixed=["{numeraire.symbol}"] keeps its target',
    )


def with_table(spec: BacktestSpec, table: AllocatorTable) -> BacktestSpec:
    """Return the spec with the allocator of a table, of which no choice waits for an owner. Raises
    ConfigError if it needs more than prices or does not fit the targets.
    """
    if table.method not in PRICE_ONLY_METHODS:
        raise ConfigError(
            f"allocator: kind {table.kind} needs more than prices",
            f"choose from {', '.join(method.value for method in PRICE_ONLY_METHODS)}",
        )
    portfolio = spec.portfolio
    target_bps_by_symbol = {asset.token.symbol: asset.target_bps for asset in portfolio.assets}
    try:
        require_valid_allocator(table, target_bps_by_symbol, portfolio.numeraire.symbol)
    except ValueError as error:
        message = f"allocator: {str(error).removeprefix('weights.')}"
        raise ConfigError(message, _advice(table.kind)) from None
    unasked = table.model_copy(update={"max_change": None})
    allocator_config = build_allocator(unasked, portfolio, Path(), chain_id=0)
    return replace(
        spec,
        portfolio=replace(portfolio, allocator=allocator_config),
        max_change_bps=table.max_change_bps,
    )
