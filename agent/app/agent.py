"""The connected agent: status, quote, plan, rebalance, swap, run; also limit swaps, the hard pause, and config updates of a run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from agent import codec, engine, wiring
from agent.accounting.tax_lots import wallet_changes as planned_changes
from agent.amm.errors import KnownTicksExceeded
from agent.amm.lp import positions
from agent.app import describe, withdrawal_parts
from agent.app.describe import Sandwich, limit_prices, parameters, sandwich
from agent.app.start import least_total
from agent.app.start.endpoints import endpoint_records
from agent.chain.rpc import Transport
from agent.config.fields import parse_address, parse_duration_s
from agent.config.limits import accepted_limits
from agent.config.load import LoadedConfig, load_config
from agent.errors import ConfigError, Refused, Retryable, TrimtabError
from agent.execution.approvals import set_to_zero
from agent.execution.settlement import native_delta, settle_mined
from agent.execution.step_context import CaughtUpReader, OutcomeKind, StepActors, StepOutcome, StepReaders, TickExtender, confirm_prices
from agent.execution.submitter import format_open_allowances
from agent.model import (
    AgentCycle,
    ExecutionProgress,
    ExecutionStyle,
    Intent,
    IntentKind,
    IntentState,
    LimitOrder,
    ManualAction,
    PlanRequest,
    Portfolio,
    StepInput,
    Swap,
    SwapAtPrice,
    Verdict,
)
from agent.planning import planner, proposals
from agent.planning.planner import Quote
from agent.policy import minimum, native_coin
from agent.policy.decide import DecisionResult, current_drifts, halt_for
from agent.policy.drift import investable_total, overweight_messages
from agent.policy.liquidity import valuation
from agent.policy.orders.levels import expiry_reason
from agent.ports import Approval, Clock, Journal, SigningKey
from agent.signing.keys import SuppliedKey
from agent.store.config_versions import ConfigChanged
from agent.store.files.locks import LockHeld
from agent.store.journal import family
from agent.units import NATIVE, Token, decimal_text, parse_raw, price_text
from agent.venues import composer

# --- Scheduling of a long run: clock, chance and work are passed in, so that a test runs a year in a moment.


T = TypeVar("T")
JITTER = 0.1
"""Share of the interval by which each cycle is delayed at random, so that a schedule does not announce trades (T15)."""
SLEEP_SLICE_S = 5.0
"""Seconds per slice of a pause: the longest time until an early end is noticed."""


def run_periodically(
    cycle: Callable[[], T],
    interval_s: float,
    clock: Clock,
    chance: Callable[[], float],
    called: Callable[[], bool] = lambda: False,
) -> Iterator[T]:
    """Call `look` without end, with a pause after each call. `chance` returns numbers in [0, 1); `called` ends a pause early."""
    while True:
        yield cycle()
        interruptible_sleep(interval_s * (1 + chance() * JITTER), clock, called)


def interruptible_sleep(seconds: float, clock: Clock, called: Callable[[], bool]) -> None:
    """Sleep that many seconds, or until `called` is true."""
    left_s = seconds
    while left_s > 0 and not called():
        clock.sleep(min(left_s, SLEEP_SLICE_S))
        left_s -= SLEEP_SLICE_S


# --- Gradual execution: slice after slice in one command, and limit orders that wait for their price.


Progress = Callable[[str], None]
Confirm = Callable[[StepOutcome], bool]
MAX_ORDER_S = 90 * 86_400
"""Longest lifetime of a limit order."""
POLL_S = 12.0
"""Interval between cycles of a limit order in the foreground."""
CONTINUE_KINDS = (OutcomeKind.DONE, OutcomeKind.HOLD)


def run_cycle(context: wiring.AgentContext, actors: StepActors | None) -> StepOutcome:
    """Run one cycle: limit orders that wait for their price, else the agent's own strategy."""
    orders = tuple(order for order in context.store.orders() if order.state == "open")
    outcome = engine.run_step(context.readers, AgentCycle(orders), context.store, actors)
    if orders and actors is not None:
        close_orders(context, outcome.after or outcome.step_input)
    return outcome


def close_orders(context: wiring.AgentContext, step_input: StepInput) -> None:
    """Record filled orders and orders expired by chain time: those are never filled any more (T14)."""
    chain_s = step_input.snapshot.head.timestamp_s
    for order in context.store.orders():
        if order.state == "filled":
            context.store.end_gradual_execution(order.id, order.state, order.why, chain_s)
        elif order.state == "open" and (why := expiry_reason(step_input, order)):
            context.store.end_gradual_execution(order.id, "expired", why, chain_s)


def continue_execution(wallet: wiring.WalletSession, first: StepOutcome) -> StepOutcome:
    """Continue a gradual execution, slice after slice, until it ends or a cycle refuses.

    Between two slices other commands may use the wallet; the store has the progress. Each slice is a step of its own, decided anew; it was
    confirmed once, with the first. The outcome is that of the last slice, with the transactions of all.
    """
    context = wallet.desk
    outcome, last, sent, rounds = first, first, list(first.transactions), 0
    while (under := _open_execution(context, outcome)) is not None and outcome.kind in CONTINUE_KINDS:
        rounds += outcome.kind is OutcomeKind.DONE
        now_s = (outcome.after or outcome.step_input).snapshot.head.timestamp_s
        wallet.progress(f"round {under.done + 1} of about {under.campaign.rounds} is due in {max(0, under.next_s - now_s)} s")
        interruptible_sleep(max(1, under.next_s - now_s), context.clock, lambda: False)
        try:
            with wallet.held() as actors:
                outcome = engine.run_step(context.readers, AgentCycle(), context.store, actors)
        except ConfigChanged as edited:  # transactions sent by then are reported with it
            return replace(outcome, kind=OutcomeKind.REFUSED, reason=str(edited), transactions=tuple(sent), verdicts=edited.verdicts)
        sent += outcome.transactions
        last = outcome if outcome.kind is not OutcomeKind.HOLD else last
    if outcome is first:
        return first
    if outcome.kind is OutcomeKind.HOLD and last.kind is OutcomeKind.DONE:
        return replace(last, transactions=tuple(sent), reason=outcome.reason, after=outcome.step_input)
    return replace(outcome, transactions=tuple(sent))


def confirm_once(confirm: Confirm) -> Confirm:
    """Return a confirmation that is asked once and holds for every later slice; not for a plan that replaces a refused one."""
    confirmations: list[bool] = []

    def answer(outcome: StepOutcome) -> bool:
        if not confirmations or not confirmations[-1] or outcome.around:
            confirmations.append(confirm(outcome))
        return confirmations[-1]

    return answer


def _open_execution(context: wiring.AgentContext, outcome: StepOutcome) -> ExecutionProgress | None:
    """The gradual execution in slices that is under way in the store; None without one."""
    now_s = (outcome.after or outcome.step_input).snapshot.head.timestamp_s
    under = context.store.history(now_s).campaign
    return None if under is None or under.campaign.pace.style is ExecutionStyle.LIMIT else under


# limit orders
def swap_at_limit(  # noqa: PLR0913
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
) -> tuple[LimitOrder, StepOutcome]:
    """Sell `amount` of the first of `names` for the second at `price` or better until then.

    Without `send` it only evaluates. With it the order is recorded, tried once, and with `wait` tried until it ends; else `trimtab run
    --send` continues it. `sure` is called with the limit beside the market's price (describe.limit_prices). Raises ConfigError for an
    invalid price or time.
    """
    context = agent.desk
    sold, bought = agent.token(names[0], "--in"), agent.token(names[1], "--out")
    shown = engine.evaluate(context.readers, proposals.single_order(made := _order(agent, (sold, bought), amount, price, until)))
    if not send:
        return made, shown
    if not sure(limit_prices(made, shown.step_input)) or not confirm(shown):
        return made, replace(shown, kind=OutcomeKind.DECLINED, reason="not confirmed; nothing was written down, nothing sent")
    wallet = wiring.open_wallet_session(context, lambda _: True, progress)
    with wallet.held() as actors:
        order = context.store.add_order(made)
        outcome = _try_order(context, order, actors)
    while (order := next(one for one in context.store.orders() if one.id == order.id)).state == "open" and wait:
        progress(f"{order.note}: {outcome.reason}")
        context.clock.sleep(POLL_S)
        with wallet.held() as actors:
            outcome = _try_order(context, order, actors)
    return order, outcome


def _try_order(context: wiring.AgentContext, order: LimitOrder, actors: StepActors) -> StepOutcome:
    """Run one cycle that fills the order if its price is met."""
    outcome = engine.run_step(context.readers, SwapAtPrice(order), context.store, actors)
    close_orders(context, outcome.after or outcome.step_input)
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
    head_s = agent.desk.readers.reader.snapshot().head.timestamp_s
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
    if not now_s < until_s <= now_s + MAX_ORDER_S:
        raise ConfigError(f"--until: {text!r} must be within 90 days of the newest block", "for example 4h")
    return until_s


# --- Predicted against realised balance changes, by the receipts.


def realised_changes(context: wiring.AgentContext, outcome: StepOutcome) -> list[dict[str, Any]]:
    """Planned against realised change of each balance by the receipts of the swap and of all actions with liquidity, base units."""
    planned: dict[str, int] = {}
    got: dict[str, int] = {}
    for intent in outcome.transactions:
        if intent.receipt is None or intent.kind not in (IntentKind.SWAP, IntentKind.LIQUIDITY, IntentKind.UNWRAP):
            continue
        owner = outcome.step_input.snapshot.owner
        net = {NATIVE: native_delta(intent, owner, context.portfolio.wrapped_native)} | intent.receipt.net(owner)
        for token, raw in _planned(context, intent).items():
            planned[token] = planned.get(token, 0) + raw
            got[token] = got.get(token, 0) + net.get(token, 0)
    return [
        {"symbol": context.portfolio.token(token).label, "planned_raw": str(raw), "realised_raw": str(got[token])}
        for token, raw in planned.items()
    ]


def _planned(context: wiring.AgentContext, intent: Intent) -> dict[str, int]:
    grant = context.store.grant(intent.id)
    if grant.action is not None:
        return dict(zip((grant.action.token0, grant.action.token1), positions.expected_amounts(grant.action), strict=True))
    return {} if grant.plan is None else planned_changes(grant.plan)


# --- The hard kill switch: cancel pending transactions, revoke allowances, trade nothing (T14).


HARD_PAUSE_DECISION = "retreat"
"""Decision of a hard pause in the store: not a trigger's, so that a replay does not decide it again."""


@dataclass(frozen=True, slots=True)
class OpenExposure:
    """Subject of a hard pause: transactions that are in no block, and allowances above zero."""

    step_input: StepInput
    waiting: tuple[Intent, ...]
    allowed: tuple[Approval, ...]


def open_exposure(readers: StepReaders, store: Journal) -> OpenExposure:
    """Read pending transactions and open allowances; writes and sends nothing."""
    step_input = _assembled(readers)
    return OpenExposure(step_input, pending_intents(store), tuple(composer.revocations(step_input)))


def pending_intents(store: Journal) -> tuple[Intent, ...]:
    """Open transactions whose nonce is in no block, replacements included."""
    found = store.open_intents()
    mined = {intent.tx.nonce for intent in found if intent.state is IntentState.MINED}
    return tuple(intent for intent in found if intent.tx.nonce not in mined)


def cancel_and_revoke(readers: StepReaders, store: Journal, actors: StepActors, why: str) -> StepOutcome:
    """Cancel, then revoke, each through journal and signer. One token's refusal does not stop the others.

    HALT if nothing was left to do, DONE if all is done, FAILED if something remains, with the reason. Raises Refused unless the switch is
    at hard or off, Retryable and OperatorNeeded like a step.
    """
    before = pending_intents(store)
    actors.executor.cancel_pending(why)
    readers = replace(readers, reader=CaughtUpReader(readers.reader, store, readers.clock))
    snapshot = readers.reader.snapshot()
    settle_mined(store, snapshot, lambda: readers.step_input_at(snapshot))
    step_input = readers.step_input_at(snapshot)
    step_id = uuid.uuid4().hex[:12]
    store.begin_step(step_id, readers.clock.now_s(), codec.dumps(step_input), codec.dumps(ManualAction("pause --hard")))
    allowed = composer.revocations(step_input)
    sent, troubles = revoke_allowances(actors, step_id, step_input, allowed)
    after = _assembled(readers) if sent else step_input
    if left := composer.revocations(after):
        troubles.append(format_open_allowances(left))
    troubles += [f"«{note}» still waits" for note in dict.fromkeys(intent.note for intent in pending_intents(store))]
    cancels = _cancels(store, before)
    reason = _cancel_summary(why, before, cancels, sent, troubles)
    kind = OutcomeKind.FAILED if troubles else OutcomeKind.DONE if before or sent else OutcomeKind.HALT
    store.end_step(step_id, HARD_PAUSE_DECISION, reason, None, kind.value)
    return StepOutcome(step_id, kind, reason, step_input, halt_for(step_input, reason), None, transactions=(*cancels, *sent), after=after)


def revoke_allowances(
    actors: StepActors, step_id: str, step_input: StepInput, allowed: Sequence[Approval]
) -> tuple[list[Intent], list[str]]:
    """Set each of these approvals to zero; return the transactions, and the reasons of failures."""
    sent: list[Intent] = []
    if not actors.executor.ready(for_revoking=True):
        return sent, ["allowances wait for what waits"] if allowed else []
    troubles = set_to_zero(actors, step_id, step_input, allowed, sent)
    return sent, troubles


def _cancels(store: Journal, before: Sequence[Intent]) -> list[Intent]:
    """The formerly pending transactions and their cancels as they stand now."""
    newest = {intent.tx.nonce: intent.id for intent in before}
    return [intent for nonce, known in newest.items() for intent in family(store.intents_at(nonce), known)]


def _cancel_summary(why: str, before: Sequence[Intent], cancels: Sequence[Intent], sent: Sequence[Intent], troubles: Sequence[str]) -> str:
    if not before and not sent and not troubles:
        return f"hard pause ({why}): nothing waits, and nothing may be taken"
    won = [intent for intent in cancels if intent.succeeded and intent.kind is not IntentKind.CANCEL]
    nonces = len({intent.tx.nonce for intent in before})
    parts = [f"{nonces - len(won)} of {nonces} waiting transactions taken back"] if before else []
    parts += [f"«{intent.note}» was mined all the same" for intent in won]
    parts += [f"{sum(intent.succeeded for intent in sent)} of {len(sent)} allowances set to zero"] if sent else []
    return f"hard pause ({why}): {'; '.join([*parts, *troubles])}"


def _assembled(readers: StepReaders) -> StepInput:
    snapshot = readers.reader.snapshot()
    return readers.step_input_at(snapshot)


# --- Update of a running agent to a newly confirmed config; an edited file alone changes nothing.


FIXED_WHILE_RUNNING = ("chain", "wallet", "execution", "store", "service", "alerts", "record")
"""Tables read once at the start of a process: endpoints, key, contracts, alert targets."""
CONFIG_READ_ATTEMPTS = 3
"""Reads of the file, a second apart: an edit writes it just before the store."""


def with_confirmed_config(
    context: wiring.AgentContext, wallet: wiring.WalletSession | None, edited: ConfigChanged
) -> tuple[wiring.AgentContext, wiring.WalletSession | None]:
    """Context and wallet session for the config confirmed last, built while no other process has the wallet.

    Raises `edited` if the file is a different version, or the run is on paper; ConfigChanged if a table of READ_ONCE differs; LockHeld if
    another process keeps the wallet; Retryable from the endpoints.
    """
    if wallet is None:
        return _reopened(context, edited), None
    with wallet.locked():
        found = _reopened(context, edited)
    return found, replace(wallet, desk=found)


def _reopened(context: wiring.AgentContext, edited: ConfigChanged) -> wiring.AgentContext:
    loaded = None if context.loaded.paper else _confirmed(context)
    if loaded is None:
        raise edited
    changed = [f"[{name}]" for name in FIXED_WHILE_RUNNING if getattr(loaded.config, name) != getattr(context.config, name)]
    if changed:
        verdict = Verdict("config", ", ".join(changed), "as it was when the run began", False)
        raise ConfigChanged(
            f"the config was edited in {', '.join(changed)}, which a run reads when it begins", (verdict,), "start it again"
        )
    return wiring.reopen_context(context, loaded)


def _confirmed(context: wiring.AgentContext) -> LoadedConfig | None:
    """The config file, if it is the version confirmed last."""
    for attempt in range(CONFIG_READ_ATTEMPTS):
        if attempt:
            context.clock.sleep(1)
        with suppress(ConfigError):
            loaded = load_config(context.loaded.path)
            if loaded.digest == context.store.confirmed_config():
                return loaded
    return None


MIN_INTERVAL_S = 1
READING_STAGE = "Reading the chain"


def never_confirm(_: StepOutcome) -> bool:
    """Confirm nothing."""
    return False


def ignore_progress(_: str) -> None:
    """Discard progress."""


@dataclass(frozen=True, slots=True)
class PortfolioStatus:
    """Status of a portfolio: `paused` is the kill switch, `warnings` concern its size and limits.

    `endpoints` has the record of each endpoint, `hard` is True if the kill switch also cancels and revokes.
    """

    step_input: StepInput
    decided: DecisionResult
    paused: bool
    pause_reason: str
    warnings: tuple[str, ...]
    endpoints: tuple[dict[str, Any], ...] = ()
    hard: bool = False

    @property
    def native(self) -> native_coin.NativeView:
        """Native coin beside its wrapped token."""
        return native_coin.native_view(self.step_input)

    @property
    def least(self) -> dict[str, Any] | None:
        """The minimum total at which all of this works, the cost of a year, and the settings to change if the total is below it."""
        drifts = self.decided.drifts
        return least_total.least_total_now(self.step_input, investable_total(drifts)) if drifts else None

    @property
    def trigger(self) -> describe.TriggerView:
        """The trigger as text."""
        return describe.trigger_view(self.step_input, self.decided)


class Agent:
    """Operations of a connected agent. Nothing is sent unless `send` is true and `confirm` says yes."""

    def __init__(self, context: wiring.AgentContext) -> None:
        self.desk = context

    @property
    def portfolio(self) -> Portfolio:
        """Tokens and targets."""
        return self.desk.portfolio

    @property
    def on_paper(self) -> bool:
        """True if the agent trades on paper only."""
        return self.desk.loaded.paper

    def step_input(self) -> StepInput:
        """A fresh snapshot with the owner's targets and the stored history."""
        readers = self.desk.readers
        found = readers.reader.snapshot()
        return confirm_prices(readers, readers.step_input_at(found))

    def status(self) -> PortfolioStatus:
        """Status of the portfolio and the present decision."""
        step_input = self.step_input()
        stopped = self.desk.switch.read()
        decided, paused = proposals.decision_at(step_input), stopped.paused is not False
        notes = (*minimum.warnings(self.portfolio), *overweight_messages(decided.drifts), *valuation.warnings(step_input))
        warnings = (*notes, *accepted_limits(self.desk.config.limits))
        return PortfolioStatus(step_input, decided, paused, stopped.reason, warnings, self.endpoints(), stopped.hard)

    def quote(self, token_in: str, token_out: str, amount: str, pool: str | None = None) -> tuple[StepInput, Quote]:
        """Proceeds of selling `amount` whole coins of `token_in`, over all pools or in one; more ticks are read if needed."""
        sold, bought = self.token(token_in, "--in"), self.token(token_out, "--out")
        raw = self._amount(amount, sold)
        step_input = self.step_input()
        chosen = None if pool is None else parse_address(pool, "--pool")
        try:
            return step_input, planner.quote(step_input, sold.address, bought.address, raw, chosen)
        except KnownTicksExceeded:
            deeper = TickExtender(self.desk.readers.reader)(step_input)
            if deeper is None:
                raise
        return deeper, planner.quote(deeper, sold.address, bought.address, raw, chosen)

    def plan(self) -> StepOutcome:
        """Plan a rebalance now, judged by every guard; writes nothing."""
        return engine.evaluate(self.desk.readers, proposals.rebalance)

    def rebalance(self, *, send: bool = False, confirm: Confirm = never_confirm, progress: Progress = ignore_progress) -> StepOutcome:
        """Run one step; with a gradual style also the slices that follow, until the execution is done."""
        if not send:
            return engine.run_step(self.desk.readers, AgentCycle(), self.desk.store, None)
        wallet = wiring.open_wallet_session(self.desk, confirm_once(confirm), progress)
        with wallet.held() as actors:
            first = engine.run_step(self.desk.readers, AgentCycle(), self.desk.store, actors)
        return continue_execution(wallet, first)

    def swap(
        self,
        token_in: str,
        token_out: str,
        amount: str,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        progress: Progress = ignore_progress,
    ) -> StepOutcome:
        """Make one swap by hand, under the same guards."""
        sold, bought = self.token(token_in, "--in"), self.token(token_out, "--out")
        return self._step(Swap(sold.address, bought.address, self._amount(amount, sold)), send, confirm, progress)

    def run(  # noqa: C901
        self,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        every: str = "10m",
        once: bool = False,
        progress: Progress = ignore_progress,
    ) -> Generator[StepOutcome | TrimtabError, None, None]:
        """Run until stopped, and yield each outcome.

        Transient errors are yielded too (network errors, refusals before sending, a wallet that another process has); errors that need an
        operator are raised. With `send` the key is held from first to last, the wallet only during a cycle: between cycles other commands
        may act for it, and each cycle begins with the store as they left it. With `once` the wallet is not served.

        If the kill switch turns to hard a pause ends early, and pending transactions and allowances are taken back instead of a step; once
        the bot is stopped the run ends without another act. A newly confirmed config is taken up between two acts, while the run holds the
        wallet, or ConfigChanged is raised (with_confirmed_config). `progress` is called with READING_STAGE before each cycle.
        """
        interval_s = parse_duration_s(every, "--every")
        if interval_s < MIN_INTERVAL_S:
            raise ConfigError(f"--every: {every!r} is shorter than one second", "for example 10m")
        if send:
            self.require_not_stopped()
        with self._serving(send, confirm, progress, once) as wallet:
            turned, known, waits = [self.desk.switch.is_hard()], self.desk.store.confirmed_config(), False

            def cycle() -> StepOutcome | TrimtabError | None:
                nonlocal known, waits, wallet
                progress(READING_STAGE)
                try:
                    try:
                        return acted()
                    except ConfigChanged as edited:
                        if once:
                            raise
                        waits = True
                        self.desk, wallet = with_confirmed_config(self.desk, wallet, edited)
                        known, waits = self.desk.confirmed, False
                    return acted()
                except ConfigChanged:
                    raise
                except LockHeld as held:
                    if once:
                        raise
                    return Retryable(held.message, held.remedy)
                except (Retryable, Refused) as error:
                    return error
                finally:
                    progress(f"next look in {every}")

            def acted() -> StepOutcome | None:
                with nullcontext() if over() or wallet is None else wallet.held() as actors:
                    return None if over() else self._look(actors, turned)

            def over() -> bool:
                """True if its owner has stopped the bot. Raises ConfigChanged if another config was confirmed."""
                self.desk.store.require_present(self.desk.loaded.digest, known)
                return wallet is not None and self.desk.store.stopping() is not None

            def called() -> bool:
                """True if a pause should end early: there is work, or the run is over."""
                try:
                    return over() or (wallet is not None and self.desk.switch.is_hard() and not turned[0])
                except ConfigChanged:
                    return not waits  # waiting for an endpoint that did not answer, or for the wallet

            for found in run_periodically(cycle, interval_s, self.desk.clock, self.desk.readers.chance, called):
                if found is None:
                    return
                yield found
                if once:
                    return

    def _look(self, actors: StepActors | None, turned: list[bool]) -> StepOutcome:
        """Run one cycle while the wallet is held. `turned` keeps whether the kill switch was at hard."""
        turned[0] = self.desk.switch.is_hard()
        self.desk.store.prune(self.desk.config.service.keep_steps)
        if turned[0] and actors is not None:
            return cancel_and_revoke(self.desk.readers, self.desk.store, actors, self.desk.switch.read().reason)
        return withdrawal_parts.continue_withdrawal(self, actors, run_cycle(self.desk, actors))

    def _serving(
        self, send: bool, confirm: Confirm, progress: Progress, once: bool
    ) -> AbstractContextManager[wiring.WalletSession] | AbstractContextManager[None]:
        if not send:
            return nullcontext()
        return (
            nullcontext(wiring.open_wallet_session(self.desk, confirm, progress))
            if once
            else wiring.open_service(self.desk, confirm, progress)
        )

    def require_not_stopped(self) -> None:
        """Raise Refused while the bot is stopped or stopping: then only its owner's own commands act."""
        if (request := self.desk.store.stopping()) is not None:
            verdict = Verdict("stopped", f"by its owner, at {request.asked_s} of chain time", "running", False)
            raise Refused("the bot was stopped by its owner", (verdict,), "trimtab resume lets it go on")

    def takes_back(self) -> OpenExposure:
        """Transactions that a hard pause would cancel and allowances it would revoke now."""
        return open_exposure(self.desk.readers, self.desk.store)

    def cancel_and_revoke(self, why: str, progress: Progress = ignore_progress) -> StepOutcome:
        """Cancel pending transactions and revoke allowances, while the kill switch is at hard."""
        with wiring.open_wallet_session(self.desk, never_confirm, progress).held(takes_back=True) as actors:
            return cancel_and_revoke(self.desk.readers, self.desk.store, actors, why)

    def resync_nonce(self, *, nothing_lost: bool = False) -> int:
        """Adopt the chain's present nonce and return it: after other use of the wallet, or a restored backup.

        Raises Retryable while a transaction is pending or open. The next cycle reads the wallet's other transactions from the chain, unless
        the owner says that `nothing_lost`.
        """
        with wiring.open_actors(self.desk, never_confirm, ignore_progress) as actors:
            nonce = actors.executor.resync_nonce()
            self.desk.store.adopt_copy()
            if nothing_lost:
                self.desk.store.record_prior_day((), nonce)
            return nonce

    def _step(self, asked: PlanRequest, send: bool, confirm: Confirm, progress: Progress) -> StepOutcome:
        with self._actors(send, confirm, progress) as actors:
            return engine.run_step(self.desk.readers, asked, self.desk.store, actors)

    def _actors(self, send: bool, confirm: Confirm, progress: Progress) -> AbstractContextManager[StepActors | None]:
        return wiring.open_actors(self.desk, confirm, progress) if send else nullcontext()

    def token(self, name: str, field: str) -> Token:
        """The configured token with that symbol or address. Raises ConfigError with the configured tokens."""
        known = [*(asset.token for asset in self.portfolio.assets), *self.portfolio.hubs]
        for token in known:
            if name in (token.symbol, token.address) or name.lower() == token.address.lower():
                return token
        raise ConfigError(f"{field}: {name!r} is not a configured token", f"choose from {', '.join(t.label for t in known)}")

    def _amount(self, text: str, token: Token) -> int:
        raw = parse_raw(text, token.decimals, "--amount")
        if raw == 0:
            raise ConfigError("--amount must be above 0", "for example --amount 0.1")
        return raw

    def weights(self, step_input: StepInput) -> dict[str, int]:
        """Weights in bps by symbol."""
        return {self.portfolio.token(d.token).label: d.weight_bps for d in current_drifts(step_input)}

    def drifts(self, step_input: StepInput) -> dict[str, int]:
        """Weight less target in bps by symbol."""
        return {self.portfolio.token(d.token).label: d.drift_bps for d in current_drifts(step_input)}

    def realised(self, outcome: StepOutcome) -> list[dict[str, Any]]:
        """Planned against realised change of each balance by the receipts of the swap and of all actions with liquidity, base units."""
        return realised_changes(self.desk, outcome)

    def endpoints(self) -> tuple[dict[str, Any], ...]:
        """Record of each endpoint: operator, state, score, latency, last problem."""
        return tuple(endpoint_records(self.desk.panel))

    def sandwich(self, outcome: StepOutcome) -> Sandwich:
        """Visibility of the plan's transaction, and the most that a sandwich could take."""
        return sandwich(self.desk.config, outcome)

    def parameters(self) -> dict[str, str]:
        """All parameters that bind the transaction, for the owner to confirm."""
        return parameters(self.desk.config, self.desk.counted, self.desk.execution.router)


# --- Opening an agent for a config, and the functions that need a single cycle.


@contextmanager
def open_agent(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
    key: SigningKey | None = None,
    record: Path | None = None,
) -> Iterator[Agent]:
    """Connect to chain and store; close them at the end of the block. `key` signs in place of the one that the config names.

    With `record` each step is recorded into that folder, in place of the config's [record].
    """
    loaded = config if isinstance(config, LoadedConfig) else load_config(config)
    with wiring.open_context(loaded, transports, clock, record=record) as context:
        yield Agent(context if key is None else replace(context, key=SuppliedKey(key)))


def snapshot(config: LoadedConfig | Path | str = "trimtab.toml") -> StepInput:
    """One fresh StepInput."""
    with open_agent(config) as agent:
        return agent.step_input()


def quote(token_in: str, token_out: str, amount: str, config: LoadedConfig | Path | str = "trimtab.toml", pool: str | None = None) -> Quote:
    """Proceeds of a swap now."""
    with open_agent(config) as agent:
        return agent.quote(token_in, token_out, amount, pool)[1]


def plan(config: LoadedConfig | Path | str = "trimtab.toml") -> StepOutcome:
    """Plan of a rebalance now."""
    with open_agent(config) as agent:
        return agent.plan()


def step(config: LoadedConfig | Path | str = "trimtab.toml", *, send: bool = False, confirm: Confirm = never_confirm) -> StepOutcome:
    """Run one step of the agent; sends only with `send` and a `confirm` that says yes."""
    with open_agent(config) as agent:
        return agent.rebalance(send=send, confirm=confirm)
