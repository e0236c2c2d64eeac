"""Strategies of a wallet: report them, reconcile their books, assign transfers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import wiring
from agent.app import describe
from agent.app.agent import Agent
from agent.app.documents.positions import strategy_document
from agent.app.documents.steps import netting_document
from agent.config.load import load_config
from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.execution.settlement import settle_mined
from agent.execution.step_memory import read_strategies
from agent.model import StepInput
from agent.model.strategies import StrategyBooks
from agent.policy.step_input import add_strategy_books
from agent.policy.strategies import netting
from agent.reference import reference_prices
from agent.units import BPS, value_text

if TYPE_CHECKING:
    from agent.app.documents.positions import RoutedTransfersDocument, StrategiesDocument

NO_STRATEGIES = "there are no [[strategies]] in the config"


def strategies(agent: Agent) -> StrategiesDocument:
    """Return capital, share, unit value, return, Sharpe ratio and state of each strategy at the
    newest block; writes nothing. Raises ConfigError without strategies.
    """
    return _document(agent.step_input())


def take_over_strategies(
    agent: Agent, sure: Callable[[StrategiesDocument], bool]
) -> StrategiesDocument:
    """Reconcile strategy books with wallet and config after `sure` has confirmed the result.

    Closed strategies are settled and new ones opened, at reference prices and in kind. Unexplained
    holdings are shared by capital. Raises ConfigError if there is nothing to do, Refused while a
    token is in quarantine.
    """
    context, readers = agent.context, agent.context.readers
    snapshot = readers.reader.snapshot()
    present = partial(readers.step_input_at, snapshot)
    settle_mined(context.store, snapshot, present)
    step = present()
    before = step.history.sleeves
    if step.split is None or before is None:
        raise ConfigError(f"strategies: {NO_STRATEGIES}", "add them, see docs/strategies.md")
    if not before.fault:
        raise ConfigError(
            "strategies: books, wallet and config already agree",
            "see trimtab strategies",
        )
    if step.quarantine:
        raise Refused(
            "a token is in quarantine",
            remedy="wait until the quarantine ends; the token's value is unknown until then",
        )
    found = add_strategy_books(
        step,
        read_strategies(step, context.store),
        context.store.balances.expected(),
        owner_agrees=True,
    )
    books = found.history.sleeves
    if books is None or books.fault:
        raise Refused(f"the books cannot be reconciled: {'' if books is None else books.fault}")
    document = _document(found)
    document["why"], document["applied"] = before.fault, False
    if not sure(document):
        return document
    if not context.store.strategies.record_bookings(books.pending, books.turn):
        raise OperatorNeeded(
            "another process changed the books in the meantime", "run the command again"
        )
    context.store.strategies.forget(
        [
            state.name
            for state in context.store.strategies.ledger().states
            if state.name not in books.named
        ]
    )
    document["applied"] = True
    return document


def route_transfers(config: Path | str, name: str) -> RoutedTransfersDocument:
    """Assign later deposits and withdrawals to a strategy; "all" shares them by capital.

    Raises ConfigError for an unknown name.
    """
    loaded = load_config(config)
    names = [one.name for one in loaded.config.strategies]
    if name != "all" and name not in names:
        raise ConfigError(
            f"strategies: {name!r} is unknown", f"choose from {', '.join([*names, 'all'])}"
        )
    with wiring.open_store_offline(loaded) as (store, _):
        store.strategies.route_transfers(None if name == "all" else name)
    return {"flows_to": None if name == "all" else name}


def _document(step: StepInput) -> StrategiesDocument:
    split, books = step.split, step.history.sleeves
    if split is None or books is None:
        raise ConfigError(f"strategies: {NO_STRATEGIES}", "add them, see docs/strategies.md")
    prices = reference_prices(step).by_token
    numeraire = step.portfolio.numeraire
    view = _view(step, books)
    adjustments = {} if view is None else {one.name: one for one in view.wishes}
    due = describe.target_shares(step)
    found = [
        strategy_document(one, split, adjustments.get(one.name), due[one.name], step, prices)
        for one in books.sleeves
    ]
    whole = sum((Fraction(one["capital"]) for one in found), Fraction(0))
    for one in found:
        if one["share_bps"] is None and whole:
            one["share_bps"] = round(Fraction(one["capital"]) / whole * BPS)
    return {
        "block": step.snapshot.head.number,
        "numeraire": numeraire.label,
        "total_value": value_text(whole * 10**numeraire.decimals, numeraire.decimals),
        "fault": books.fault,
        "split_band": {
            "absolute_bps": split.band.absolute_bps,
            "relative_bps": split.band.relative_bps,
        },
        "strategies": found,
        "together": netting_document(view, step.portfolio),
        "sharpe_basis": "daily returns, annualised by √365, risk-free rate zero",
    }


def _view(step: StepInput, books: StrategyBooks) -> netting.NettingResult | None:
    if books.fault or netting.strategies_fault(step):
        return None
    try:
        prices = reference_prices(step).by_token
        return netting.net_strategies(
            replace(step, history=replace(step.history, sleeves=books)), prices
        )
    except (Refused, KeyError):
        return None
