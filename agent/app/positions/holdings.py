"""Holdings by liquidity position and by strategy: report, adopt and forget positions; reconcile the
books of strategies and assign transfers to them. Commands and controls write the same changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.amm.lp import own_changes, positions
from agent.amm.lp.venues import LpVenue
from agent.app import describe
from agent.app.agent import Agent
from agent.app.documents import fill
from agent.app.documents.decisions import bps_text, netting_document
from agent.app.documents.positions import LiquidityDocument, PositionDocument, strategy_document
from agent.chain.pools.own_positions import (
    UnsolicitedPositions,
    find_manager_token,
    find_unsolicited_positions,
    foreign_position_texts,
)
from agent.chain.pools.positions import resolve_positions
from agent.config.build import factory_by_venue
from agent.config.load import load_config
from agent.config.loaded import ConfigSource
from agent.config.schema import Config
from agent.config.tables.fields import parse_address
from agent.config.venues import foreign_position_managers, position_manager
from agent.errors import ConfigError, ErrorCode, Refused
from agent.execution.approvals import settled_step_input
from agent.execution.step_memory import read_memory
from agent.layers.liquidity.policy import valuation
from agent.layers.liquidity.policy.target_reports import TargetReport, target_reports
from agent.layers.liquidity.policy.valuation import PositionReport
from agent.layers.liquidity.settings import has_exits
from agent.layers.liquidity.state import LiquidityState
from agent.layers.strategies.policy import netting
from agent.layers.strategies.policy.accounting import REMEDY
from agent.layers.strategies.policy.faults import strategies_fault
from agent.layers.strategies.policy.inputs import add_books
from agent.layers.strategies.state import CapitalSplit, StrategiesState, StrategyBooks
from agent.layers.strategies.store import StrategyStore
from agent.model import (
    ConfirmedPosition,
    ControlArguments,
    ControlCode,
    LpMissingPosition,
    LpPositionChange,
    StepInput,
    position_name,
)
from agent.policy.drift import compute_drifts, portfolio_total
from agent.reference import reference_prices
from agent.store.store import Store
from agent.units import BPS, Value, value_text

if TYPE_CHECKING:
    from agent.app.documents.positions import (
        AdoptedPositionDocument,
        RoutedTransfersDocument,
        StrategiesDocument,
    )


RESPLIT_TOLERANCE_BPS = 500
"""Largest difference of an amount of a strategy between the shown and the written ledgers."""
ANY_AMOUNT_BPS = 10_000
"""Tolerance of amounts that only tell what a position is worth now."""
_MAX_TOKEN_ID_DIGITS = 77
"""Digits of which every number fits 256 bits."""


@dataclass(frozen=True, slots=True)
class HoldingsChange:
    """A change of what counts as whose, before `write` writes it in one transaction. Nothing is
    sent.

    `document` is that of the command, `changes` and `warnings` say what it does, `amounts` are
    (name, base units, tolerance in bps).
    """

    document: Any
    changes: tuple[str, ...]
    write: Callable[[], None]
    amounts: tuple[tuple[str, int, int], ...] = ()
    warnings: tuple[str, ...] = ()


def change_by_control(agent: Agent, arguments: ControlArguments) -> HoldingsChange:
    """Return the change that a control with this one argument requests. Raises the errors of its
    command.
    """
    ((option_name, option_value),) = arguments
    match option_name:
        case "apply":
            return reconciliation_change(agent)
        case "deposits-to":
            return deposit_routing_change(agent.context.store, agent.context.config, option_value)
        case "take":
            return adoption_change(agent, option_value)
    return _forgetting_by_control(agent, option_value)


@dataclass(frozen=True, slots=True)
class LimitedSum:
    """Sum over all positions: value, share of the portfolio and limit. None if unknown or off."""

    value: Value | None
    share: Fraction | None
    limit_bps: int | None

    @property
    def is_within_limit(self) -> bool | None:
        """True if the sum is within its limit; None if unknown."""
        if self.limit_bps is None:
            return True
        return None if self.share is None else self.share * BPS <= self.limit_bps


@dataclass(frozen=True, slots=True)
class LiquidityReport:
    """Report of all positions. `portfolio_value` is None while something in the portfolio is
    unknown; then `targets` is empty too.

    `unreadable` names positions that could not be read, with the reason.
    """

    step_input: StepInput
    position_reports: tuple[PositionReport, ...]
    unreadable: tuple[str, ...]
    warnings: tuple[str, ...]
    unsolicited_positions: UnsolicitedPositions
    portfolio_value: Value | None
    expected_loss: LimitedSum
    weight: LimitedSum
    targets: tuple[TargetReport, ...]
    forgettable: tuple[str, ...]
    """Names of the positions that `forget_position` accepts."""


def read_liquidity_report(agent: Agent) -> LiquidityReport:
    """Read the wallet's positions, confirmed or not; changes none."""
    step = agent.step_input()
    prices = reference_prices(step).price_by_token
    block_ref = {"blockHash": step.snapshot.head.hash, "requireCanonical": True}
    manager_address = position_manager(agent.context.config)
    unsolicited_positions = find_unsolicited_positions(
        agent.context.transport,
        step.snapshot.owner,
        manager_address,
        agent.context.pools,
        step.portfolio.positions,
        block_ref,
    )
    foreign_texts = foreign_position_texts(
        agent.context.transport,
        step.snapshot.owner,
        foreign_position_managers(agent.context.config),
        block_ref,
    )
    try:
        portfolio_value: Value | None = portfolio_total(step, compute_drifts(step, prices))
        expected_loss: Value | None = valuation.expected_loss(step.snapshot, step.portfolio, prices)
        positions_value: Value | None = valuation.total_value(step.snapshot, step.portfolio, prices)
        lp_target_reports = target_reports(step, prices)
    except Refused:
        portfolio_value = None
        expected_loss = None
        positions_value = None
        lp_target_reports = ()
    limits = step.limits
    position_changes = agent.context.store.positions.changes()
    own_position_names = [
        confirmed_position.name
        for confirmed_position in step.portfolio.positions
        if own_changes.is_position_open(position_changes, confirmed_position.name)
    ]
    return LiquidityReport(
        step_input=step,
        position_reports=valuation.position_reports(step.snapshot, step.portfolio, prices),
        unreadable=valuation.faults(step),
        warnings=(*valuation.position_warnings(step.snapshot, step.portfolio), *foreign_texts),
        unsolicited_positions=unsolicited_positions,
        portfolio_value=portfolio_value,
        expected_loss=_limited_sum(expected_loss, portfolio_value, limits.impermanent_loss_bps),
        weight=_limited_sum(positions_value, portfolio_value, limits.lp_max_weight_bps),
        targets=lp_target_reports,
        forgettable=(*own_position_names, *step.layer(LiquidityState).undecided_positions),
    )


def _limited_sum(
    summed_value: Value | None, portfolio_value: Value | None, limit_bps: int | None
) -> LimitedSum:
    share = summed_value / portfolio_value if summed_value is not None and portfolio_value else None
    return LimitedSum(summed_value, share, limit_bps)


def adopt_position(agent: Agent, token_id_text: str) -> AdoptedPositionDocument:
    """Adopt a V3 position by its token id. It then counts like one opened by the agent. Raises
    ConfigError if it is not the wallet's, is empty, or already counts.
    """
    change = adoption_change(agent, token_id_text)
    change.write()
    position_document: AdoptedPositionDocument = change.document
    return position_document


def adoption_change(agent: Agent, token_id_text: str) -> HoldingsChange:
    """Return the change that adopts a V3 position; its principal now is booked as its cost. Raises
    the errors of `adopt_position`.
    """
    if not _is_token_id(token_id_text):
        raise ConfigError(
            f"position: {token_id_text!r} is not the number of a V3 position",
            "trimtab lp lists them; V2 pairs are added under portfolio.positions",
        )
    context = agent.context
    store = agent.context.store
    manager_address = position_manager(context.config)
    lp_table = context.config.lp

    if manager_address is None or lp_table is None:
        raise ConfigError(
            "position: the config has no position_manager in [[venues]], or no [lp]",
            "add both sections",
        )
    name = position_name(LpVenue.V3, manager_address, int(token_id_text))
    step = agent.step_input()
    if name in {confirmed_position.name for confirmed_position in step.portfolio.positions}:
        raise ConfigError(
            f"position {name} is already counted", "see trimtab lp", code=ErrorCode.EXISTS
        )
    head = step.snapshot.head
    block_ref = {"blockHash": head.hash, "requireCanonical": True}
    position = find_manager_token(
        context.transport, step.snapshot.owner, manager_address, int(token_id_text), block_ref
    )
    if position is None or position.liquidity == 0:
        raise ConfigError(
            f"position {name}: the wallet holds no such position with liquidity",
            "see trimtab lp",
            code=ErrorCode.UNKNOWN,
        )
    unresolved_position = ConfirmedPosition(
        LpVenue.V3.value,
        manager_address,
        int(token_id_text),
        *position.tokens,
        (0, 0),
        None,
        lp_table.volatility,
        lp_table.horizon,
    )
    asset_addresses = {asset.token.address for asset in step.portfolio.assets}
    if not set(position.tokens) <= asset_addresses:
        raise ConfigError(
            f"position {name} holds tokens outside the portfolio",
            "add them to portfolio.assets, or leave the position uncounted",
        )
    (resolved_position,) = resolve_positions(
        context.transport, (unresolved_position,), factory_by_venue(context.config)
    )
    if resolved_position.range is None:
        raise ConfigError(
            f"position {name} does not exist", "see trimtab lp", code=ErrorCode.UNKNOWN
        )
    position_range = resolved_position.range
    position_change = LpPositionChange(
        venue=LpVenue.V3.value,
        contract=manager_address,
        token_id=int(token_id_text),
        pool=position_range.pool,
        token0=position.tokens[0],
        token1=position.tokens[1],
        fee_pips=position_range.fee_pips,
        ticks=(position_range.tick_lower, position_range.tick_upper),
        liquidity_delta=position.liquidity,
        liquidity_before=0,
        amounts_raw=(0, 0),
        block_number=head.number,
    )
    # read with the position in scope, before anything is written: the next snapshot ends it
    chain_reader = context.position_reader.reader
    chain_reader.scope = replace(
        chain_reader.scope, positions=(*chain_reader.scope.positions, resolved_position)
    )
    principal_raw = next(
        (
            positions.principal(counted_position)
            for counted_position in chain_reader.snapshot().positions
            if counted_position.name == name
        ),
        (0, 0),
    )
    return HoldingsChange(
        {"position": name, "taken": True, "amounts_raw": [str(raw) for raw in principal_raw]},
        (f"{name} counts from now on: liquidity {position.liquidity}",),
        lambda: store.positions.record_decision(
            name,
            own_changes.imported_mint(position_change, principal_raw),
            context.clock.now_s(),
        ),
        _named_amounts("", dict(zip(position.tokens, principal_raw, strict=True)), ANY_AMOUNT_BPS),
    )


def _is_token_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_TOKEN_ID_DIGITS


def _named_amounts(
    prefix: str, raw_by_token: Mapping[str, int], tolerance_bps: int
) -> tuple[tuple[str, int, int], ...]:
    return tuple(
        (f"{prefix}{token}", raw, tolerance_bps) for token, raw in raw_by_token.items() if raw
    )


def forget_position(config: ConfigSource, number_or_pair: str) -> AdoptedPositionDocument:
    """Stop counting a position: `number_or_pair` is the number of a V3 position, or a pair's
    address. Raises ConfigError if the store does not know it, Refused while a transaction of the
    agent changes it.
    """
    position_document: AdoptedPositionDocument = _write_offline(
        config, forgetting_change, number_or_pair
    )
    return position_document


def _write_offline(
    config: ConfigSource, find_change: Callable[[Store, Config, str], HoldingsChange], name: str
) -> Any:
    """Write the change of this name without the chain, and return its document."""
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config) as (store, _):
        change = find_change(store, loaded_config.config, name)
        change.write()
    return change.document


def forgetting_change(store: Store, config: Config, number_or_pair: str) -> HoldingsChange:
    """Return the change that forgets a position. Raises the errors of `forget_position`."""
    if _is_token_id(number_or_pair):
        name = position_name(LpVenue.V3, position_manager(config) or "", int(number_or_pair))
    else:
        name = position_name(LpVenue.V2, parse_address(number_or_pair, "position"), None)
    now_s = int(time.time())
    undecided_names = store.budgets.history(now_s).layer(LiquidityState).undecided_positions
    if name not in undecided_names and not own_changes.is_position_open(
        store.positions.changes(), name
    ):
        raise ConfigError(
            f"position {name} is not a position that the agent opened or adopted",
            "see trimtab lp; remove a position of the config from portfolio.positions",
            code=ErrorCode.UNKNOWN,
        )
    store.positions.require_settled(name)
    return HoldingsChange(
        {"position": name, "taken": False},
        (f"{name} counts no longer",),
        lambda: store.positions.record_decision(name, None, now_s),
        warnings=("What the wallet holds of it is in no total, and no exit withdraws it.",),
    )


def _forgetting_by_control(agent: Agent, number_or_pair: str) -> HoldingsChange:
    """Return the change that forgets a position by a control. Raises Refused too if exits or a
    target would no longer reach what the wallet holds of it.
    """
    change = forgetting_change(agent.context.store, agent.context.config, number_or_pair)
    name = change.document["position"]
    step = agent.step_input()
    held_position = next(
        (
            position
            for position in step.snapshot.positions
            if position.name == name and not isinstance(position, LpMissingPosition)
        ),
        None,
    )
    would_be_provided_again = name in step.layer(LiquidityState).undecided_positions
    loses_exits = False
    lost_raw_by_token: dict[str, int] = {}
    if held_position is not None:
        token_pair = held_position.token0, held_position.token1
        would_be_provided_again = token_pair in {
            (target.token0, target.token1) for target in step.portfolio.lp_targets
        }
        loses_exits = has_exits(agent.context.config)
        principal_raw = positions.principal(held_position)
        lost_raw_by_token = {
            token: -raw for token, raw in zip(token_pair, principal_raw, strict=True)
        }
    if would_be_provided_again or loses_exits:
        reason = (
            "its target would provide again"
            if would_be_provided_again
            else "exits would not withdraw it"
        )
        raise Refused(
            f"forget: the wallet holds {name}, and {reason}",
            remedy=f"forget it at the terminal: trimtab lp forget {number_or_pair}",
            code=ControlCode.WIDENS,
        )
    return replace(change, amounts=_named_amounts("", lost_raw_by_token, ANY_AMOUNT_BPS))


NO_STRATEGIES_FAULT = "there are no [[strategies]] in the config"


def strategies(agent: Agent) -> StrategiesDocument:
    """Return capital, share, unit value, return, Sharpe ratio and state of each strategy at the
    newest block; changes no book. Raises ConfigError without strategies.
    """
    return _strategies_document(agent.step_input(), agent.context.store)


def reconcile_strategies(
    agent: Agent, confirm: Callable[[StrategiesDocument], bool]
) -> StrategiesDocument:
    """Reconcile strategy books with wallet and config after `confirm` has confirmed the result.

    Closed strategies are settled and new ones opened, at reference prices and in kind. Unexplained
    holdings are shared by capital. Raises ConfigError if there is nothing to do, Refused while a
    token is in quarantine, if the books cannot be reconciled, or if another process changed them in
    the meantime.
    """
    change = reconciliation_change(agent)
    strategies_document: StrategiesDocument = change.document
    if confirm(strategies_document):
        change.write()
    return strategies_document


def reconciliation_change(agent: Agent) -> HoldingsChange:
    """Return the change that reconciles the books of strategies. Raises the errors of
    `reconcile_strategies`.
    """
    context = agent.context
    readers = agent.context.readers
    step = settled_step_input(readers, context.store, readers.reader.snapshot())
    books_before = step.layer(StrategiesState).books
    if not step.divides_wallet or books_before is None:
        raise ConfigError(f"strategies: {NO_STRATEGIES_FAULT}", "add them, see docs/strategies.md")
    if not books_before.fault:
        raise ConfigError(
            "strategies: books, wallet and config already agree",
            "see trimtab strategies",
            code=ControlCode.UNCHANGED,
        )
    if step.targets.quarantined_tokens:
        raise Refused(
            "a token is in quarantine",
            remedy="wait until the quarantine ends; the token's value is unknown until then",
        )
    step_memory = read_memory(step, context.store)
    reconciled_step = add_books(step_memory, step, owner_agrees=True)
    books = reconciled_step.layer(StrategiesState).books
    if books is None or books.fault:
        raise Refused(f"the books cannot be reconciled: {'' if books is None else books.fault}")
    strategies_document = _strategies_document(reconciled_step, context.store)
    strategies_document["why"] = books_before.fault
    strategies_document["applied"] = False
    total_raw_by_token: dict[str, int] = {}
    for book in books.strategy_books:
        for token, raw in book.holdings:
            total_raw_by_token[token] = total_raw_by_token.get(token, 0) + raw

    def write() -> None:
        strategy_store = context.store.layer_repository(StrategyStore)
        closed_names = [
            state.name
            for state in strategy_store.ledger().states
            if state.name not in books.by_name
        ]
        if not strategy_store.record_bookings(
            books.unstored_bookings, books.record_version, closed_names
        ):
            raise Refused(
                "another process changed the books in the meantime",
                remedy="look at them again, then repeat this",
                code=ControlCode.PLAN_CHANGED,
            )
        strategies_document["applied"] = True

    strategy_amounts = [
        strategy_amount
        for book in books.strategy_books
        for strategy_amount in _named_amounts(
            f"{book.name} ", dict(book.holdings), RESPLIT_TOLERANCE_BPS
        )
    ]
    return HoldingsChange(
        strategies_document,
        (books_before.fault.removesuffix(f"; {REMEDY}"),),
        write,
        (*strategy_amounts, *_named_amounts("in all ", total_raw_by_token, 0)),
    )


def route_transfers(config: ConfigSource, strategy_or_all: str) -> RoutedTransfersDocument:
    """Assign later deposits and withdrawals to a strategy; "all" shares them by capital.

    Raises ConfigError for an unknown name, or a strategy that is not open yet.
    """
    routing_document: RoutedTransfersDocument = _write_offline(
        config, deposit_routing_change, strategy_or_all
    )
    return routing_document


def deposit_routing_change(store: Store, config: Config, strategy_or_all: str) -> HoldingsChange:
    """Return the change that assigns transfers. Raises the errors of `route_transfers`."""
    strategy_names = [strategy.name for strategy in config.strategies]
    if strategy_or_all != "all" and strategy_or_all not in strategy_names:
        raise ConfigError(
            f"strategies: {strategy_or_all!r} is unknown",
            f"choose from {', '.join([*strategy_names, 'all'])}",
            code=ErrorCode.UNKNOWN,
        )
    strategy_store = store.layer_repository(StrategyStore)
    ledger = strategy_store.ledger()
    receiver_name = None if strategy_or_all == "all" else strategy_or_all
    open_strategy_names = {
        holder for booking in ledger.bookings for holder, _, _ in booking.changes
    }
    if ledger.bookings and receiver_name is not None and receiver_name not in open_strategy_names:
        raise ConfigError(
            f"strategies: {strategy_or_all} is not open yet",
            "open it first: trimtab strategies apply",
            code=ErrorCode.NOT_OPEN,
        )
    receiver_text_before, receiver_text_after = (
        "are shared by capital" if strategy_name is None else f"go to {strategy_name}"
        for strategy_name in (ledger.transfer_strategy, receiver_name)
    )
    return HoldingsChange(
        {"flows_to": receiver_name},
        (f"Deposits and withdrawals now {receiver_text_before}; later ones {receiver_text_after}",),
        lambda: strategy_store.set_transfer_strategy(receiver_name),
    )


def _strategies_document(step: StepInput, store: Store) -> StrategiesDocument:
    capital_split = step.config(CapitalSplit)
    books = step.layer(StrategiesState).books
    if books is None:
        raise ConfigError(f"strategies: {NO_STRATEGIES_FAULT}", "add them, see docs/strategies.md")
    prices = reference_prices(step).price_by_token
    numeraire = step.portfolio.numeraire
    netting_result = _netting_result(step, books)
    adjustment_by_name = (
        {}
        if netting_result is None
        else {adjustment.name: adjustment for adjustment in netting_result.adjustments}
    )
    target_shares = describe.strategy_target_shares(
        step.config(CapitalSplit), step.layer(StrategiesState)
    )
    strategy_documents = [
        strategy_document(
            book,
            capital_split,
            adjustment_by_name.get(book.name),
            target_shares[book.name],
            step.snapshot,
            step.portfolio,
            prices,
        )
        for book in books.strategy_books
    ]
    total_value = sum(
        (Fraction(book_document["capital"]) for book_document in strategy_documents), Fraction(0)
    )
    for book_document in strategy_documents:
        if book_document["share_bps"] is None and total_value:
            book_document["share_bps"] = round(
                Fraction(book_document["capital"]) / total_value * BPS
            )
    return {
        "block": step.snapshot.head.number,
        "numeraire": numeraire.label,
        "total_value": value_text(total_value * 10**numeraire.decimals, numeraire.decimals),
        "fault": books.fault,
        "flows_to": store.layer_repository(StrategyStore).ledger().transfer_strategy,
        "split_band": {
            "absolute_bps": capital_split.band.absolute_bps,
            "relative_bps": capital_split.band.relative_bps,
        },
        "strategies": strategy_documents,
        "together": netting_document(netting_result, step.portfolio),
        "sharpe_basis": "daily returns, annualised by √365, risk-free rate zero",
    }


def _netting_result(step: StepInput, books: StrategyBooks) -> netting.NettingResult | None:
    if books.fault or strategies_fault(step):
        return None
    try:
        prices = reference_prices(step).price_by_token
        return netting.net_strategies(step.with_layer(StrategiesState(books)), prices)
    except (Refused, KeyError):
        return None


def liquidity_document(liquidity_report: LiquidityReport) -> LiquidityDocument:
    """Return the document of liquidity positions and targets."""
    portfolio = liquidity_report.step_input.portfolio
    position_documents = []
    for position_report in liquidity_report.position_reports:
        confirmed_position = position_report.confirmed
        symbols = [
            portfolio.token(address).label
            for address in (confirmed_position.token0, confirmed_position.token1)
        ]
        raw_by_field = {
            "entry_raw": confirmed_position.entry_raw,
            "redeemable_raw": position_report.redeemable_raw,
            "fees_raw": position_report.fees_raw,
            "counted_raw": position_report.counted_raw,
        }
        amounts_by_symbol = {
            field: {symbol: str(raw) for symbol, raw in zip(symbols, pair_raw, strict=True)}
            for field, pair_raw in raw_by_field.items()
        }
        loss_bps = (
            None
            if position_report.hold_value == 0
            else bps_text(position_report.loss / position_report.hold_value)
        )
        position_documents.append(
            fill(
                PositionDocument, position_report, portfolio, **amounts_by_symbol, loss_bps=loss_bps
            )
        )
    report_document = fill(
        LiquidityDocument, liquidity_report, portfolio, positions=position_documents
    )
    if liquidity_report.forgettable:
        report_document["forgettable"] = list(liquidity_report.forgettable)
    return report_document
