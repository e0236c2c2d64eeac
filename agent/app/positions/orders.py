"""Conditional orders: list, arm, disarm and set them; and swaps at a limit price."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from agent import engine, wiring
from agent.app import config_versions
from agent.app.agent import Agent, open_agent
from agent.app.cycles import Confirm, Progress, close_orders
from agent.app.documents.plans import limit_prices
from agent.app.records.waiting import order_document
from agent.config.fields import parse_duration_s
from agent.config.load import load_config, parse_config
from agent.config.orders import price_level_notes
from agent.config.tables.orders import parse_level
from agent.config.writing.edits import write_config
from agent.config.writing.order_levels import edit_order_levels
from agent.errors import ConfigError, Refused, Retryable, TrimtabError
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.layers.futures.policy.exposure import margin_result
from agent.model import (
    PORTFOLIO,
    ConditionalOrder,
    LimitOrder,
    OrderKind,
    OrderStage,
    OrderTerms,
    Portfolio,
    StepInput,
    SwapAtPrice,
    Verdict,
)
from agent.planning import proposals
from agent.planning.proposals import decision_at
from agent.policy.orders import blocked_exits, exits
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.conditional import EXITED_STAGES, unconfirmed_orders
from agent.reference import reference_prices
from agent.units import BPS, Price, decimal_text, format_percent, format_time, parse_raw, price_text

if TYPE_CHECKING:
    from agent.app.documents.plans import LimitPricesDocument
    from agent.app.documents.records import (
        ArmedDocument,
        ChangedLevelsDocument,
        ConditionalOrderDocument,
        DisarmedDocument,
        NamedOrderDocument,
        OpenLimitOrderDocument,
        OrdersDocument,
    )

ALL = "all"


def standing_orders(agent: Agent) -> OrdersDocument:
    """Return every order with level, current price, distance and stored stage. Writes nothing."""
    step = agent.step_input()
    if any(
        order.is_exit and order.stage is OrderStage.FIRED for order in step.history.orders.states
    ):
        step = agent.plan().step_input  # only a plan shows refusals by guards
    document = orders_document(step, agent.context.store.orders.standing()[0])
    limits: list[OpenLimitOrderDocument] = [
        {
            **order_document(limit_order),
            **limit_prices(limit_order, step),
        }
        for limit_order in agent.context.store.executions.limit_orders()
        if limit_order.state == "open"
    ]
    return {**document, "limit_orders": limits}


def orders_document(
    step: StepInput, stored: Sequence[ConditionalOrder] | None = None
) -> OrdersDocument:
    """Return the document of a step's orders. `stored` are those of the store, None if the step
    itself was stored. The step's own stages are those that a cycle would store now.
    """
    known = conditional_orders.orders_by_key(
        step.history.orders.states if stored is None else tuple(stored)
    )
    references, blocked = reference_prices(step), decision_at(step).blocked_exits
    return {
        "block": step.snapshot.head.number,
        "numeraire": step.portfolio.numeraire.label,
        "absent": step.portfolio.orders.absent.value,
        "hysteresis_bps": step.portfolio.orders.hysteresis_bps,
        "confirm_blocks": step.policy.confirm_blocks,
        "unit_worth": None
        if step.history.orders.nav_per_share is None
        else price_text(_unit(step), 0, 0),
        "contradictions": exits.faults(step.portfolio, step.history.orders, references),
        "orders": [_row(step, order, known.get(order.key)) for order in step.history.orders.states],
        "told": list(step.targets.reasons),
        "blocked_exits": [
            *(
                blocked_exits.format_blocked_exit(
                    step.snapshot, step.portfolio, step.history, blocked_exit
                )
                for blocked_exit in blocked
            ),
            *blocked_exits.format_retries(
                step.portfolio, step.history, {blocked_exit.token for blocked_exit in blocked}
            ),
        ],
    }


def arm_orders(agent: Agent, subject: str) -> ArmedDocument:
    """Arm the orders of `subject` (a symbol, "portfolio" or "all") for the next cycle; exited
    assets may be bought again. Raises ConfigError for a subject without orders, and Refused, with
    nothing written, if a level contradicts the current price.
    """
    step = agent.step_input()
    tokens = _tokens(step.portfolio, step.history.orders.states, subject)
    chosen = [terms for terms in step.portfolio.orders.terms if terms.token in tokens]
    known = [order for order in step.history.orders.states if order.token in tokens]
    if not chosen and not known:
        raise ConfigError(
            f"orders: none configured for {_called(subject)}",
            "write stop_loss, take_profit, trailing_stop or entry in trimtab.toml",
        )
    for terms in chosen:
        _require_level(step, terms, chosen)
    now_s = step.snapshot.head.timestamp_s
    waiting = [
        ConditionalOrder(terms.token, terms.kind, OrderStage.WAITING, terms, now_s)
        for terms in chosen
    ]
    _write(agent, {order.key for order in (*known, *waiting)}, waiting)
    return {
        "armed": [_named(step.portfolio, order) for order in waiting],
        "back_in": _reenabled(step.portfolio, known),
    }


def disarm_orders(agent: Agent, subject: str, kinds: Sequence[OrderKind] = ()) -> DisarmedDocument:
    """Disarm the orders of `subject`, by default of all kinds; exited assets may be bought again.
    Raises ConfigError if there are no such orders.
    """
    step = agent.step_input()
    orders, chosen_kinds = step.history.orders.states, set(kinds or OrderKind)
    tokens = _tokens(step.portfolio, orders, subject)
    known = [
        order
        for order in step.history.orders.states
        if order.token in tokens and order.kind in chosen_kinds
    ]
    if not known:
        raise ConfigError(
            f"orders: none of this kind for {_called(subject)}", "trimtab orders lists them"
        )
    now_s = step.snapshot.head.timestamp_s
    off = [replace(order, stage=OrderStage.OFF, since_s=now_s) for order in known]
    _write(agent, {order.key for order in off}, off)
    return {
        "disarmed": [_named(step.portfolio, order) for order in off],
        "back_in": _reenabled(step.portfolio, known),
    }


def set_orders(
    path: Path,
    subject: str,
    levels: Mapping[str, str],
    sure: Callable[[Sequence[str]], bool] = lambda _: False,
) -> ChangedLevelsDocument:
    """Write levels into the config; "off" removes a level. If the previous version was confirmed,
    the new one is too, so that a run adopts it. `sure` receives levels implausibly far from the
    price. Raises ConfigError for an invalid level, and Refused, with nothing written, if `sure`
    answers no.
    """
    text, changes = edit_order_levels(path, subject, levels)
    notes, implausible = _level_notes(path, subject, text, changes)
    if implausible and not sure(implausible):
        raise Refused(
            "; ".join(implausible), remedy='write a share such as "12%", or confirm it with --yes'
        )
    if changes:
        before = load_config(path)
        write_config(path, text)
        if wiring.store_file(before).exists():
            with wiring.open_store_offline(before) as (store, _):
                if config_versions.unconfirmed_changes(before, store.configs) is None:
                    first = store.configs.confirmed() is None
                    how = config_versions.FIRST if first else config_versions.CONFIRMED
                    config_versions.record_version(before, store.configs, how)
                    config_versions.record_version(
                        load_config(path), store.configs, config_versions.EDITED
                    )
    return {"config": str(path), "subject": subject, "changes": changes, "notes": notes}


FURTHEST_BELOW, FURTHEST_ABOVE = Fraction(-9, 10), Fraction(9)
"""Distances of a level from the price beyond which the owner is asked, in case a share was meant."""


def _level_notes(
    path: Path, subject: str, text: str, changes: Mapping[str, tuple[str | None, str | None]]
) -> tuple[list[str], list[str]]:
    """Return notes on new levels written as amounts, and new levels implausibly far from the
    price. Only amounts need the price; while it is unknown, the notes say so.
    """
    new = {kind: parse_level(after) for kind, (_, after) in changes.items() if after is not None}
    meant = price_level_notes(parse_config(text).portfolio)
    amounts = any(level.price is not None for level in new.values())
    price, price_text = _present_price(path, subject) if amounts else (None, "")
    notes, implausible = [], []
    for kind, level in new.items():
        if (note := meant.get(f"{subject} {kind}")) is not None:
            notes.append(f"{subject} {kind}: {note}")
        at = Fraction(1) if level.price is None else price
        if at is None:
            notes.append(f"{subject} {kind}: its distance is unknown, {price_text}")
            continue
        terms = OrderTerms(subject, OrderKind(kind), level.price, level.share_bps)
        order = replace(_waiting_order(terms), basis=at, mark=at)
        away = conditional_orders.distance_to_trigger(order, at)
        if away is None:
            continue
        side = "above" if away > 0 else "below"
        where = f"{subject} {kind}: {format_percent(abs(away))} {side} {price_text or 'the price'}"
        if level.price is not None:
            notes.append(where)
        if not FURTHEST_BELOW <= away <= FURTHEST_ABOVE:
            implausible.append(where)
    return notes, implausible


def _present_price(path: Path, subject: str) -> tuple[Fraction | None, str]:
    """Return the price of one asset in whole coins, and its text; None, and why, if unknown."""
    try:
        with open_agent(path) as agent:
            step = agent.step_input()
        asset = next(
            asset.token for asset in step.portfolio.assets if asset.token.symbol == subject
        )
    except TrimtabError as error:
        return None, f"because the price could not be read: {error.message}"
    except StopIteration:
        return None, "because the config has no such asset yet"
    if (price := _price(step, asset.address)) is None:
        return None, "because the asset has no reference price now"
    coins = price * Fraction(10) ** (asset.decimals - step.portfolio.numeraire.decimals)
    at = conditional_orders.format_order_price(step.portfolio, asset.address, price)
    return coins, f"the present price of {at}"


def _require_level(step: StepInput, terms: OrderTerms, chosen: Sequence[OrderTerms]) -> None:
    price = _price(step, terms.token)
    if price is None:
        raise Refused(
            f"{conditional_orders.order_name(step.portfolio, terms)}: no current reference price",
            remedy="see trimtab status",
        )
    book, label = step.portfolio.orders, conditional_orders.order_name(step.portfolio, terms)
    entry = next(
        (
            order_terms
            for order_terms in chosen
            if order_terms.token == terms.token and order_terms.kind is OrderKind.ENTRY
        ),
        None,
    )
    try:
        opened = None
        if entry is not None:
            opened = conditional_orders.arm_order(_waiting_order(entry), price, 0, book)
        if not conditional_orders.waits_for_entry(terms.kind, opened):
            conditional_orders.arm_order(_waiting_order(terms), price, 0, book, opened)
    except Refused as why:
        at = conditional_orders.format_order_price(step.portfolio, terms.token, price)
        verdict = Verdict(terms.kind.value, f"the price is {at}", why.message, False)
        raise Refused(
            f"{label} cannot be armed at {at}: {why.message}", (verdict,), why.remedy
        ) from None


def _waiting_order(terms: OrderTerms) -> ConditionalOrder:
    return ConditionalOrder(terms.token, terms.kind, OrderStage.WAITING, terms, 0)


def _write(
    agent: Agent, keys: set[tuple[str, OrderKind]], changed: Sequence[ConditionalOrder]
) -> None:
    """Replace the orders of `keys` by `changed`. Raises Retryable if a cycle wrote in between."""
    store = agent.context.store
    stored, turn = store.orders.standing()
    others = [order for order in stored if order.key not in keys]
    if not store.orders.update((*others, *changed), None, turn):
        raise Retryable("a cycle changed the orders in the meantime", "try again")


def _tokens(portfolio: Portfolio, orders: Iterable[ConditionalOrder], subject: str) -> set[str]:
    if subject == ALL:
        return {
            PORTFOLIO,
            *(asset.token.address for asset in portfolio.assets),
            *(order.token for order in orders),
        }
    if subject == PORTFOLIO:
        return {PORTFOLIO}
    addresses = {
        asset.token.address
        for asset in portfolio.assets
        if subject in (asset.token.symbol, asset.token.address)
    }
    if not addresses:
        known = ", ".join(asset.token.label for asset in portfolio.assets)
        raise ConfigError(
            f"orders: {subject!r} is not an asset", f"choose from {known}, portfolio, all"
        )
    return addresses


def _called(subject: str) -> str:
    return "the portfolio" if subject in (ALL, PORTFOLIO) else subject


def _reenabled(portfolio: Portfolio, known: Sequence[ConditionalOrder]) -> list[str]:
    """Return the assets that these orders had exited or were exiting."""
    gone = [order.token for order in known if order.is_exit and order.stage in EXITED_STAGES]
    return [conditional_orders.order_subject(portfolio, token) for token in dict.fromkeys(gone)]


def _named(portfolio: Portfolio, order: ConditionalOrder) -> NamedOrderDocument:
    return {
        "subject": (
            PORTFOLIO
            if order.token == PORTFOLIO
            else conditional_orders.order_subject(portfolio, order.token)
        ),
        "kind": order.kind.value,
        "stage": order.stage.value,
    }


def _row(
    step: StepInput, order: ConditionalOrder, stored: ConditionalOrder | None
) -> ConditionalOrderDocument:
    """Return the row of an order: `stored` as it is, and what the next cycle would make of it."""
    since_s, since = None, None
    if stored is None:
        conditional_order = _waiting_order(order.terms)
    else:
        conditional_order = replace(stored, terms=order.terms)
        since_s, since = stored.since_s, format_time(stored.since_s)
    price, level = _price(step, order.token), conditional_orders.trigger_price(conditional_order)
    away = (
        None if price is None else conditional_orders.distance_to_trigger(conditional_order, price)
    )
    unconfirmed = next(
        (
            unconfirmed_order
            for unconfirmed_order in unconfirmed_orders(step)
            if unconfirmed_order.key == order.key and unconfirmed_order.stage is not order.stage
        ),
        None,
    )
    level_now = None
    if level is None:
        level_now = conditional_orders.trigger_price(unconfirmed or order)
    terms = conditional_order.terms
    highest = conditional_order.mark if order.kind is OrderKind.TRAILING_STOP else None
    return {
        **_named(step.portfolio, conditional_order),
        "terms": (
            _figure(step.portfolio, terms.token, terms.price) or ""
            if terms.share_bps is None
            else f"{terms.share_bps / 100:g}%"
        ),
        "level": _figure(step.portfolio, order.token, level),
        "level_now": _figure(step.portfolio, order.token, level_now),
        "price": _figure(step.portfolio, order.token, price),
        "distance_bps": None if away is None else round(away * BPS),
        "basis": _figure(step.portfolio, order.token, conditional_order.basis),
        "highest": _figure(step.portfolio, order.token, highest),
        "fired_at": _figure(step.portfolio, order.token, conditional_order.at),
        "since_s": since_s,
        "since": since,
        "next_stage": None if order.stage is conditional_order.stage else order.stage.value,
        "unconfirmed": None if unconfirmed is None else unconfirmed.stage.value,
        "filled_at_once": conditional_orders.was_filled_when_armed(conditional_order),
    }


def _figure(portfolio: Portfolio, token: str, price: Price | None) -> str | None:
    """Return a price in whole coins of the numeraire; for the portfolio, its NAV per share."""
    if price is None:
        return None
    if token == PORTFOLIO:
        return price_text(price, 0, 0)
    try:
        return price_text(price, portfolio.token(token).decimals, portfolio.numeraire.decimals)
    except KeyError:
        return None


def _price(step: StepInput, token: str) -> Price | None:
    if token == PORTFOLIO:
        return _unit(step)
    price = reference_prices(step).prices.get(token)
    return None if price is None else price.price


def _unit(step: StepInput) -> Fraction:
    prices = reference_prices(step).by_token
    return conditional_orders.unit_value_at(
        step.history.orders.nav_per_share, prices, margin_result(step, prices)
    )


MAX_ORDER_S = 90 * 86_400
"""Longest lifetime of a limit order."""
POLL_S = 12.0
"""Interval between cycles while a command waits for its limit order."""


@dataclass(frozen=True, slots=True)
class LimitOrderRequest:
    """A limit order as entered: sell `amount` of `token_in` for `token_out` at `price` or better
    before `until`; with `wait`, try until it ends.
    """

    token_in: str
    token_out: str
    amount: str
    price: str
    until: str
    wait: bool = False


def swap_at_limit(
    agent: Agent,
    request: LimitOrderRequest,
    *,
    send: bool,
    confirm: Confirm,
    progress: Progress,
    sure: Callable[[LimitPricesDocument], bool] = lambda _: True,
) -> tuple[LimitOrder, StepOutcome]:
    """Place a limit order and try it once; with `wait` until it ends.

    Without `send` it is only evaluated. With `send` it is recorded, and `trimtab run --send`
    continues it. `sure` receives the limit and the market price (documents.plans.limit_prices). Raises
    ConfigError for an invalid price or time.
    """
    context = agent.context
    placed = _order(agent, request)
    step_outcome = evaluation.evaluate(context.readers, proposals.single_order(placed))
    if not send:
        return placed, step_outcome
    if not sure(limit_prices(placed, step_outcome.step_input)) or not confirm(step_outcome):
        return placed, replace(
            step_outcome,
            kind=OutcomeKind.DECLINED,
            reason="not confirmed; nothing was recorded or sent",
        )
    wallet = wiring.open_wallet_session(context, lambda _: True, progress)
    with wallet.held() as actors:
        order = context.store.executions.add_limit_order(placed)
        outcome = _try_order(context, order, actors)
    while (
        order := next(
            limit_order
            for limit_order in context.store.executions.limit_orders()
            if limit_order.id == order.id
        )
    ).state == "open" and request.wait:
        progress(f"{order.note}: {outcome.reason}")
        context.clock.sleep(POLL_S)
        with wallet.held() as actors:
            outcome = _try_order(context, order, actors)
    return order, outcome


def _try_order(context: wiring.AgentContext, order: LimitOrder, actors: StepActors) -> StepOutcome:
    """Run one cycle that fills the order if its price is reached."""
    outcome = engine.run_cycle(context.readers, SwapAtPrice(order), context.store, actors)
    close_orders(context, outcome.after or outcome.step_input)
    return outcome


def _order(agent: Agent, request: LimitOrderRequest) -> LimitOrder:
    sold, bought = agent.token(request.token_in, "--in"), agent.token(request.token_out, "--out")
    if sold == bought:
        raise ConfigError("--out: the same token as --in", "name two tokens")
    raw = parse_raw(request.amount, sold.decimals, "--amount")
    if raw == 0:
        raise ConfigError("--amount must be above 0", "for example --amount 0.1")
    exact = Fraction(parse_raw(request.price, 36, "--price"), 10**36) * Fraction(10) ** (
        bought.decimals - sold.decimals
    )
    if exact == 0:
        raise ConfigError(
            "--price must be above 0", "give the minimum --out per --in, or omit --price"
        )
    head_s = agent.context.readers.reader.snapshot().head.timestamp_s
    until_s = _until(request.until, head_s)
    least = f"{price_text(exact, sold.decimals, bought.decimals)} {bought.label}"
    note = f"sell {decimal_text(raw, sold.decimals)} {sold.label} at {least} or better"
    return LimitOrder("", sold.address, bought.address, raw, exact, until_s, head_s, note=note)


def _until(text: str, now_s: int) -> int:
    """Return the chain time, in seconds, of a duration from now or of a time such as
    2027-01-31T18:00Z.
    """
    try:
        until_s = now_s + parse_duration_s(text, "--until")
    except ConfigError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(
                f"--until: {text!r} is neither a duration nor a time",
                "for example 4h, or 2027-01-31T18:00Z",
            ) from None
        if moment.tzinfo is None:
            raise ConfigError(
                f"--until: {text!r} has no time zone", "for example 2027-01-31T18:00Z"
            ) from None
        until_s = int(moment.timestamp())
    if not now_s < until_s <= now_s + MAX_ORDER_S:
        raise ConfigError(
            f"--until: {text!r} must be within 90 days of the newest block", "for example 4h"
        )
    return until_s
