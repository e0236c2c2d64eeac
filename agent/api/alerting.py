"""What a look is worth telling the owner, in our own words alone: no reason of a node, no name of a stranger (T17)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from agent.api.drift_alerts import OPEN, drifted, traded
from agent.errors import EXIT_OPERATOR, Refused, Retryable, TrimtabError
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import Alert, AlertKind, IntentKind, OrderStage, StepInput, StuckExit, Verdict
from agent.model.strategies import Health
from agent.observe.alerts import plain
from agent.policy import flows, order_levels
from agent.policy.stuck import disarmed
from agent.units import Price, decimal_text

LASTING = frozenset(AlertKind) - {AlertKind.REBALANCE, AlertKind.ERROR, AlertKind.TEST}
ALWAYS_KNOWN = frozenset({AlertKind.PAUSED, AlertKind.HEARTBEAT})
"""What also a look that failed knows."""
KILL_SWITCH = "kill_switch"
"""What this guard alone refuses is told as the pause that it is."""
FAILURES = "reverts_in_row"
"""This guard lets exits go on, which its owner should know."""
MOVING = (IntentKind.SWAP, IntentKind.LIQUIDITY, IntentKind.PAYOUT, IntentKind.UNWRAP)
_FIGURE = re.compile(r"[-+]?[0-9][0-9,.]* ?(%|bps|s|gwei|wei|blocks?)?")
_GUARD = re.compile(r"[a-z_]{1,40}")
LONGEST_KEY = 200
_STEP = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known beside the look: the kill switch, why no sign of life comes from it (empty where all is well), and the native
    coin below which gas is low, in wei, None where nobody said.
    """

    paused: bool
    silent: str
    low_gas_wei: int | None


def judged(found: Outcome | TrimtabError) -> frozenset[AlertKind]:
    """Kinds of which this look knows all that lasts: what it does not tell is over."""
    if isinstance(found, TrimtabError):
        return ALWAYS_KNOWN | ({AlertKind.REFUSAL} if isinstance(found, Refused) else frozenset())
    return LASTING if found.decided.drifts and found.kind in OPEN else LASTING - {AlertKind.PRICE, AlertKind.REVIEW}


def alerts(found: Outcome | TrimtabError, facts: Facts) -> tuple[Alert, ...]:
    """What is worth telling of one look, in the order in which it came about."""
    return tuple(Alert(one.kind, one.key, plain(one.text), one.lasting) for one in _alerts(found, facts))


def _alerts(found: Outcome | TrimtabError, facts: Facts) -> Iterator[Alert]:
    if isinstance(found, TrimtabError):
        yield from _failed(found)
    else:
        yield from drifted(found)
        yield from _orders(found.after or found.step_input)
        yield from (_stuck(found.step_input, one) for one in found.decided.stuck)
        yield from _strategies(found.after or found.step_input)
        yield from _ended(found, facts.paused)
        yield from _unexplained(found)
        yield from _gas(found.after or found.step_input, facts.low_gas_wei)
    if facts.paused:
        yield Alert(AlertKind.PAUSED, "paused", "The kill switch is on: nothing is sent. trimtab resume switches it off.", True)
    if facts.silent:
        yield Alert(AlertKind.HEARTBEAT, "heartbeat", facts.silent, True)


def _orders(step: StepInput) -> Iterator[Alert]:
    """Orders that fired; each lasts until its owner arms it anew."""
    for order in step.history.orders:
        if order.stage not in (OrderStage.FIRED, OrderStage.DONE):
            continue
        at = "" if order.at is None else f" at {order_levels.price_words(step.portfolio, order.token, order.at)}"
        then = "trimtab orders shows it, and arms it anew" if order.is_exit else "it may be bought"
        what = order_levels.name(step.portfolio, order.terms)
        yield Alert(AlertKind.ORDER, f"order:{order.token}:{order.kind.value}", f"Fired: {what}{at}; {then}.", True)


def _stuck(step: StepInput, one: StuckExit) -> Alert:
    """An exit that cannot be done; it lasts until it is done, or called off."""
    label = order_levels.subject(step.portfolio, one.token)
    text = (
        f"{label} is to be sold by an order and cannot be sold now; everything else goes on. trimtab orders says why; {disarmed(step, one)}"
    )
    return Alert(AlertKind.ORDER, f"stuck:{one.token}", text, True)


def _unexplained(found: Outcome) -> Iterator[Alert]:
    """What holds purchases back while something else is done, and what was accepted as a deposit; a halt says the first itself."""
    step = found.step_input
    if found.kind is not OutcomeKind.HALT and (held := flows.halting(step)):
        yield Alert(AlertKind.HALT, "halt", f"Nothing is bought or rebalanced: {held}", True)
    for flow in step.history.accepted:
        text = f"{flows.words(step, flow)}: accepted as a deposit, since nobody explained it. trimtab flows --all"
        yield Alert(AlertKind.HALT, f"accepted:{flow.id}", text, True)


def _strategies(step: StepInput) -> Iterator[Alert]:
    """Strategies that the health rule has cut; each lasts until it is let back."""
    for one in step.history.sleeves.sleeves if step.history.sleeves is not None else ():
        if one.state.health is Health.PAUSED:
            text = f"Strategy {one.name} is paused and waits in {step.portfolio.numeraire.label}: {one.state.reason}. trimtab strategies"
            yield Alert(AlertKind.ORDER, f"strategy:{one.name}", text, True)


def _ended(found: Outcome, paused: bool) -> Iterator[Alert]:
    step = f"trimtab explain {found.step_id}" if _STEP.fullmatch(found.step_id) else "trimtab explain"
    failing = [verdict for verdict in (*(found.plan.verdicts if found.plan else ()), *found.verdicts) if not verdict.passed]
    match found.kind:
        case OutcomeKind.DONE:
            yield from _done(found, step)
        case OutcomeKind.FAILED:
            yield Alert(AlertKind.ERROR, "failed", f"A transaction did not succeed; nothing more was sent in that step. {step}")
        case OutcomeKind.REFUSED if not (paused and {verdict.guard for verdict in failing} == {KILL_SWITCH}):
            trades = traded(found.plan, found.step_input.portfolio)
            yield _refusal(failing, f"{f'It would {trades}. ' if trades else ''}{step}")
        case OutcomeKind.HALT if not paused:
            yield Alert(AlertKind.HALT, "halt", f"Nothing is traded: {found.reason}", True)
        case _:
            pass


def _done(found: Outcome, step: str) -> Iterator[Alert]:
    moved = [intent for intent in found.transactions if intent.kind in MOVING and intent.succeeded]
    if not moved:
        return
    what = "A rebalance is done" if any(intent.kind is IntentKind.SWAP for intent in moved) else "What was asked for is done"
    blocks = [intent.receipt.block_number for intent in moved if intent.receipt is not None]
    at = f", last at block {max(blocks)}" if blocks else ""
    sent = len(found.transactions)
    trades = traded(found.plan, found.step_input.portfolio, ("sold", "bought"))
    text = f"{what}: {sent} {'transaction' if sent == 1 else 'transactions'}{at}. {f'Planned: {trades}. ' if trades else ''}{step}"
    yield Alert(AlertKind.REBALANCE, "rebalance", text)


def _refusal(failing: list[Verdict], step: str) -> Alert:
    """Guards by their names; figures only where they are plain ones."""
    told = {}
    for verdict in failing:
        name = verdict.guard if _GUARD.fullmatch(verdict.guard) else "a guard"
        figures = [text.strip() for text in (verdict.measured, verdict.limit)]
        told[name] = f"{name} ({figures[0]}, limit {figures[1]})" if all(map(_FIGURE.fullmatch, figures)) else name
    why = f"by {', '.join(told.values())}" if told else "before anything was sent"
    row = " Transactions failed in a row: rebalances stop until trimtab resume, exits go on with growing waits." if FAILURES in told else ""
    return Alert(AlertKind.REFUSAL, f"refusal:{','.join(told)}"[:LONGEST_KEY], f"A plan was refused {why}.{row} {step}", True)


def _gas(step: StepInput, low_wei: int | None) -> Iterator[Alert]:
    found = step.snapshot.native_wei
    if low_wei is not None and found < low_wei:
        text = f"The wallet has {_coins(found)} of native coin for gas, less than {_coins(low_wei)}."
        yield Alert(AlertKind.LOW_GAS, "low_gas", text, True)


def _failed(error: TrimtabError) -> Iterator[Alert]:
    """A network that fails once is no news: its silence is, once it lasts."""
    if isinstance(error, Refused):
        yield _refusal([verdict for verdict in error.verdicts if not verdict.passed], "See the log and trimtab doctor.")
    elif not isinstance(error, Retryable):
        yield ended(error)


def ended(error: TrimtabError) -> Alert:
    """A run that ends by an error. Its words may quote a node, so they stay in the log."""
    who = "a person is needed" if error.exit_code == EXIT_OPERATOR else f"exit code {error.exit_code}"
    return Alert(AlertKind.ERROR, "error", f"The run has ended: {who}. The log and trimtab doctor say why.")


def hung() -> Alert:
    """A look that gave no sign of life."""
    return Alert(AlertKind.ERROR, "hung", "A look hung and the run has ended itself with exit code 13, to be started anew.")


def _coins(wei: int) -> str:
    """Rounded down to six places."""
    return decimal_text(wei // 10**12, 6)


def distance(price: Price, limit: Price | None) -> Fraction | None:
    """How far the price is from a limit, as a share of the price with sign: what it has to move by."""
    return None if limit is None or price == 0 else limit / price - 1
