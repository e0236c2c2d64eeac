"""Backtests from Python: frames and numbers in place of files and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from agent.app.research.backtests import (
    DESTINATION_BY_NAME,
    implied_numeraire,
    require_priced_gas,
    simulate_checked,
)
from agent.backtest.data import PriceTable
from agent.backtest.settings import BacktestSpec, OwnerTransfer, SimulationSettings, make_spec
from agent.backtest.simulate import Progress
from agent.config.networks import NETWORKS
from agent.config.networks.network import Network
from agent.config.tables.fields import parse_choice
from agent.errors import ConfigError
from agent.model import Destination, NoTradeZone, Signal, Trigger
from agent.policy.triggers.validation import validate_policy
from agent.research.prices import Moment, between, read_prices, time_s
from agent.research.results import Backtest
from agent.research.signals import FunctionRunner, FunctionSignal
from agent.research.signals import signal as signal_of
from agent.research.triggers import tracking
from agent.units import BPS, PIPS

Number = int | float | Decimal | Fraction | str
USUAL_COST = 0.001
USUAL_DEPTH = 10**9
_SHARE_TOLERANCE = Fraction(1, 10**6)
_ARGUMENT_BY_OPTION = {
    "--market cost": "cost",
    "--market depth": "depth",
    "--market gas": "network",
    "--market data-fee": "network",
    "--market latency": "latency",
    "--market pool": "pool_kind",
    "--target": "targets",
    "--prices": "prices",
    "--native": "native",
    "--numeraire": "numeraire",
    "--value": "value",
    "--flow": "flows",
    "--destination": "destination",
    "policy.destination": "destination",
    "policy.trigger": "trigger",
}


def backtest(  # noqa: PLR0913  each argument is one thing that a reader sets by name
    prices: object,
    targets: Mapping[str, Number],
    trigger: Trigger | None = None,
    *,
    signal: Signal | FunctionSignal | None = None,
    value: Number = 10_000,
    cost: Number = USUAL_COST,
    network: str | None = None,
    flows: Mapping[Moment, Number] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    destination: str = "target",
    numeraire: str = "",
    native: str = "",
    depth: Number = USUAL_DEPTH,
    latency: int = 0,
    progress: Progress | None = None,
) -> Backtest:
    """Simulate a portfolio over prices, by the same steps as the live agent.

    `prices` is a frame of polars or pandas, wide (a column of times and one for each symbol) or long
    (time, symbol, close), or the path of a file. `targets` are shares by symbol. `trigger` is
    `band`, `every` or `tracking`, which is the default. `signal` is a function that chooses the
    weights at each bar, or a `signal(…)` that says when; `targets` are the first ones then, of all
    assets that it may choose. `value` and `flows` (deposits above zero,
    withdrawals below, by time) are in the numeraire, the first target without prices, or USD.
    `cost` is the fee of every pool as a share, `depth` one side of a pool. `network`, such as
    "base", adds its usual gas price and data fee, which `native` (ETH, WETH or the one named) pays.
    `start` and `end` limit the bars. Raises ConfigError naming the argument.

    >>> import polars
    >>> from agent import research
    >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
    >>> research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    Backtest(2024-01-01 to 2024-01-03, +12.78% (held +12.50%), 1 trades, 11,278.11 USD)
    """
    try:
        table = between(read_prices(prices), start, end)
        spec = _spec(
            table,
            targets,
            trigger,
            destination,
            numeraire,
            native or _native(network, targets, table),
        )
        settings = SimulationSettings(
            depth=_amount(depth, "depth"),
            fee_pips=round(_amount(cost, "cost") * PIPS),
            start_value=_amount(value, "value"),
            latency_bars=latency,
            flows=tuple(
                OwnerTransfer(time_s(moment, "flows"), _amount(amount, "flows"))
                for moment, amount in (flows or {}).items()
            ),
        )
        settings = _with_fees(settings, network)
        require_priced_gas(settings, spec, table)
        function_signal = _function_signal(signal)
        if function_signal is None:
            return Backtest(simulate_checked(spec, table, settings, progress))
        allocator = function_signal.allocator(table.interval_s)
        spec = replace(spec, portfolio=replace(spec.portfolio, allocator=allocator))
        runner = FunctionRunner(function_signal.function)
        return Backtest(simulate_checked(spec, table, settings, progress, signals=runner))
    except ConfigError as error:
        raise _by_argument(error) from None


def compare(
    prices: object, targets: Mapping[str, Number], triggers: Mapping[str, Trigger], **arguments: Any
) -> dict[str, Backtest]:
    """Return the backtest of each trigger, by its name; `arguments` as those of `backtest`.

    >>> import polars
    >>> from agent import research
    >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
    >>> triggers = {"band": research.band(0.1), "weekly": research.every("7d")}
    >>> results = research.compare(prices, {"BTC": 0.5, "USD": 0.5}, triggers)
    >>> {name: result.summary.trades for name, result in results.items()}
    {'band': 1, 'weekly': 0}
    """
    table = read_prices(prices)
    return {
        name: backtest(table, targets, trigger, **arguments) for name, trigger in triggers.items()
    }


def _spec(
    table: PriceTable,
    targets: Mapping[str, Number],
    trigger: Trigger | None,
    destination: str,
    numeraire: str,
    native: str,
) -> BacktestSpec:
    trigger = trigger or tracking()
    chosen_destination = parse_choice(destination, "destination", DESTINATION_BY_NAME)
    is_tracking = isinstance(trigger, NoTradeZone)
    target_bps = _target_bps(targets)
    missing_symbols = [symbol for symbol in target_bps if symbol not in table.symbols]
    numeraire = numeraire or implied_numeraire(missing_symbols)
    if unknown_symbols := [
        symbol for symbol in target_bps if symbol not in (*table.symbols, numeraire)
    ]:
        raise ConfigError(
            f"targets: {unknown_symbols[0]} has no prices",
            f"the prices have {', '.join(table.symbols)}; rename a column, or name the numeraire",
        )
    if is_tracking and numeraire not in target_bps:
        raise ConfigError(
            f"targets: tracking trades against {numeraire}, which is not among the targets",
            f'add "{numeraire}": 0, or give a band or a schedule',
        )
    spec = make_spec(
        target_bps,
        trigger,
        numeraire,
        destination=Destination.ZONE if is_tracking else chosen_destination,
        interval_s=table.interval_s,
        native=native,
    )
    validate_policy(spec.policy)
    return spec


def _function_signal(signal: Signal | FunctionSignal | None) -> FunctionSignal | None:
    if signal is None or isinstance(signal, FunctionSignal):
        return signal
    return signal_of(signal)


def _target_bps(targets: Mapping[str, Number]) -> dict[str, int]:
    """Return targets in bps that sum to 10,000: the largest remainders are rounded up. Raises
    ConfigError if the shares do not sum to one.
    """
    share_by_symbol = {symbol: _amount(share, "targets") for symbol, share in targets.items()}
    total = sum(share_by_symbol.values(), Fraction(0))
    if abs(total - 1) > _SHARE_TOLERANCE or any(share < 0 for share in share_by_symbol.values()):
        raise ConfigError(
            f"targets: the shares sum to {float(total):g}, not to 1",
            'write shares such as {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}',
        )
    bps_by_symbol = {symbol: int(share * BPS) for symbol, share in share_by_symbol.items()}
    by_remainder = sorted(
        share_by_symbol, key=lambda symbol: bps_by_symbol[symbol] - share_by_symbol[symbol] * BPS
    )
    for symbol in by_remainder[: BPS - sum(bps_by_symbol.values())]:
        bps_by_symbol[symbol] += 1
    return bps_by_symbol


def _amount(number: Number, name: str) -> Fraction:
    """Return a number exactly as it is written. Raises ConfigError naming the argument."""
    try:
        return Fraction(number) if isinstance(number, Fraction) else Fraction(Decimal(str(number)))
    except (InvalidOperation, ValueError, OverflowError):
        raise ConfigError(f"{name}: {number!r} is no number", "write for example 0.3") from None


def _native(network: str | None, targets: Mapping[str, Number], table: PriceTable) -> str:
    """Return the symbol among the targets whose price pays the network's gas. Raises ConfigError if
    there is none.
    """
    if network is None:
        return ""
    symbol = _network(network).native_symbol
    for candidate in (symbol, f"W{symbol}"):
        if candidate in targets and candidate in table.symbols:
            return candidate
    raise ConfigError(
        f"network: gas of {network} is paid in {symbol}, which is not a target with prices",
        f'add a column {symbol} to the prices and "{symbol}": 0 to the targets',
    )


def _network(name: str) -> Network:
    for network in NETWORKS:
        if network.name == name:
            return network
    raise ConfigError(
        f"network: {name!r} is unknown", f"choose from {', '.join(net.name for net in NETWORKS)}"
    )


def _with_fees(settings: SimulationSettings, network: str | None) -> SimulationSettings:
    if network is None:
        return settings
    fees = _network(network).fees
    _, ordinary_gas_price_wei, _ = fees.gas_prices_wei
    return replace(settings, gas_price_wei=ordinary_gas_price_wei, data_fee_wei=fees.data_fee_wei)


def _by_argument(error: ConfigError) -> ConfigError:
    """Return the error with arguments in place of the options of the command line."""
    message = error.message
    remedy = error.remedy
    for option, argument in _ARGUMENT_BY_OPTION.items():
        message = message.replace(option, argument)
        remedy = remedy.replace(option, argument)
    return ConfigError(message, remedy, code=error.code)
