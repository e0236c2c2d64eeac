"""Cycles of the agent: one, a gradual execution slice by slice, and a run until the owner stops
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from agent import engine, wiring
from agent.app import config_versions
from agent.app.withdrawals import sweeps, withdrawal_run
from agent.errors import ConfigError, PassingFault, Refused, Retryable, TrimtabError
from agent.execution.approvals import cancel_and_revoke
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.step_context import OutcomeKind, StepOutcome, StepTransactor
from agent.layers.futures.policy.needs import needs_prompt_look
from agent.model import AgentCycle, Execution, ExecutionState, ExecutionStyle, StepInput
from agent.policy.orders.conditional import expiry_reason
from agent.ports import Clock
from agent.store.files.locks import LockHeld
from agent.store.store import ConfigChanged
from agent.units import rough_duration

Progress = Callable[[str], None]
Confirm = Callable[[StepOutcome], bool]
CONTINUING_OUTCOMES = (OutcomeKind.DONE, OutcomeKind.HOLD)


def run_policy_cycle(
    context: wiring.AgentContext, transactor: StepTransactor | None
) -> StepOutcome:
    """Run one cycle: fill open limit orders whose price is reached, otherwise follow the policy."""
    orders = context.store.executions.open_limit_orders()
    open_orders = tuple(order for order in orders if order.state is ExecutionState.OPEN)
    outcome = engine.run_cycle(context.readers, AgentCycle(open_orders), context.store, transactor)
    if orders and transactor is not None:
        close_ended_orders(context, outcome.input_after or outcome.step_input)
    return outcome


def close_ended_orders(context: wiring.AgentContext, step_input: StepInput) -> None:
    """Close limit orders that are filled or have expired in chain time; they stay closed (T14)."""
    now_s = step_input.snapshot.head.timestamp_s
    for order in context.store.executions.open_limit_orders():
        if order.state is ExecutionState.FILLED:
            context.store.executions.end(order.id, order.state, order.why, now_s)
        elif order.state is ExecutionState.OPEN and (
            why := expiry_reason(step_input.snapshot, step_input.execution, order)
        ):
            context.store.executions.end(order.id, ExecutionState.EXPIRED, why, now_s)


def continue_execution(wallet: wiring.WalletSession, first_outcome: StepOutcome) -> StepOutcome:
    """Run the remaining slices of a gradual execution, until it ends, a due slice is held, a cycle
    neither acts nor holds, or sending is paused. `trimtab run` continues a held slice.

    The confirmation of the first slice covers all. Each slice is a step of its own, with a new
    decision; between slices other commands may use the wallet, and the progress is kept in the
    store. Return the outcome of the last slice, or its refusal, with the transactions of all; the
    message of another error counts them.
    """
    context = wallet.context
    outcome = first_outcome
    last_acting_outcome = first_outcome
    transactions = list(first_outcome.transactions)
    while outcome.kind in CONTINUING_OUTCOMES:
        execution = _unfinished_execution(context, outcome)
        if execution is None or context.kill_switch.read().paused is not False:
            break
        now_s = (outcome.input_after or outcome.step_input).snapshot.head.timestamp_s
        if outcome.kind is OutcomeKind.HOLD and now_s >= execution.next_s:
            break
        wallet.report_progress(
            f"slice {execution.parts_done + 1} of about"
            f" {max(execution.terms.part_count, execution.parts_done + 1)} is due in"
            f" {rough_duration(max(0, execution.next_s - now_s))}"
        )
        interruptible_sleep(max(1, execution.next_s - now_s), context.clock, lambda: False)
        try:
            with wallet.open_transactor() as transactor:
                outcome = engine.run_cycle(context.readers, AgentCycle(), context.store, transactor)
        except Refused as refusal:
            return replace(
                outcome,
                kind=OutcomeKind.REFUSED,
                reason=str(refusal),
                transactions=tuple(transactions),
                refusal_verdicts=refusal.verdicts,
            )
        except TrimtabError as error:
            if transactions:
                error.message += (
                    f"; transactions sent before: {len(transactions)};"
                    " trimtab run continues the execution"
                )
            raise
        transactions += outcome.transactions
        if outcome.kind is not OutcomeKind.HOLD:
            last_acting_outcome = outcome
    if outcome is first_outcome:
        return first_outcome
    if outcome.kind is OutcomeKind.HOLD and last_acting_outcome.kind is OutcomeKind.DONE:
        return replace(
            last_acting_outcome,
            transactions=tuple(transactions),
            reason=outcome.reason,
            input_after=outcome.step_input,
        )
    return replace(outcome, transactions=tuple(transactions))


def confirm_once(confirm: Confirm) -> Confirm:
    """Return a confirmation that asks once for all slices, and again after a step that tried an
    exit.
    """
    confirmations: list[bool] = []

    def confirm_first(outcome: StepOutcome) -> bool:
        if not confirmations or not confirmations[-1] or outcome.exits_tried:
            confirmations.append(confirm(outcome))
        return confirmations[-1]

    return confirm_first


def _unfinished_execution(context: wiring.AgentContext, outcome: StepOutcome) -> Execution | None:
    """Return the store's open execution in parts; None without one, or if it waits for a price."""
    now_s = (outcome.input_after or outcome.step_input).snapshot.head.timestamp_s
    execution = context.store.budgets.execution(now_s)
    if execution is None or execution.terms.style == ExecutionStyle.LIMIT.value:
        return None
    return execution


READING_STAGE = "Reading the chain"


def never_confirm(_: object) -> bool:
    """Decline every plan, and whatever else may be confirmed."""
    return False


def ignore_progress(_: str) -> None:
    """Discard a progress message."""


T = TypeVar("T")
JITTER = 0.1
"""Share of the interval by which each cycle is delayed at random, so that a schedule does not
announce trades (T15)."""
MAX_SLEEP_S = 1.0
"""Longest single sleep while waiting; bounds the delay of an interruption and of a control."""
FIRST_RETRY_S = 5.0
"""Pause after the first urgent cycle, if the interval is not shorter."""
LONGEST_RETRY_S = 60.0


def retry_pause_s(interval_s: float, urgent_cycles: int) -> float:
    """Return the pause after so many urgent cycles in a row: at first FIRST_RETRY_S, or the interval
    if that is shorter, then doubled up to LONGEST_RETRY_S.
    """
    first_pause_s = min(interval_s, FIRST_RETRY_S)
    return float(min(first_pause_s * 2 ** min(urgent_cycles - 1, 16), LONGEST_RETRY_S))


def is_retried_soon(outcome_or_error: object) -> bool:
    """Return whether a cycle failed by an endpoint, a service or the store, so that the next does
    not wait for the interval. A missing external signature is no such failure: a person must act.
    """
    return isinstance(outcome_or_error, Retryable) and not isinstance(
        outcome_or_error, AwaitingExternalSignature
    )


def run_periodically(
    cycle: Callable[[], T],
    interval_s: float,
    clock: Clock,
    random_fraction: Callable[[], float],
    is_interrupted: Callable[[], bool] = lambda: False,
    urgent_pause_s: Callable[[], float | None] = lambda: None,
) -> Iterator[T]:
    """Yield the result of `cycle` repeatedly, pausing for `interval_s` plus jitter in between, or
    for `urgent_pause_s` if that is not None. `random_fraction` returns numbers in [0, 1); a true
    `is_interrupted` ends a pause early.
    """
    while True:
        yield cycle()
        pause_s = urgent_pause_s()
        if pause_s is None:
            pause_s = interval_s * (1 + random_fraction() * JITTER)
        interruptible_sleep(pause_s, clock, is_interrupted)


def interruptible_sleep(seconds: float, clock: Clock, is_interrupted: Callable[[], bool]) -> None:
    """Sleep for `seconds`, or until `is_interrupted` returns True."""
    remaining_s = seconds
    while remaining_s > 0 and not is_interrupted():
        clock.sleep(min(remaining_s, MAX_SLEEP_S))
        remaining_s -= MAX_SLEEP_S


def _without_frames(error: TrimtabError) -> TrimtabError:
    """Return the error without traceback and causes: their frames hold the snapshot and the plan of
    its cycle, and the next cycle would run beside them.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class ControlHandler(Protocol):
    """The queue of controls, as a run uses it (agent/app/controls/runner.py)."""

    stopped_by: str
    """Name and origin of who stopped the paper run by a control; empty until then."""

    def has_queued(self) -> bool:
        """Return whether a control is queued."""

    def carry_out(self, session: wiring.WalletSession, *, holds_service_lock: bool) -> None:
        """Carry out queued controls; the caller does not hold the wallet's lock."""

    def end_cycle(self) -> None:
        """Note the end of a cycle."""


class AgentWithContext(Protocol):
    """The agent of a run, which replaces its context by that of a newly confirmed config."""

    context: wiring.AgentContext


FillPrices = Callable[[Progress], Sequence[str]]
"""Reads past prices that a rule needs and the store lacks, and returns a line on each token."""


PRICE_RETRY_S = 600
"""Shortest time between two looks of a run for past prices."""


def fill_nothing(_: Progress) -> Sequence[str]:
    """Read no past prices."""
    return ()


class AgentRun:
    """A run of an agent. Without a wallet session it sends nothing and takes no controls."""

    def __init__(
        self,
        agent: AgentWithContext,
        wallet: wiring.WalletSession | None,
        interval_s: int,
        once: bool,
        progress: Progress,
        controls: ControlHandler | None = None,
        fill_prices: FillPrices = fill_nothing,
    ) -> None:
        self._agent = agent
        self._fill_prices = fill_prices
        self._filled_at_s: int | None = None
        """Time of the last look for past prices; None before the first."""
        self._controls = None if wallet is None else controls
        self._wallet = wallet
        self._interval_s = interval_s
        self._runs_once = once
        self._progress = progress
        self._was_hard_paused = agent.context.kill_switch.is_hard()
        self._confirmed_digest = agent.context.store.configs.confirmed_digest()
        self._is_config_blocked = False
        """True while adoption of a new config is blocked by an endpoint or by the wallet's lock."""
        self._had_good_cycle = False
        self._urgent_cycles = 0
        """Number of cycles in a row after which the next does not wait for the interval."""
        self.urgent_pause_s: float | None = None
        """Pause after the last cycle if the next does not wait for the interval; else None."""
        self.is_protection_due = False
        """Whether a layer's protection was due after the last cycle that did not fail."""

    def cycle(self) -> StepOutcome | TrimtabError | None:
        """Run one cycle and return its outcome or transient error; None once the run is over.
        Raises ConfigChanged and errors that need an operator, which a PassingFault does only before
        the first good cycle. What the cycle leaves queued in the store is written with the report
        of the run, or by `flush_store`.
        """
        self._progress(READING_STAGE)
        result = self._outcome_or_error()
        self.urgent_pause_s = self._next_urgent_pause_s(result)
        if result is not None and not self._runs_once:
            pause_s = self._interval_s if self.urgent_pause_s is None else self.urgent_pause_s
            self._progress(f"next cycle in {rough_duration(int(pause_s))}")
        return result

    def flush_store(self) -> None:
        """Write what the cycle left queued in the store. After a PassingFault it stays queued, and
        the next cycle begins by writing it; a single cycle raises the fault.
        """
        try:
            self._agent.context.store.db.flush()
        except PassingFault:
            if self._runs_once:
                raise

    def _outcome_or_error(self) -> StepOutcome | TrimtabError | None:
        database = self._agent.context.store.db
        try:
            database.flush()  # a cycle decides by what the last one left
            with database.queueing():
                outcome = self._act_by_newest_config()
            self._had_good_cycle = True
            return outcome
        except ConfigChanged:
            raise
        except LockHeld as lock_held:
            if self._runs_once:
                raise
            return Retryable(lock_held.message, lock_held.remedy)
        except PassingFault as fault:
            if not self._had_good_cycle:
                raise
            return Retryable(fault.message, fault.remedy, code=fault.code)
        except (Retryable, Refused) as error:
            if isinstance(error, AwaitingExternalSignature) and not self._runs_once:
                self._go_on_by_itself(error)
            return _without_frames(error)

    def _go_on_by_itself(self, waiting: AwaitingExternalSignature) -> None:
        if waiting.next_command is None:
            waiting.go_on_with("let this run go on")

    def _next_urgent_pause_s(self, result: StepOutcome | TrimtabError | None) -> float | None:
        """Return the pause after a cycle that failed, or after which a layer's protection is due and
        not done; the latter at most the interval. None after another cycle.
        """
        is_due = isinstance(result, StepOutcome) and self._needs_protection(result)
        if isinstance(result, StepOutcome):
            self.is_protection_due = is_due
        if not is_due and not is_retried_soon(result):
            self._urgent_cycles = 0
            return None
        self._urgent_cycles += 1
        pause_s = retry_pause_s(self._interval_s, self._urgent_cycles)
        return min(pause_s, self._interval_s) if is_due else pause_s

    def _needs_protection(self, outcome: StepOutcome) -> bool:
        if self._wallet is None or self._agent.context.kill_switch.is_paused() is not False:
            return False
        return needs_prompt_look(outcome.input_after or outcome.step_input)

    def ends_wait(self) -> bool:
        """Return whether the wait between cycles ends now: the run is over, a hard pause has begun,
        a control is queued, or a config was confirmed.
        """
        try:
            return (
                self._is_over()
                or (
                    self._wallet is not None
                    and self._agent.context.kill_switch.is_hard()
                    and not self._was_hard_paused
                )
                or (self._controls is not None and self._controls.has_queued())
            )
        except ConfigChanged:
            return not self._is_config_blocked
        except PassingFault:  # the next cycle reports that the store cannot be read
            return False

    def _is_over(self) -> bool:
        """Return whether the owner has stopped the bot or this paper run. Raises ConfigChanged if
        another config was confirmed.
        """
        context = self._agent.context
        context.store.configs.require_current(context.loaded_config.digest, self._confirmed_digest)
        if self._controls is not None and self._controls.stopped_by:
            return True
        return self._wallet is not None and context.store.requests.active_stop() is not None

    def _act_by_newest_config(self) -> StepOutcome | None:
        try:
            return self._act()
        except ConfigChanged as error:
            if self._runs_once:
                raise
            self._is_config_blocked = True
            self._adopt_confirmed_config(error)
            self._confirmed_digest = self._agent.context.confirmed_hash
            self._is_config_blocked = False
        return self._act()

    def _adopt_confirmed_config(self, change_error: ConfigChanged) -> None:
        """Adopt the config that was confirmed last. It was checked against the chain when it was
        confirmed, so that a ConfigError now comes from an endpoint's answer.
        """
        try:
            self._agent.context, self._wallet = config_versions.with_confirmed_config(
                self._agent.context, self._wallet, change_error
            )
        except ConfigError as error:
            raise PassingFault(error.message, error.remedy, code=error.code) from None

    def _act(self) -> StepOutcome | None:
        if self._is_over():
            return None
        if self._filled_at_s is None:
            self._read_past_prices()
            return self._carry_out_cycle()
        outcome = self._carry_out_cycle()
        if self._agent.context.clock.now_s() - self._filled_at_s >= PRICE_RETRY_S:
            with suppress(TrimtabError):  # the next cycle reports a store that cannot be written
                self._read_past_prices()
        return outcome

    def _read_past_prices(self) -> None:
        """Read past prices that a rule needs. Only the first cycle waits for them: later ones act
        first, because an endpoint that fails must not delay an exit.
        """
        self._filled_at_s = self._agent.context.clock.now_s()
        if self._agent.context.kill_switch.is_hard():
            return
        for line in self._fill_prices(self._progress):
            self._progress(line)

    def _carry_out_cycle(self) -> StepOutcome | None:
        """Run one cycle, under the wallet's lock and after the queued controls if it can send."""
        if self._wallet is None:
            return self._run_cycle_or_revoke(None)
        if self._controls is not None:
            self._controls.carry_out(self._wallet, holds_service_lock=not self._runs_once)
        with self._wallet.open_transactor() as transactor:
            # a control, or the owner while this cycle waited for the lock, may have stopped it
            outcome = None if self._is_over() else self._run_cycle_or_revoke(transactor)
        if self._controls is not None:
            self._controls.end_cycle()
        return outcome

    def _run_cycle_or_revoke(self, transactor: StepTransactor | None) -> StepOutcome:
        """Run a cycle, or under a hard pause cancel and revoke; the caller holds the wallet lock."""
        context = self._agent.context
        self._was_hard_paused = context.kill_switch.is_hard()
        context.store.steps.prune_later(context.config.service.keep_steps)
        if self._was_hard_paused and transactor is not None:
            return cancel_and_revoke(
                context.without_venue_waits.readers,
                context.store,
                transactor,
                context.kill_switch.read().reason,
            )
        outcome = withdrawal_run.continue_withdrawal(
            context, transactor, run_policy_cycle(context, transactor)
        )
        return sweeps.sweep_profit(context, transactor, outcome)
