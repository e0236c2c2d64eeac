"""Arguments of research as what the engines take: a table of prices, a portfolio, its market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypedDict

import numpy as np

from agent.app.research.backtests import (
    fit_destination,
    numeraire_and_unknown,
    require_numeraire_among_assets,
    require_priced_gas,
)
from agent.backtest.data import PriceTable, require_currency
from agent.backtest.settings import BacktestSpec, OwnerTransfer, SimulationSettings, make_spec
from agent.backtest.workers import check_scheduler_address
from agent.calls import described
from agent.config.networks import NETWORKS
from agent.config.networks.network import Network
from agent.config.tables.fields import parse_choice
from agent.config.tables.weights import AllocatorTable
from agent.errors import ConfigError
from agent.model import AnsweredTrigger, Destination, NoTradeZone
from agent.policy.triggers.validation import validate_policy
from agent.price_files.read import symbol_pairs
from agent.research.allocators import weighed_cash_notes, with_allocator
from agent.research.arguments import (
    COSTS_EXAMPLE,
    Number,
    exact_amount,
    member,
)
from agent.research.costs import USUAL_COSTS, Costs
from agent.research.markets import name_markets
from agent.research.prices import FRAME_NAME, Moment, between, read_prices, time_s
from agent.research.signals import FunctionSignal, live_window_s
from agent.research.triggers import AnyTrigger, FunctionTrigger, checked_trigger, tracking
from agent.units import BPS
from agent.weights.asset_classes import is_cash

USUAL_VALUE = 10_000
_SHARE_TOLERANCE = Fraction(1, 10**6)


class MarketArguments(TypedDict, total=False):
    """What a portfolio is worth and what trading costs: arguments of `backtest`, `stress` and `tune`
    alike.
    """

    value: Number
    costs: Costs
    network: str | None
    start: Moment | None
    end: Moment | None
    numeraire: str
    native: str


@dataclass(frozen=True, slots=True)
class ResearchInputs:
    """Checked prices, portfolio and market."""

    table: PriceTable
    spec: BacktestSpec
    settings: SimulationSettings


def read_inputs(
    prices: object,
    targets: Mapping[str, Number],
    trigger: AnyTrigger | None,
    market: MarketArguments,
    *,
    allocator: AllocatorTable | FunctionSignal | None = None,
    destination: str | Destination | None = None,
    flows: Mapping[Moment, Number] | None = None,
) -> ResearchInputs:
    """Check the arguments. Raises ConfigError with the options of the command line."""
    targets = dict(targets.items())
    network = market.get("network")
    table = between(read_prices(prices), market.get("start"), market.get("end"))
    table = name_markets(table, [symbol for symbol in targets if isinstance(symbol, str)])
    place = None if destination is None else member(destination, "destination", Destination)
    spec = _spec(table, targets, trigger, place, market)
    if allocator is not None:
        spec = with_allocator(spec, table, allocator)
    costs = market.get("costs", USUAL_COSTS)
    if not isinstance(costs, Costs):
        raise ConfigError(f"costs: {described(costs)} are no Costs", f"write {COSTS_EXAMPLE}")
    start_value = exact_amount(market.get("value", USUAL_VALUE), "value")
    notes = _unlikely_notes(costs, start_value, spec.portfolio.numeraire.symbol)
    notes += weighed_cash_notes(spec.portfolio)
    if network is None and isinstance(spec.policy.trigger, NoTradeZone):
        notes += (WITHOUT_GAS_NOTE,)
    native = market.get("native")
    if network is not None and native and native not in _native_names(network):
        coin = _native_names(network)[0]
        notes += (
            f"native: gas of {network} is paid in {coin}, and counts at the price of {native}",
        )
    table = replace(table, notes=(*table.notes, *notes))
    settings = replace(
        costs.settings(start_value),
        flows=tuple(
            OwnerTransfer(
                time_s(moment, "flows", table.zone), exact_amount(amount, "flows", moment)
            )
            for moment, amount in ({} if flows is None else flows).items()
        ),
    )
    settings = _with_fees(settings, network)
    require_priced_gas(settings, spec, table)
    return ResearchInputs(table, spec, settings)


WITHOUT_GAS_NOTE = (
    "gas: without network= there is none, and the trigger trades amounts that gas would hold back;"
    ' network="base", for one, counts that of an ordinary day'
)
LIKELY_FEE = Fraction(1, 100)
"""The highest fee of most pools."""
LEAST_LIKELY_CASH = 10
"""What a portfolio is worth at least in a currency, unless its value is meant in another unit."""


def _unlikely_notes(costs: Costs, start_value: Fraction, numeraire: str) -> tuple[str, ...]:
    """Return a note for each figure that is probably meant in another unit."""
    fee = exact_amount(costs.fee, "fee")
    value_text = f"{float(start_value):g} {numeraire}"
    notes = []
    if fee > LIKELY_FEE:
        share = float(fee)
        notes.append(
            f"fee={share:g} is {share * 100:g} % of each swap; {share:g} % is fee={share / 100:g}"
        )
    if exact_amount(costs.depth, "depth") < start_value:
        depth_text = f"{float(exact_amount(costs.depth, 'depth')):g} {numeraire}"
        notes.append(
            f"depth: one side of a pool, {depth_text}, is less than the portfolio of {value_text}"
        )
    if is_cash(numeraire) and start_value < LEAST_LIKELY_CASH:
        notes.append(
            f"value={float(start_value):g}: the whole portfolio is worth {value_text} at the start; value"
            f" is an amount, by default {USUAL_VALUE:,} {numeraire}, and no share"
        )
    return tuple(notes)


MAX_CORES = 1_000
"""More than any machine has."""


def cores_and_scheduler(jobs: object) -> tuple[int, str]:
    """Return the number of cores that `jobs` asks for, 0 for all, or the address of a Dask scheduler.
    Raises ConfigError.
    """
    if getattr(jobs, "asynchronous", False) is True:
        raise ConfigError(
            f"jobs: an asynchronous {described(jobs)} of Dask cannot answer while this call waits",
            "write jobs=Client(…), without asynchronous=True",
        )
    scheduler = getattr(jobs, "scheduler", None)
    address = jobs if isinstance(jobs, str) else getattr(scheduler, "address", None)
    if address == "":
        raise ConfigError(
            "jobs: an empty text is no address of a scheduler", "write jobs=0 for all"
        )
    if isinstance(address, str):
        if address is jobs:
            check_scheduler_address(address)
        return 0, address
    if isinstance(jobs, int | np.integer) and not isinstance(jobs, bool) and 0 <= jobs <= MAX_CORES:
        return int(jobs), ""
    if hasattr(jobs, "scheduler"):
        raise ConfigError(f"jobs: {described(jobs)} of Dask is closed", "open a new one")
    raise ConfigError(
        f"jobs: {described(jobs)} is no number of cores", "write jobs=4, or 0 for all"
    )


def require_one_process(jobs: object) -> None:
    """Raise ConfigError for several jobs: no other process can be given a function."""
    if jobs != 1:
        raise ConfigError(
            f"jobs: {described(jobs)}, but a function is asked in one process", "write jobs=1"
        )


def _spec(
    table: PriceTable,
    targets: Mapping[str, Number],
    trigger: AnyTrigger | None,
    destination: Destination | None,
    market: MarketArguments,
) -> BacktestSpec:
    chosen_trigger = tracking() if trigger is None else checked_trigger(trigger)
    trigger_function = None
    if isinstance(chosen_trigger, FunctionTrigger):
        trigger_function = chosen_trigger.is_due
        chosen_trigger = AnsweredTrigger(
            live_window_s(chosen_trigger.window_s, table.interval_s, "trigger")
        )
    chosen_destination = fit_destination(destination, chosen_trigger)
    target_bps = _target_bps(targets)
    numeraire, unknown_symbols = numeraire_and_unknown(
        table, target_bps, market.get("numeraire", "")
    )
    if unknown_symbols:
        remedy = (
            f"the prices have {', '.join(table.symbols)}; rename a column, or name the numeraire"
        )
        symbol_by_lower_symbol = {symbol.lower(): symbol for symbol in table.symbols}
        if likely_symbol := symbol_by_lower_symbol.get(unknown_symbols[0].lower()):
            remedy = f"did you mean {likely_symbol}? {remedy}"
        elif likely_symbols := tuple(symbol_pairs(table.symbols, unknown_symbols[:1])):
            remedy = f"if {likely_symbols[0]} is its price, name it {unknown_symbols[0]}"
        if table.symbols == (FRAME_NAME,):
            name = f'"{unknown_symbols[0]}"'
            remedy = f"the closes name no symbol; name their column {name}, or add a column symbol with {name}"
        have_text = "has" if len(unknown_symbols) == 1 else "have"
        has_other_cash = any(map(is_cash, unknown_symbols))
        cash_text = f", and {numeraire} is taken for the cash" if has_other_cash else ""
        raise ConfigError(
            f"targets: {', '.join(unknown_symbols)} {have_text} no prices{cash_text}", remedy
        )
    require_currency(table, numeraire, f"name {table.currency} in place of {numeraire}")
    spec = make_spec(
        target_bps,
        chosen_trigger,
        numeraire,
        destination=chosen_destination,
        interval_s=table.interval_s,
        native=_native(market.get("network"), market.get("native", ""), targets, table),
    )
    validate_policy(spec.policy)
    if isinstance(chosen_trigger, NoTradeZone):
        require_numeraire_among_assets(spec.portfolio)
    return replace(spec, trigger_function=trigger_function)


def _target_bps(targets: Mapping[str, Number]) -> dict[str, int]:
    """Return targets in bps that sum to 10,000. Raises ConfigError if the shares do not sum to one."""
    for symbol in targets:
        if not isinstance(symbol, str) or symbol.strip() != symbol or not symbol:
            raise ConfigError(
                f"targets: {described(symbol)} is no symbol",
                'write for example {"BTC": 0.6, "USD": 0.4}',
            )
    share_by_symbol = {
        symbol: exact_amount(share, "targets", symbol) for symbol, share in targets.items()
    }
    for symbol, share in share_by_symbol.items():
        if share < 0:
            raise ConfigError(
                f"targets: {symbol} is {float(share):g}, below 0",
                "write shares from 0 to 1; a backtest neither borrows nor sells short",
            )
    total = sum(share_by_symbol.values(), Fraction(0))
    if abs(total - 1) > _SHARE_TOLERANCE:
        remedy = 'write shares such as {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}'
        if total:
            scaled = _whole_bps(
                {symbol: share / total for symbol, share in share_by_symbol.items()}
            )
            scaled_text = ", ".join(f'"{symbol}": {bps / BPS:g}' for symbol, bps in scaled.items())
            remedy = f"divide each by {float(total):g}: write {{{scaled_text}}}"
            if total < 1:
                cash = next(filter(is_cash, share_by_symbol), "USD")
                rest = 1 - total + share_by_symbol.get(cash, Fraction(0))
                remedy = f'if the rest is cash, write "{cash}": {float(rest):g}; else {remedy}'
        raise ConfigError(f"targets: the shares sum to {float(total):g}, not to 1", remedy)
    bps_by_symbol = _whole_bps(share_by_symbol)
    for symbol, share in share_by_symbol.items():
        if share and not bps_by_symbol[symbol]:
            raise ConfigError(
                f"targets: {symbol} is {float(share):g}, finer than 0.0001",
                "write 0, or 0.0001 and more",
            )
    return bps_by_symbol


def _whole_bps(share_by_symbol: Mapping[str, Fraction]) -> dict[str, int]:
    """Return shares that sum to one in bps: the largest remainders are rounded up."""
    bps_by_symbol = {symbol: int(share * BPS) for symbol, share in share_by_symbol.items()}
    by_remainder = sorted(
        share_by_symbol, key=lambda symbol: bps_by_symbol[symbol] - share_by_symbol[symbol] * BPS
    )
    for symbol in by_remainder[: BPS - sum(bps_by_symbol.values())]:
        bps_by_symbol[symbol] += 1
    return bps_by_symbol


def _native(
    network: str | None, native: str | None, targets: Mapping[str, Number], table: PriceTable
) -> str:
    """Return the symbol among the targets whose price pays the network's gas: `native`, else the
    network's coin. Raises ConfigError if there is none, or `native` is another target than the coin.
    """
    if network is None:
        return native or ""
    names = _native_names(network)
    priced_targets = [name for name in names if name in targets and name in table.symbols]
    if native and priced_targets and native not in priced_targets:
        raise ConfigError(
            f"native: gas of {network} is paid in {priced_targets[0]}, not in {native}", "omit it"
        )
    if native or priced_targets:
        return native or priced_targets[0]
    symbol = names[0]
    priced_symbol = next((name for name in names if name in table.symbols), "")
    remedy = f'add "{priced_symbol or symbol}": 0 to the targets'
    if not priced_symbol:
        remedy = f"add a column {symbol} to the prices, and {remedy}"
    raise ConfigError(
        f"network: gas of {network} is paid in {symbol}, which is not a target with prices", remedy
    )


def _native_names(network: str) -> tuple[str, str]:
    """Return the symbol of a network's coin, and that of the wrapped one."""
    symbol = _network(network).native_symbol
    return symbol, f"W{symbol}"


def _network(name: str) -> Network:
    return parse_choice(name, "network", {network.name: network for network in NETWORKS})


def _with_fees(settings: SimulationSettings, network: str | None) -> SimulationSettings:
    if network is None:
        return settings
    fees = _network(network).fees
    _, ordinary_gas_price_wei, _ = fees.gas_prices_wei
    return replace(settings, gas_price_wei=ordinary_gas_price_wei, data_fee_wei=fees.data_fee_wei)
