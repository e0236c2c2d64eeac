"""What goes on over time: rounds one after the other in one command, and orders by hand that wait for their price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from agent import engine, wiring
from agent.api.corrections import limit_prices
from agent.api.schedule import rest
from agent.config.fields import parse_duration_s
from agent.errors import ConfigError
from agent.execution.outcome import Hands, Outcome, OutcomeKind
from agent.model import LimitOrder, OwnStrategy, StepInput, Style, SwapAtPrice, Underway
from agent.planning import strategies
from agent.policy.expiry import late
from agent.store.versions import Edited
from agent.units import Token, decimal_text, parse_raw, price_text

if TYPE_CHECKING:
    from agent.api.agent import Agent

Progress = Callable[[str], None]
Confirm = Callable[[Outcome], bool]
LONGEST_S = 90 * 86_400
"""How long an order may wait."""
POLL_S = 12.0
"""Between two looks of an order that somebody waits for in the foreground."""
GOES_ON = (OutcomeKind.DONE, OutcomeKind.HOLD)


def step(desk: wiring.Desk, hands: Hands | None) -> Outcome:
    """One look of a run: the orders that wait for their price, else the agent's own strategy."""
    orders = tuple(order for order in desk.store.orders() if order.state == "open")
    outcome = engine.step(desk.eyes, OwnStrategy(orders), desk.store, hands)
    if orders and hands is not None:
        settle_orders(desk, outcome.after or outcome.step_input)
    return outcome


def settle_orders(desk: wiring.Desk, step_input: StepInput) -> None:
    """Writes down which orders are filled, and which are too late by chain time: those are never filled any more (T14)."""
    chain_s = step_input.snapshot.head.timestamp_s
    for order in desk.store.orders():
        if order.state == "filled":
            desk.store.end_campaign(order.id, order.state, order.why, chain_s)
        elif order.state == "open" and (why := late(step_input, order)):
            desk.store.end_campaign(order.id, "expired", why, chain_s)


def go_on(wallet: wiring.Wallet, first: Outcome) -> Outcome:
    """Carries a correction on that is under way in rounds, round after round, until it ends or a look says no.

    Between two rounds the wallet is free for others, who find in the store what is under way. Each round is a step of its own,
    decided anew; it was confirmed once, with the first of them. The outcome is that of the last round, with the transactions of all.
    """
    desk = wallet.desk
    outcome, last, sent, rounds = first, first, list(first.transactions), 0
    while (under := _spread(desk, outcome)) is not None and outcome.kind in GOES_ON:
        rounds += outcome.kind is OutcomeKind.DONE
        now_s = (outcome.after or outcome.step_input).snapshot.head.timestamp_s
        wallet.progress(f"round {under.done + 1} of about {under.campaign.rounds} is due in {max(0, under.next_s - now_s)} s")
        rest(max(1, under.next_s - now_s), desk.clock, lambda: False)
        try:
            with wallet.held() as hands:
                outcome = engine.step(desk.eyes, OwnStrategy(), desk.store, hands)
        except Edited as edited:  # what was sent by then is told with it
            return replace(outcome, kind=OutcomeKind.REFUSED, reason=str(edited), transactions=tuple(sent), verdicts=edited.verdicts)
        sent += outcome.transactions
        last = outcome if outcome.kind is not OutcomeKind.HOLD else last
    if outcome is first:
        return first
    if outcome.kind is OutcomeKind.HOLD and last.kind is OutcomeKind.DONE:
        return replace(last, transactions=tuple(sent), reason=outcome.reason, after=outcome.step_input)
    return replace(outcome, transactions=tuple(sent))


def asked_once(confirm: Confirm) -> Confirm:
    """Once somebody has said yes, that holds for every later round; not for what takes the place of what was refused."""
    said: list[bool] = []

    def answer(outcome: Outcome) -> bool:
        if not said or not said[-1] or outcome.around:
            said.append(confirm(outcome))
        return said[-1]

    return answer


def _spread(desk: wiring.Desk, outcome: Outcome) -> Underway | None:
    """The campaign in rounds that is under way in the store; None where there is none."""
    now_s = (outcome.after or outcome.step_input).snapshot.head.timestamp_s
    under = desk.store.history(now_s).campaign
    return None if under is None or under.campaign.pace.style is Style.LIMIT else under


# orders by hand
def swap_at(
    agent: Agent,
    names: tuple[str, str],
    amount: str,
    price: str,
    until: str,
    *,
    send: bool,
    wait: bool,
    confirm: Confirm,
    progress: Progress,
    sure: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> tuple[LimitOrder, Outcome]:
    """Sells `amount` of the first of `names` for the second at `price` or better until then.

    Without `send` it only looks. With it the order is written down, tried once, and with `wait` tried until it ends; else
    `trimtab run --send` goes on with it. `sure` is asked with the limit beside the market's price (corrections.limit_prices). Raises
    ConfigError for a price or time that is none.
    """
    desk = agent.desk
    sold, bought = agent.token(names[0], "--in"), agent.token(names[1], "--out")
    shown = engine.look(desk.eyes, strategies.one_order(made := _order(agent, (sold, bought), amount, price, until)))
    if not send:
        return made, shown
    if not sure(limit_prices(made, shown.step_input)) or not confirm(shown):
        return made, replace(shown, kind=OutcomeKind.DECLINED, reason="not confirmed; nothing was written down, nothing sent")
    wallet = wiring.open_wallet(desk, lambda _: True, progress)
    with wallet.held() as hands:
        order = desk.store.add_order(made)
        outcome = _tried(desk, order, hands)
    while (order := next(one for one in desk.store.orders() if one.id == order.id)).state == "open" and wait:
        progress(f"{order.note}: {outcome.reason}")
        desk.clock.sleep(POLL_S)
        with wallet.held() as hands:
            outcome = _tried(desk, order, hands)
    return order, outcome


def _tried(desk: wiring.Desk, order: LimitOrder, hands: Hands) -> Outcome:
    """One look whether the order fills."""
    outcome = engine.step(desk.eyes, SwapAtPrice(order), desk.store, hands)
    settle_orders(desk, outcome.after or outcome.step_input)
    return outcome


def _order(agent: Agent, tokens: tuple[Token, Token], amount: str, price: str, until: str) -> LimitOrder:
    sold, bought = tokens
    if sold == bought:
        raise ConfigError("--out: the same token as --in", "name two tokens")
    raw = parse_raw(amount, sold.decimals, "--amount")
    if raw == 0:
        raise ConfigError("--amount must be above 0", "for example --amount 0.1")
    exact = Fraction(parse_raw(price, 36, "--limit"), 10**36) * Fraction(10) ** (bought.decimals - sold.decimals)
    if exact == 0:
        raise ConfigError("--limit must be above 0", "give the minimum --out per --in, or omit --limit")
    head_s = agent.desk.eyes.reader.snapshot().head.timestamp_s
    until_s = _until(until, head_s)
    least = f"{price_text(exact, sold.decimals, bought.decimals)} {bought.label}"
    note = f"sell {decimal_text(raw, sold.decimals)} {sold.label} at {least} or better"
    return LimitOrder("", sold.address, bought.address, raw, exact, until_s, head_s, note=note)


def _until(text: str, now_s: int) -> int:
    """Chain seconds of a duration from now, or of a time such as 2027-01-31T18:00Z."""
    try:
        until_s = now_s + parse_duration_s(text, "--until")
    except ConfigError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ConfigError(f"--until: {text!r} is neither a duration nor a time", "for example 4h, or 2027-01-31T18:00Z") from None
        if moment.tzinfo is None:
            raise ConfigError(f"--until: {text!r} has no time zone", "for example 2027-01-31T18:00Z") from None
        until_s = int(moment.timestamp())
    if not now_s < until_s <= now_s + LONGEST_S:
        raise ConfigError(f"--until: {text!r} must be within 90 days of the newest block", "for example 4h")
    return until_s
