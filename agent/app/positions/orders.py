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
from agent.app.cycles import Confirm, Progress, close_ended_orders
from agent.app.documents.past.waiting import order_document
from agent.app.documents.plans import limit_prices
from agent.app.money.repeated_withdrawals import RECENT_S
from agent.config.load import load_config, load_config_text, parse_config
from agent.config.orders import build_orders, price_level_notes, unsent_alert_notes
from agent.config.tables.fields import parse_duration_s
from agent.config.tables.orders import parse_level
from agent.config.writing.config_file import write_config
from agent.config.writing.order_levels import edit_order_levels
from agent.errors import ConfigError, Refused, Retryable, TrimtabError
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome, StepTransactor
from agent.layers.futures.policy.exposure import margin_result
from agent.model import (
    PORTFOLIO_SUBJECT,
    PRICE_ALERTS,
    ConditionalOrder,
    ExecutionState,
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
from agent.planning.proposals import decision_after_plan
from agent.policy.orders import blocked_exits, exits
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.conditional import EXITED_STAGES, unconfirmed_orders
from agent.reference import reference_prices
from agent.units import (
    BPS,
    DAY_S,
    Price,
    decimal_text,
    format_bps,
    format_duration,
    format_percent,
    format_time,
    parse_raw,
    price_text,
)
from agent.wiring.waiting_proposals import ended_order_texts, waiting_proposals

if TYPE_CHECKING:
    from agent.app.documents.plans import LimitPricesDocument
    from agent.app.documents.positions import (
        ArmedOrdersDocument,
        ChangedLevelsDocument,
        ConditionalOrderDocument,
        DisarmedOrdersDocument,
        NamedOrderDocument,
        OpenLimitOrderDocument,
        OrdersDocument,
    )
    from agent.config.loaded import LoadedConfig
    from agent.config.tables.portfolio import PortfolioTable
    from agent.store.store import ConfigVersionStore

ALL = "all"


def standing_orders(agent: Agent) -> OrdersDocument:
    """Return every order with level, current price, distance and stored stage. Records no step."""
    step = agent.step_input()
    has_fired = any(
        order.is_exit and order.stage is OrderStage.FIRED for order in step.history.orders.states
    )
    if has_fired:
        step = agent.plan().step_input  # only a plan shows refusals by guards
    standing_document = orders_document(step, agent.context.store.orders.orders_and_version()[0])
    if step.history.stop_reason:
        standing_document["stopped"] = step.history.stop_reason
    if has_fired:
        proposal_texts = [text for _, text in waiting_proposals(agent.context, step)]
        standing_document["blocked_exits"] += proposal_texts[-1:]  # a rejection is the last
    limit_orders: list[OpenLimitOrderDocument] = [
        {
            **order_document(limit_order),
            **limit_prices(limit_order, step),
        }
        for limit_order in agent.context.store.executions.open_limit_orders()
        if limit_order.state is ExecutionState.OPEN
    ]
    return {**standing_document, "limit_orders": limit_orders}


def orders_document(
    step: StepInput, stored_orders: Sequence[ConditionalOrder] | None = None
) -> OrdersDocument:
    """Return the document of a step's orders. `stored_orders` are the orders in the store; without
    it the step's orders count as stored. The step holds the stages that the next cycle would store.
    """
    stored_by_key = conditional_orders.orders_by_key(
        step.history.orders.states if stored_orders is None else tuple(stored_orders)
    )
    references = reference_prices(step)
    exits_blocked_now = decision_after_plan(step).blocked_exits
    return {
        "block": step.snapshot.head.number,
        "numeraire": step.portfolio.numeraire.label,
        "absent": step.portfolio.orders.reallocation.value,
        "hysteresis_bps": step.portfolio.orders.hysteresis_bps,
        "confirm_blocks": step.policy.confirm_blocks,
        "unit_worth": None
        if step.history.orders.nav_per_share is None
        else price_text(_nav_per_share(step), 0, 0),
        "contradictions": exits.price_contradictions(
            step.portfolio, step.history.orders, references
        ),
        "orders": [
            _order_document(step, order, stored_by_key.get(order.key))
            for order in step.history.orders.states
        ],
        "target_reasons": list(step.targets.reasons),
        "blocked_exits": [
            *(
                blocked_exits.format_blocked_exit(
                    step.snapshot, step.portfolio, step.history, blocked_exit
                )
                for blocked_exit in exits_blocked_now
            ),
            *blocked_exits.format_retries(
                step.snapshot,
                step.portfolio,
                step.history,
                {blocked_exit.token for blocked_exit in exits_blocked_now},
            ),
        ],
    }


def arm_orders(agent: Agent, subject: str) -> ArmedOrdersDocument:
    """Arm the orders of `subject` (a symbol, "portfolio" or "all") for the next cycle; exited
    assets may be bought again. Raises ConfigError for a subject without orders, and Refused, with
    nothing written, if a level contradicts the current price.
    """
    step = agent.step_input()
    subject_tokens = _subject_tokens(step.portfolio, step.history.orders.states, subject)
    chosen_terms = [terms for terms in step.portfolio.orders.terms if terms.token in subject_tokens]
    existing_orders = [
        order for order in step.history.orders.states if order.token in subject_tokens
    ]
    if not chosen_terms and not existing_orders:
        raise ConfigError(
            f"orders: none configured for {_subject_text(subject)}",
            "write stop_loss, take_profit, trailing_stop or entry in trimtab.toml",
        )
    for terms in chosen_terms:
        _require_armable(step, terms, chosen_terms)
    now_s = step.snapshot.head.timestamp_s
    waiting_orders = [
        ConditionalOrder(terms.token, terms.kind, OrderStage.WAITING, terms, now_s)
        for terms in chosen_terms
    ]
    keys = {order.key for order in (*existing_orders, *waiting_orders)}
    _replace_orders(agent, step, keys, waiting_orders)
    return {
        "armed": [_named_order(step.portfolio, order) for order in waiting_orders],
        "reenabled": _reenabled_assets(step.portfolio, existing_orders),
        "stale": ended_order_texts(agent.context.store),
    }


def disarm_orders(
    agent: Agent, subject: str, kinds: Sequence[OrderKind] = ()
) -> DisarmedOrdersDocument:
    """Disarm the orders of `subject`, by default of all kinds; exited assets may be bought again.
    Raises ConfigError if there are no such orders.
    """
    step = agent.step_input()
    orders = step.history.orders.states
    chosen_kinds = set(kinds or OrderKind)
    subject_tokens = _subject_tokens(step.portfolio, orders, subject)
    existing_orders = [
        order
        for order in step.history.orders.states
        if order.token in subject_tokens and order.kind in chosen_kinds
    ]
    if not existing_orders:
        raise ConfigError(
            f"orders: none of this kind for {_subject_text(subject)}", "trimtab orders lists them"
        )
    now_s = step.snapshot.head.timestamp_s
    disarmed_orders = [
        replace(order, stage=OrderStage.OFF, since_s=now_s) for order in existing_orders
    ]
    _replace_orders(agent, step, {order.key for order in disarmed_orders}, disarmed_orders)
    return {
        "disarmed": [_named_order(step.portfolio, order) for order in disarmed_orders],
        "reenabled": _reenabled_assets(step.portfolio, existing_orders),
        "stale": ended_order_texts(agent.context.store),
    }


def set_orders(
    path: Path,
    subject: str,
    levels: Mapping[str, str],
    confirm_levels: Callable[
        [ChangedLevelsDocument, Sequence[str]], bool
    ] = lambda _, implausible_levels: not implausible_levels,
) -> ChangedLevelsDocument:
    """Write levels into the config; "off" removes a level. Unless the config has unconfirmed
    changes, the new version is recorded as confirmed, so that a run adopts it. `confirm_levels`
    receives the changes, and the levels implausibly far from the price, which alone it refuses by
    default. Raises ConfigError for an invalid level, Refused if `confirm_levels` answers no or the
    file changed meanwhile, and errors of the store; nothing is written then.
    """
    config_text, level_changes = edit_order_levels(path, subject, levels)
    notes, implausible_levels = _level_notes(path, subject, config_text, level_changes)
    changes_document: ChangedLevelsDocument = {
        "config": str(path),
        "subject": subject,
        "changes": level_changes,
        "notes": notes,
    }
    if level_changes and not confirm_levels(changes_document, implausible_levels):
        if implausible_levels:
            raise Refused(
                "; ".join(implausible_levels),
                remedy='write a nearer level, such as "12%", or confirm it with --yes',
            )
        raise Refused("not confirmed; nothing was written", remedy="confirm it, or add --yes")
    if level_changes:
        if edit_order_levels(path, subject, levels)[0] != config_text:
            raise Refused(
                f"{path} changed during the edit; nothing was written",
                remedy="set the levels again",
            )
        _replace_levels(path, config_text)
    return changes_document


def _replace_levels(path: Path, config_text: str) -> None:
    """Write the text into the config and record it, or neither."""
    loaded_config = load_config(path)
    if not wiring.has_store(loaded_config):
        write_config(path, config_text)
        return
    text_before = config_versions.read_config_text(path)
    edited_config = load_config_text(config_text, loaded_config.path, str(path))
    with wiring.open_store_offline(loaded_config) as (store, _):
        write_config(path, config_text)
        try:
            _record_levels(loaded_config, edited_config, store.configs)
        except BaseException as error:
            config_versions.take_back(path, text_before, config_text, error)
            raise


def _record_levels(
    loaded_config: LoadedConfig, edited_config: LoadedConfig, version_store: ConfigVersionStore
) -> None:
    """Record the edited config as confirmed, unless the one before has unconfirmed changes."""
    if config_versions.unconfirmed_changes(loaded_config, version_store) is not None:
        return
    is_first = version_store.confirmed_digest() is None
    origin = config_versions.FIRST_ORIGIN if is_first else config_versions.CONFIRMED_ORIGIN
    config_versions.record_version(loaded_config, version_store, origin)
    config_versions.record_version(edited_config, version_store, config_versions.EDIT_ORIGIN)


MIN_PLAUSIBLE_DISTANCE = Fraction(-9, 10)
MAX_PLAUSIBLE_DISTANCE = Fraction(9)
"""Distances of a level from the price beyond which the owner is asked, in case another was meant,
such as a share instead of an amount.
"""
REACHED_TEXT = "reached already: it fires at once"


def is_plausible(distance: Fraction) -> bool:
    """Return whether a level is so near the price that the owner is not asked."""
    return MIN_PLAUSIBLE_DISTANCE <= distance <= MAX_PLAUSIBLE_DISTANCE


def _level_notes(
    path: Path,
    subject: str,
    config_text: str,
    level_changes: Mapping[str, tuple[str | None, str | None]],
) -> tuple[list[str], list[str]]:
    """Return notes on new levels written as amounts and on levels that contradict the price, and
    new levels implausibly far from it. Only amounts and entries need the price; while it is
    unknown, the notes say so.
    """
    new_levels = {
        kind: parse_level(level_text)
        for kind, (_, level_text) in level_changes.items()
        if level_text is not None
    }
    config = parse_config(config_text)
    amount_notes = price_level_notes(config.portfolio)
    needs_price = "entry" in level_changes or any(
        level.price is not None for level in new_levels.values()
    )
    price, price_note, contradictions = (
        _price_and_contradictions(path, subject, config.portfolio)
        if needs_price
        else (None, "", [])
    )
    notes = [*unsent_alert_notes(config, new_levels), *contradictions]
    implausible_levels = []
    for kind, level in new_levels.items():
        if (amount_note := amount_notes.get(f"{subject} {kind}")) is not None:
            notes.append(f"{subject} {kind}: {amount_note}")
        reference_price = Fraction(1) if level.price is None else price
        if reference_price is None:
            notes.append(f"{subject} {kind}: its distance is unknown, {price_note}")
            continue
        terms = OrderTerms(subject, OrderKind(kind), level.price, level.share_bps)
        order = replace(
            _waiting_order(terms), base_price=reference_price, highest_price=reference_price
        )
        distance = conditional_orders.distance_to_trigger(order, reference_price)
        if distance is None:
            continue
        side_word = "above" if distance > 0 else "below"
        distance_text = f"{subject} {kind}: {format_percent(abs(distance))} {side_word} {'the price' if price is None else price_note}"
        if level.price is not None:
            is_sent_at_once = order.kind in PRICE_ALERTS and conditional_orders.is_reached(
                order, reference_price
            )
            notes.append(f"{distance_text}, {REACHED_TEXT}" if is_sent_at_once else distance_text)
        if not is_plausible(distance):
            implausible_levels.append(distance_text)
    return notes, implausible_levels


def _price_and_contradictions(
    path: Path, subject: str, edited_portfolio: PortfolioTable
) -> tuple[Fraction | None, str, list[str]]:
    """Return the price of one asset in whole coins, its text, and which of its levels in
    `edited_portfolio` contradict it; no price, and why, if it is unknown.
    """
    try:
        with open_agent(path) as agent:
            step = agent.step_input()
        asset_token = next(
            asset.token for asset in step.portfolio.assets if asset.token.symbol == subject
        )
    except TrimtabError as error:
        return None, f"because the price could not be read: {error.message}", []
    except StopIteration:
        return None, "because the config has no such asset yet", []
    if (price := _current_price(step, asset_token.address)) is None:
        return None, "because the asset has no reference price now", []
    coin_price = price * Fraction(10) ** (asset_token.decimals - step.portfolio.numeraire.decimals)
    shown_price_text = conditional_orders.format_order_price(
        step.portfolio, asset_token.address, price
    )
    orders = build_orders(edited_portfolio, step.portfolio.assets, step.portfolio.numeraire)
    own_terms = tuple(terms for terms in orders.terms if terms.token == asset_token.address)
    edited_step = conditional_orders.advance_orders(
        replace(
            step,
            portfolio=replace(step.portfolio, orders=replace(orders, terms=own_terms)),
            policy=replace(step.policy, confirm_blocks=0),
        )
    )
    contradictions = exits.price_contradictions(
        edited_step.portfolio, edited_step.history.orders, reference_prices(step)
    )
    return coin_price, f"the present price of {shown_price_text}", contradictions


def _require_armable(
    step: StepInput, terms: OrderTerms, chosen_terms: Sequence[OrderTerms]
) -> None:
    price = _current_price(step, terms.token)
    if price is None:
        raise Refused(
            f"{conditional_orders.order_name(step.portfolio, terms)}: no current reference price",
            remedy="see trimtab status",
        )
    order_settings = step.portfolio.orders
    order_name = conditional_orders.order_name(step.portfolio, terms)
    entry_terms = next(
        (
            order_terms
            for order_terms in chosen_terms
            if order_terms.token == terms.token and order_terms.kind is OrderKind.ENTRY
        ),
        None,
    )
    try:
        armed_entry = None
        if entry_terms is not None:
            armed_entry = conditional_orders.arm_order(
                _waiting_order(entry_terms), price, 0, order_settings
            )
        if not conditional_orders.waits_for_entry(terms.kind, armed_entry):
            conditional_orders.arm_order(
                _waiting_order(terms), price, 0, order_settings, armed_entry
            )
    except Refused as refusal:
        shown_price_text = conditional_orders.format_order_price(step.portfolio, terms.token, price)
        verdict = Verdict(
            terms.kind.value, f"the price is {shown_price_text}", refusal.message, False
        )
        raise Refused(
            f"{order_name} cannot be armed at {shown_price_text}: {refusal.message}",
            (verdict,),
            refusal.remedy,
        ) from None


def _waiting_order(terms: OrderTerms) -> ConditionalOrder:
    return ConditionalOrder(terms.token, terms.kind, OrderStage.WAITING, terms, 0)


def _replace_orders(
    agent: Agent,
    step: StepInput,
    keys: set[tuple[str, OrderKind]],
    changed_orders: Sequence[ConditionalOrder],
) -> None:
    """Replace the orders of `keys` by `changed_orders`. Raises Retryable if a cycle wrote orders
    since `step` was read.
    """
    store = agent.context.store
    other_orders = [
        order for order in store.orders.orders_and_version()[0] if order.key not in keys
    ]
    all_orders = (*other_orders, *changed_orders)
    if not store.orders.replace_orders(all_orders, None, step.history.orders.version):
        raise Retryable("a cycle changed the orders in the meantime", "try again")


def _subject_tokens(
    portfolio: Portfolio, orders: Iterable[ConditionalOrder], subject: str
) -> set[str]:
    if subject == ALL:
        return {
            PORTFOLIO_SUBJECT,
            *(asset.token.address for asset in portfolio.assets),
            *(order.token for order in orders),
        }
    if subject == PORTFOLIO_SUBJECT:
        return {PORTFOLIO_SUBJECT}
    asset_addresses = {
        asset.token.address
        for asset in portfolio.assets
        if subject in (asset.token.symbol, asset.token.address)
    }
    if not asset_addresses:
        labels = ", ".join(asset.token.label for asset in portfolio.assets)
        raise ConfigError(
            f"orders: {subject!r} is not an asset", f"choose from {labels}, portfolio, all"
        )
    return asset_addresses


def _subject_text(subject: str) -> str:
    return "the portfolio" if subject in (ALL, PORTFOLIO_SUBJECT) else subject


def _reenabled_assets(portfolio: Portfolio, orders: Sequence[ConditionalOrder]) -> list[str]:
    """Return the assets that these orders had exited or were exiting."""
    exited_tokens = [
        order.token for order in orders if order.is_exit and order.stage in EXITED_STAGES
    ]
    return [
        conditional_orders.order_subject(portfolio, token) for token in dict.fromkeys(exited_tokens)
    ]


def _named_order(portfolio: Portfolio, order: ConditionalOrder) -> NamedOrderDocument:
    return {
        "subject": (
            PORTFOLIO_SUBJECT
            if order.token == PORTFOLIO_SUBJECT
            else conditional_orders.order_subject(portfolio, order.token)
        ),
        "kind": order.kind.value,
        "stage": order.stage.value,
    }


def _order_document(
    step: StepInput, order: ConditionalOrder, stored_order: ConditionalOrder | None
) -> ConditionalOrderDocument:
    """Return the row of an order: `stored_order` as it is, and what the next cycle would make of
    it.
    """
    since_s = None
    since_text = None
    if stored_order is None:
        shown_order = _waiting_order(order.terms)
    else:
        shown_order = replace(stored_order, terms=order.terms)
        since_s = stored_order.since_s
        since_text = format_time(stored_order.since_s)
    price = _current_price(step, order.token)
    level = conditional_orders.trigger_price(shown_order)
    distance = None if price is None else conditional_orders.distance_to_trigger(shown_order, price)
    unconfirmed_order = next(
        (
            unconfirmed_order
            for unconfirmed_order in unconfirmed_orders(step)
            if unconfirmed_order.key == order.key and unconfirmed_order.stage is not order.stage
        ),
        None,
    )
    level_if_armed = None
    if level is None:
        level_if_armed = conditional_orders.trigger_price(unconfirmed_order or order)
    terms = shown_order.terms
    highest_price = shown_order.highest_price if order.kind is OrderKind.TRAILING_STOP else None
    return {
        **_named_order(step.portfolio, shown_order),
        "terms": (
            _coin_price_text(step.portfolio, terms.token, terms.price) or ""
            if terms.share_bps is None
            else format_bps(terms.share_bps)
        ),
        "level": _coin_price_text(step.portfolio, order.token, level),
        "level_now": _coin_price_text(step.portfolio, order.token, level_if_armed),
        "price": _coin_price_text(step.portfolio, order.token, price),
        "distance_bps": None if distance is None else round(distance * BPS),
        "basis": _coin_price_text(step.portfolio, order.token, shown_order.base_price),
        "highest": _coin_price_text(step.portfolio, order.token, highest_price),
        "fired_at": _coin_price_text(step.portfolio, order.token, shown_order.event_price),
        "since_s": since_s,
        "since": since_text,
        "next_stage": None if order.stage is shown_order.stage else order.stage.value,
        "unconfirmed": None if unconfirmed_order is None else unconfirmed_order.stage.value,
        "filled_at_once": conditional_orders.was_filled_when_armed(shown_order),
    }


def _coin_price_text(portfolio: Portfolio, token: str, price: Price | None) -> str | None:
    """Return a price in whole coins of the numeraire; for the portfolio, its NAV per share."""
    if price is None:
        return None
    if token == PORTFOLIO_SUBJECT:
        return price_text(price, 0, 0)
    listed_token = portfolio.find_token(token)
    if listed_token is None:
        return None
    return price_text(price, listed_token.decimals, portfolio.numeraire.decimals)


def _current_price(step: StepInput, token: str) -> Price | None:
    if token == PORTFOLIO_SUBJECT:
        return _nav_per_share(step)
    reference_price = reference_prices(step).reference_by_token.get(token)
    return None if reference_price is None else reference_price.price


def _nav_per_share(step: StepInput) -> Fraction:
    prices = reference_prices(step).price_by_token
    return conditional_orders.nav_per_share_at(
        step.history.orders.nav_per_share, prices, margin_result(step, prices)
    )


MAX_ORDER_LIFETIME_S = 90 * DAY_S
"""Longest lifetime of a limit order."""
POLL_INTERVAL_S = 12.0
"""Interval between cycles while a command waits for its limit order."""


@dataclass(frozen=True, slots=True)
class LimitOrderRequest:
    """A limit order as entered: sell `amount` of `token_in` for `token_out` at `price` or better
    before `until`; with `wait`, try until it ends; with `again` also beside an equal one.
    """

    token_in: str
    token_out: str
    amount: str
    price: str
    until: str
    wait: bool = False
    again: bool = False


def swap_at_limit(
    agent: Agent,
    request: LimitOrderRequest,
    *,
    send: bool,
    confirm: Confirm,
    progress: Progress,
    confirm_price: Callable[[LimitPricesDocument], bool] = lambda _: True,
) -> tuple[LimitOrder, StepOutcome]:
    """Place a limit order and try it once; with `wait` until it ends, or a try fails.

    Without `send` it is only evaluated. With `send` it is recorded, and `trimtab run --send`
    continues it; a repeated command continues the equal order that is open. `confirm_price` receives
    the limit and the market price (documents.plans.limit_prices). Raises ConfigError for an invalid
    price or time, Refused if an equal order was filled within the last hour, unless `request.again`.
    """
    context = agent.context
    new_order = _new_limit_order(agent, request)
    dry_run = evaluation.evaluate(context.readers, proposals.single_order_proposer(new_order))
    if not send:
        return new_order, dry_run
    if not confirm_price(limit_prices(new_order, dry_run.step_input)) or not confirm(dry_run):
        return new_order, replace(
            dry_run,
            kind=OutcomeKind.DECLINED,
            reason="not confirmed; nothing was recorded or sent",
        )
    session = wiring.open_wallet_session(context, lambda _: True, progress)
    with session.open_transactor() as transactor:
        equal_order = None if request.again else _equal_order(context, new_order, transactor)
        order = equal_order or context.store.executions.add_limit_order(new_order)
        outcome = _try_order(context, order, transactor)
    while (
        order := next(
            limit_order
            for limit_order in context.store.executions.limit_orders()
            if limit_order.id == order.id
        )
    ).state is ExecutionState.OPEN and request.wait:
        progress(f"{order.note}: {outcome.reason}")
        context.clock.sleep(POLL_INTERVAL_S)
        with session.open_transactor() as transactor:
            outcome = _try_order(context, order, transactor)
    if equal_order is not None:
        placed_text = f"order {order.id} was placed before, until {format_time(order.until_s)}"
        outcome = replace(outcome, reason=f"{outcome.reason}; {placed_text}")
    return order, outcome


def _equal_order(
    context: wiring.AgentContext, new_order: LimitOrder, transactor: StepTransactor
) -> LimitOrder | None:
    """Settle open transactions, and return the equal order that is open, or whose swap the repeated
    command has to report; None without one. Raises Refused if an equal order was filled lately.
    """
    engine.settle(context.readers, context.store, transactor)
    store = context.store
    equal_order = store.executions.find_equal_order(new_order, new_order.begun_s - RECENT_S)
    if equal_order is None or equal_order.state is ExecutionState.OPEN:
        return equal_order
    open_order = replace(equal_order, state=ExecutionState.OPEN, why="")
    cycle = store.cycles.find_open_cycle()
    if cycle is not None and cycle.request == SwapAtPrice(open_order):
        return open_order
    store.executions.end(equal_order.id, equal_order.state, equal_order.why, new_order.begun_s)
    raise Refused(
        f"order {equal_order.id} has sold the same, {equal_order.why}",
        remedy="to sell it a second time: the same with --again",
    )


def _try_order(
    context: wiring.AgentContext, order: LimitOrder, transactor: StepTransactor
) -> StepOutcome:
    """Run one cycle that fills the order if its price is reached. An error says that it is recorded."""
    try:
        outcome = engine.run_cycle(context.readers, SwapAtPrice(order), context.store, transactor)
    except TrimtabError as error:
        error.message += (
            f"; order {order.id} is recorded: trimtab run --send fills it, trimtab limit --cancel"
            f" {order.id} ends it"
        )
        raise
    close_ended_orders(context, outcome.input_after or outcome.step_input)
    return outcome


def _new_limit_order(agent: Agent, request: LimitOrderRequest) -> LimitOrder:
    token_in = agent.token(request.token_in, "--in")
    token_out = agent.token(request.token_out, "--out")
    if token_in == token_out:
        raise ConfigError("--out: the same token as --in", "name two tokens")
    amount_in_raw = parse_raw(request.amount, token_in.decimals, "--amount")
    if amount_in_raw == 0:
        raise ConfigError("--amount must be above 0", "for example --amount 0.1")
    limit_price = Fraction(parse_raw(request.price, 36, "--price"), 10**36) * Fraction(10) ** (
        token_out.decimals - token_in.decimals
    )
    if limit_price == 0:
        raise ConfigError(
            "--price must be above 0", "give the minimum --out per --in, or omit --price"
        )
    head_s = agent.context.readers.reader.snapshot().head.timestamp_s
    until_s = _parse_until_s(request.until, head_s, agent.context.execution.deadline_s)
    limit_text = (
        f"{price_text(limit_price, token_in.decimals, token_out.decimals)} {token_out.label} per"
        f" {token_in.label}"
    )
    order_note = f"sell {decimal_text(amount_in_raw, token_in.decimals)} {token_in.label} at {limit_text} or better"
    return LimitOrder(
        "",
        token_in.address,
        token_out.address,
        amount_in_raw,
        limit_price,
        until_s,
        head_s,
        note=order_note,
    )


def _parse_until_s(until_text: str, now_s: int, deadline_s: int) -> int:
    """Return the chain time, in seconds, of a duration from now or of a time such as
    2027-01-31T18:00Z. Raises ConfigError unless an order could be sent before: a transaction is
    valid for `deadline_s`.
    """
    try:
        until_s = now_s + parse_duration_s(until_text, "--until")
    except ConfigError:
        try:
            until_time = datetime.fromisoformat(until_text)
        except ValueError:
            raise ConfigError(
                f"--until: {until_text!r} is neither a duration nor a time",
                "for example 4h, or 2027-01-31T18:00Z",
            ) from None
        if until_time.tzinfo is None:
            raise ConfigError(
                f"--until: {until_text!r} has no time zone", "for example 2027-01-31T18:00Z"
            ) from None
        until_s = int(until_time.timestamp())
    if until_s <= now_s:
        raise ConfigError(
            f"--until: {until_text!r} is not after the newest block, of {format_time(now_s)}",
            "for example 4h",
        )
    if until_s <= now_s + deadline_s:
        raise ConfigError(
            f"--until: {until_text!r} is within execution.deadline ({format_duration(deadline_s)}) of"
            " the newest block, so the order would expire unsent",
            "give a later time, for example 4h",
        )
    if until_s > now_s + MAX_ORDER_LIFETIME_S:
        raise ConfigError(
            f"--until: {until_text!r} must be within 90 days of the newest block", "for example 4h"
        )
    return until_s
