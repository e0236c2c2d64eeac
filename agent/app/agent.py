"""The agent on a chain and a store: status, quote, plan, rebalance, swap, run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent import engine, wiring
from agent.accounting.tax_lots import wallet_changes as planned_changes
from agent.amm.lp import positions
from agent.amm.pools import KnownTicksExceeded
from agent.app import config_versions, describe, withdrawal_run
from agent.app.describe import Sandwich, parameters, sandwich
from agent.app.documents.status import least_total_now
from agent.app.start.endpoint_checks import endpoint_records
from agent.chain.rpc import Transport
from agent.config.fields import parse_address, parse_duration_s
from agent.config.limits import accepted_limits
from agent.config.load import LoadedConfig, load_config
from agent.errors import ConfigError, Refused, Retryable, TrimtabError
from agent.execution import evaluation
from agent.execution.approvals import OpenExposure, cancel_and_revoke, open_exposure
from agent.execution.settlement import native_delta
from agent.execution.step_context import (
    OutcomeKind,
    StepActors,
    StepOutcome,
    TickExtender,
    confirm_prices,
)
from agent.model import (
    AgentCycle,
    CloseHedge,
    Deleverage,
    ExecutionProgress,
    ExecutionStyle,
    Intent,
    IntentKind,
    MoveMargin,
    OpenHedge,
    PlanRequest,
    Portfolio,
    StepInput,
    Swap,
    Verdict,
)
from agent.model.futures import FuturesPolicy
from agent.planning import planner, proposals
from agent.planning.planner import Quote
from agent.policy import minimum, native_coin
from agent.policy.decide import DecisionResult, current_drifts
from agent.policy.drift import investable_total, overweight_messages
from agent.policy.liquidity import valuation
from agent.policy.orders.conditional import expiry_reason
from agent.ports import Clock, SigningKey
from agent.signing.keys import SuppliedKey
from agent.store.files.locks import LockHeld
from agent.store.store import ConfigChanged
from agent.units import NATIVE, Token, parse_raw

if TYPE_CHECKING:
    from agent.app.documents.plans import EndpointDocument, RealisedDocument
    from agent.app.documents.status import LeastTotalDocument

# --- Scheduling of a long run. Clock and random source are parameters, so tests simulate a year.


T = TypeVar("T")
JITTER = 0.1
"""Share of the interval by which each cycle is delayed at random, so that a schedule does not
announce trades (T15)."""
SLEEP_SLICE_S = 5.0
"""Longest single sleep while waiting; bounds the delay of an interruption."""


def run_periodically(
    cycle: Callable[[], T],
    interval_s: float,
    clock: Clock,
    chance: Callable[[], float],
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[T]:
    """Yield the result of `cycle` repeatedly, pausing for `interval_s` plus jitter in between.
    `chance` returns numbers in [0, 1); `interrupted` ends a pause early.
    """
    while True:
        yield cycle()
        interruptible_sleep(interval_s * (1 + chance() * JITTER), clock, interrupted)


def interruptible_sleep(seconds: float, clock: Clock, interrupted: Callable[[], bool]) -> None:
    """Sleep for `seconds`, or until `interrupted` returns True."""
    left_s = seconds
    while left_s > 0 and not interrupted():
        clock.sleep(min(left_s, SLEEP_SLICE_S))
        left_s -= SLEEP_SLICE_S


# --- Cycles: open limit orders, and a gradual execution slice by slice in one command.


Progress = Callable[[str], None]
Confirm = Callable[[StepOutcome], bool]
CONTINUE_KINDS = (OutcomeKind.DONE, OutcomeKind.HOLD)


def run_cycle(context: wiring.AgentContext, actors: StepActors | None) -> StepOutcome:
    """Run one cycle: fill open limit orders whose price is reached, otherwise follow the policy."""
    orders = tuple(
        order for order in context.store.executions.limit_orders() if order.state == "open"
    )
    outcome = engine.run_step(context.readers, AgentCycle(orders), context.store, actors)
    if orders and actors is not None:
        close_orders(context, outcome.after or outcome.step_input)
    return outcome


def close_orders(context: wiring.AgentContext, step_input: StepInput) -> None:
    """Close limit orders that are filled or have expired in chain time; they stay closed (T14)."""
    chain_s = step_input.snapshot.head.timestamp_s
    for order in context.store.executions.limit_orders():
        if order.state == "filled":
            context.store.executions.end(order.id, order.state, order.why, chain_s)
        elif order.state == "open" and (why := expiry_reason(step_input, order)):
            context.store.executions.end(order.id, "expired", why, chain_s)


def continue_execution(wallet: wiring.WalletSession, first: StepOutcome) -> StepOutcome:
    """Run the remaining slices of a gradual execution, until it ends or a cycle refuses.

    The confirmation of the first slice covers all. Each slice is a step of its own, with a new
    decision; between slices other commands may use the wallet, and the progress is kept in the
    store. Return the outcome of the last slice, with the transactions of all.
    """
    context = wallet.context
    outcome, last, sent = first, first, list(first.transactions)
    while outcome.kind in CONTINUE_KINDS:
        execution = _open_execution(context, outcome)
        if execution is None:
            break
        now_s = (outcome.after or outcome.step_input).snapshot.head.timestamp_s
        wallet.progress(
            f"slice {execution.done + 1} of about {execution.campaign.rounds} is due in"
            f" {max(0, execution.next_s - now_s)} s"
        )
        interruptible_sleep(max(1, execution.next_s - now_s), context.clock, lambda: False)
        try:
            with wallet.held() as actors:
                outcome = engine.run_step(context.readers, AgentCycle(), context.store, actors)
        except ConfigChanged as edited:  # report the transactions sent before it
            return replace(
                outcome,
                kind=OutcomeKind.REFUSED,
                reason=str(edited),
                transactions=tuple(sent),
                verdicts=edited.verdicts,
            )
        sent += outcome.transactions
        if outcome.kind is not OutcomeKind.HOLD:
            last = outcome
    if outcome is first:
        return first
    if outcome.kind is OutcomeKind.HOLD and last.kind is OutcomeKind.DONE:
        return replace(
            last, transactions=tuple(sent), reason=outcome.reason, after=outcome.step_input
        )
    return replace(outcome, transactions=tuple(sent))


def confirm_once(confirm: Confirm) -> Confirm:
    """Return a confirmation that asks once for all slices, and again after a step that tried an
    exit.
    """
    confirmations: list[bool] = []

    def answer(outcome: StepOutcome) -> bool:
        if not confirmations or not confirmations[-1] or outcome.exits_tried:
            confirmations.append(confirm(outcome))
        return confirmations[-1]

    return answer


def _open_execution(context: wiring.AgentContext, outcome: StepOutcome) -> ExecutionProgress | None:
    """Return the store's open gradual execution in slices; None without one."""
    now_s = (outcome.after or outcome.step_input).snapshot.head.timestamp_s
    execution = context.store.budgets.history(now_s).campaign
    if execution is None or execution.campaign.pace.style is ExecutionStyle.LIMIT:
        return None
    return execution


MIN_INTERVAL_S = 1
READING_STAGE = "Reading the chain"


def never_confirm(_: StepOutcome) -> bool:
    """Decline every plan."""
    return False


def ignore_progress(_: str) -> None:
    """Discard a progress message."""


@dataclass(frozen=True, slots=True)
class PortfolioStatus:
    """Status of a portfolio. `paused` is the state of the kill switch, `hard` that of its hard level,
    which also cancels and revokes. `warnings` concern drift, size and limits.
    """

    step_input: StepInput
    decided: DecisionResult
    paused: bool
    pause_reason: str
    warnings: tuple[str, ...]
    endpoints: tuple[EndpointDocument, ...] = ()
    hard: bool = False

    @property
    def native(self) -> native_coin.NativeView:
        """Native coin held in addition to its wrapped token."""
        return native_coin.native_view(self.step_input)

    @property
    def least(self) -> LeastTotalDocument | None:
        """Minimum total at which these settings work, its yearly cost, and the settings to change
        if the total is below it.
        """
        drifts = self.decided.drifts
        return least_total_now(self.step_input, investable_total(drifts)) if drifts else None

    @property
    def trigger(self) -> describe.TriggerView:
        """The trigger as text."""
        return describe.trigger_view(self.step_input, self.decided)


class Agent:
    """Operations of a connected agent. Nothing is sent unless `send` is set and `confirm` returns
    True.
    """

    def __init__(self, context: wiring.AgentContext) -> None:
        self.context = context

    @property
    def portfolio(self) -> Portfolio:
        """Tokens and targets."""
        return self.context.portfolio

    @property
    def on_paper(self) -> bool:
        """True if the agent trades on paper only."""
        return self.context.loaded.paper

    def step_input(self) -> StepInput:
        """Read a snapshot and assemble the step input: config, stored history, confirmed prices."""
        readers = self.context.readers
        snapshot = readers.reader.snapshot()
        return confirm_prices(readers, readers.step_input_at(snapshot))

    def status(self) -> PortfolioStatus:
        """Return the status of the portfolio and the current decision."""
        step_input = self.step_input()
        decided = proposals.decision_at(step_input)
        switch = self.context.switch.read()
        warnings = (
            *minimum.warnings(self.portfolio),
            *overweight_messages(decided.drifts),
            *valuation.warnings(step_input),
            *accepted_limits(self.context.config.limits),
        )
        return PortfolioStatus(
            step_input,
            decided,
            switch.paused is not False,
            switch.reason,
            warnings,
            self.endpoints(),
            switch.hard,
        )

    def quote(
        self, token_in: str, token_out: str, amount: str, pool: str | None = None
    ) -> tuple[StepInput, Quote]:
        """Quote the sale of `amount` whole coins of `token_in`, over all pools or in `pool`. Reads
        more ticks if the quote passes the known ones.
        """
        sold, bought = self.token(token_in, "--in"), self.token(token_out, "--out")
        raw = self._amount(amount, sold)
        step_input = self.step_input()
        chosen = None if pool is None else parse_address(pool, "--pool")
        try:
            return step_input, planner.quote(step_input, sold.address, bought.address, raw, chosen)
        except KnownTicksExceeded:
            deeper = TickExtender(self.context.readers.reader)(step_input)
            if deeper is None:
                raise
        return deeper, planner.quote(deeper, sold.address, bought.address, raw, chosen)

    def plan(self) -> StepOutcome:
        """Plan a rebalance now and run every guard. Writes nothing."""
        return evaluation.evaluate(self.context.attended.readers, proposals.rebalance)

    def rebalance(
        self,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        progress: Progress = ignore_progress,
    ) -> StepOutcome:
        """Run one step on a user's request; with `send` also the remaining slices of a gradual
        execution. Futures triggers that require a confirmation act too.
        """
        context = self.context.attended
        if not send:
            return engine.run_step(context.readers, AgentCycle(), context.store, None)
        wallet = wiring.open_wallet_session(context, confirm_once(confirm), progress)
        with wallet.held() as actors:
            first = engine.run_step(context.readers, AgentCycle(), context.store, actors)
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
        """Swap `amount` whole coins, under the same guards as a rebalance."""
        sold, bought = self.token(token_in, "--in"), self.token(token_out, "--out")
        return self._step(
            Swap(sold.address, bought.address, self._amount(amount, sold)), send, confirm, progress
        )

    def adjust_futures(
        self,
        asked: MoveMargin | Deleverage | OpenHedge | CloseHedge,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        progress: Progress = ignore_progress,
    ) -> StepOutcome:
        """Move margin, change the delegate, reduce positions, or open or close a hedge, under the same
        guards as a step. Raises ConfigError without [futures].
        """
        self.futures_policy()
        return self._step(asked, send, confirm, progress)

    def futures_policy(self) -> FuturesPolicy:
        """The futures layer of the config. Raises ConfigError without one."""
        if self.context.futures is None:
            raise ConfigError(
                "futures: the config has no [futures]", "add it as docs/futures.md describes"
            )
        return self.context.futures

    def run(
        self,
        *,
        send: bool = False,
        confirm: Confirm = never_confirm,
        every: str = "10m",
        once: bool = False,
        progress: Progress = ignore_progress,
    ) -> Generator[StepOutcome | TrimtabError, None, None]:
        """Run cycles until the bot is stopped, and yield the outcome of each.

        Transient errors are yielded too: network errors, refusals before sending, a wallet in use
        by another process. Errors that need an operator are raised.

        With `send` the key is loaded once, and the wallet's lock is held only during a cycle:
        between cycles other commands may act, and each cycle starts from the store as they left it.
        `once` runs a single cycle and takes no service lock. A hard pause ends the wait between
        cycles; the next cycle then cancels pending transactions and revokes allowances. A newly
        confirmed config is adopted between two actions, or ConfigChanged is raised
        (config_versions.with_confirmed_config). `progress` receives READING_STAGE before each
        cycle.
        """
        interval_s = parse_duration_s(every, "--every")
        if interval_s < MIN_INTERVAL_S:
            raise ConfigError(f"--every: {every!r} is shorter than one second", "for example 10m")
        if send:
            self.require_not_stopped()
        with self._serving(send, confirm, progress, once) as wallet:
            run = AgentRun(self, wallet, every, once, progress)
            for result in run_periodically(
                run.cycle,
                interval_s,
                self.context.clock,
                self.context.readers.chance,
                run.ends_pause,
            ):
                if result is None:
                    return
                yield result
                if once:
                    return

    def _serving(
        self, send: bool, confirm: Confirm, progress: Progress, once: bool
    ) -> AbstractContextManager[wiring.WalletSession] | AbstractContextManager[None]:
        if not send:
            return nullcontext()
        if once:
            return nullcontext(wiring.open_wallet_session(self.context, confirm, progress))
        return wiring.open_service(self.context, confirm, progress)

    def require_not_stopped(self) -> None:
        """Raise Refused while the bot is stopped or stopping. Other commands remain available to
        the owner.
        """
        if (request := self.context.store.requests.stopping()) is not None:
            verdict = Verdict(
                "stopped", f"by its owner, at {request.asked_s} of chain time", "running", False
            )
            raise Refused(
                "the bot was stopped by its owner", (verdict,), "trimtab resume restarts it"
            )

    def open_exposure(self) -> OpenExposure:
        """Pending transactions and open allowances that a hard pause would cancel and revoke now."""
        return open_exposure(self.context.readers, self.context.store)

    def cancel_and_revoke(self, why: str, progress: Progress = ignore_progress) -> StepOutcome:
        """Cancel pending transactions and revoke allowances under a hard pause."""
        with wiring.open_wallet_session(self.context, never_confirm, progress).held(
            cancels_only=True
        ) as actors:
            return cancel_and_revoke(self.context.readers, self.context.store, actors, why)

    def resync_nonce(self, *, nothing_lost: bool = False) -> int:
        """Resync to the chain's nonce and return it, after the wallet was used elsewhere or a
        backup was restored. The next cycle reads the wallet's unknown transactions from the chain,
        unless `nothing_lost`. Raises Retryable while a transaction is pending or open.
        """
        with wiring.open_actors(self.context, never_confirm, ignore_progress) as actors:
            nonce = actors.executor.resync_nonce()
            self.context.store.adopt_copy()
            if nothing_lost:
                self.context.store.balances.record_prior_day((), nonce)
            return nonce

    def _step(
        self, asked: PlanRequest, send: bool, confirm: Confirm, progress: Progress
    ) -> StepOutcome:
        with self._actors(send, confirm, progress) as actors:
            return engine.run_step(self.context.readers, asked, self.context.store, actors)

    def _actors(
        self, send: bool, confirm: Confirm, progress: Progress
    ) -> AbstractContextManager[StepActors | None]:
        return wiring.open_actors(self.context, confirm, progress) if send else nullcontext()

    def token(self, name: str, field: str) -> Token:
        """The configured token with this symbol or address. `field` names the option in the
        ConfigError for any other name.
        """
        known = [*(asset.token for asset in self.portfolio.assets), *self.portfolio.hubs]
        for token in known:
            if name in (token.symbol, token.address) or name.lower() == token.address.lower():
                return token
        raise ConfigError(
            f"{field}: {name!r} is not a configured token",
            f"choose from {', '.join(t.label for t in known)}",
        )

    def _amount(self, text: str, token: Token) -> int:
        raw = parse_raw(text, token.decimals, "--amount")
        if raw == 0:
            raise ConfigError("--amount must be above 0", "for example --amount 0.1")
        return raw

    def weights(self, step_input: StepInput) -> dict[str, int]:
        """Weights in bps by symbol."""
        return {
            self.portfolio.token(d.token).label: d.weight_bps for d in current_drifts(step_input)
        }

    def drifts(self, step_input: StepInput) -> dict[str, int]:
        """Weight less target in bps by symbol."""
        return {
            self.portfolio.token(d.token).label: d.drift_bps for d in current_drifts(step_input)
        }

    def realised(self, outcome: StepOutcome) -> list[RealisedDocument]:
        """Planned and realised change of each balance in base units, by the receipts of swaps,
        liquidity actions and unwraps.
        """
        planned: dict[str, int] = {}
        realised: dict[str, int] = {}
        for intent in outcome.transactions:
            if intent.receipt is None or intent.kind not in (
                IntentKind.SWAP,
                IntentKind.LIQUIDITY,
                IntentKind.UNWRAP,
            ):
                continue
            owner = outcome.step_input.snapshot.owner
            net = {
                NATIVE: native_delta(intent, owner, self.portfolio.wrapped_native)
            } | intent.receipt.net(owner)
            for token, raw in self._planned_changes(intent).items():
                planned[token] = planned.get(token, 0) + raw
                realised[token] = realised.get(token, 0) + net.get(token, 0)
        return [
            {
                "symbol": self.portfolio.token(token).label,
                "planned_raw": str(raw),
                "realised_raw": str(realised[token]),
            }
            for token, raw in planned.items()
        ]

    def _planned_changes(self, intent: Intent) -> dict[str, int]:
        """Return the balance changes by token that the intent's grant predicts, in base units."""
        grant = self.context.store.journal.grant(intent.id)
        if grant.action is not None:
            return dict(
                zip(
                    (grant.action.token0, grant.action.token1),
                    positions.expected_amounts(grant.action),
                    strict=True,
                )
            )
        return {} if grant.plan is None else planned_changes(grant.plan)

    def endpoints(self) -> tuple[EndpointDocument, ...]:
        """Operator, state, score, latency and last problem of each endpoint."""
        return tuple(endpoint_records(self.context.endpoints))

    def sandwich(self, outcome: StepOutcome) -> Sandwich:
        """Return the visibility of the plan's transaction, and its largest possible sandwich loss."""
        return sandwich(self.context.config, outcome)

    def parameters(self) -> dict[str, str]:
        """Return all parameters that bind the transaction, for the owner to confirm."""
        return parameters(self.context.config, self.context.counted, self.context.execution.router)


# --- The run: cycles under the last confirmed config, until the owner stops the bot.


class AgentRun:
    """A run of an agent. Without a wallet session it sends nothing."""

    def __init__(
        self,
        agent: Agent,
        wallet: wiring.WalletSession | None,
        every: str,
        once: bool,
        progress: Progress,
    ) -> None:
        self._agent = agent
        self._wallet = wallet
        self._every = every
        self._once = once
        self._progress = progress
        self._was_hard = agent.context.switch.is_hard()
        self._known_config = agent.context.store.configs.confirmed()
        self._config_waits = False
        """True while adoption of a new config is blocked by an endpoint or by the wallet's lock."""

    def cycle(self) -> StepOutcome | TrimtabError | None:
        """Run one cycle and return its outcome or transient error; None once the run is over.
        Raises ConfigChanged and errors that need an operator.
        """
        self._progress(READING_STAGE)
        try:
            return self._act_by_newest_config()
        except ConfigChanged:
            raise
        except LockHeld as held:
            if self._once:
                raise
            return Retryable(held.message, held.remedy)
        except (Retryable, Refused) as error:
            return error
        finally:
            self._progress(f"next cycle in {self._every}")

    def ends_pause(self) -> bool:
        """Return whether the wait between cycles ends now: the run is over, a hard pause has begun,
        or a config was confirmed.
        """
        try:
            return self._over() or (
                self._wallet is not None
                and self._agent.context.switch.is_hard()
                and not self._was_hard
            )
        except ConfigChanged:
            return not self._config_waits

    def _over(self) -> bool:
        """True if the owner has stopped the bot. Raises ConfigChanged if another config was
        confirmed.
        """
        context = self._agent.context
        context.store.configs.require_present(context.loaded.digest, self._known_config)
        return self._wallet is not None and context.store.requests.stopping() is not None

    def _act_by_newest_config(self) -> StepOutcome | None:
        try:
            return self._act()
        except ConfigChanged as edited:
            if self._once:
                raise
            self._config_waits = True
            self._agent.context, self._wallet = config_versions.with_confirmed_config(
                self._agent.context, self._wallet, edited
            )
            self._known_config, self._config_waits = self._agent.context.confirmed, False
        return self._act()

    def _act(self) -> StepOutcome | None:
        if self._over():
            return None
        if self._wallet is None:
            return self._act_once(None)
        with self._wallet.held() as actors:
            # the owner may have stopped the bot while this cycle waited for the lock
            return None if self._over() else self._act_once(actors)

    def _act_once(self, actors: StepActors | None) -> StepOutcome:
        """Run a step, or under a hard pause cancel and revoke; the caller holds the wallet lock."""
        context = self._agent.context
        self._was_hard = context.switch.is_hard()
        context.store.steps.prune(context.config.service.keep_steps)
        if self._was_hard and actors is not None:
            return cancel_and_revoke(
                context.readers, context.store, actors, context.switch.read().reason
            )
        return withdrawal_run.continue_withdrawal(context, actors, run_cycle(context, actors))


# --- Opening an agent, and functions that open one for a single operation.


@contextmanager
def open_agent(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
    key: SigningKey | None = None,
    record: Path | None = None,
) -> Iterator[Agent]:
    """Connect to chain and store; close them at the end of the block.

    `key` replaces the config's signing key, `record` the folder of its [record].
    """
    loaded = config if isinstance(config, LoadedConfig) else load_config(config)
    with wiring.open_context(loaded, transports, clock, record=record) as context:
        yield Agent(context if key is None else replace(context, key=SuppliedKey(key)))


def snapshot(config: LoadedConfig | Path | str = "trimtab.toml") -> StepInput:
    """Read the chain and the store, and return the step input."""
    with open_agent(config) as agent:
        return agent.step_input()


def quote(
    token_in: str,
    token_out: str,
    amount: str,
    config: LoadedConfig | Path | str = "trimtab.toml",
    pool: str | None = None,
) -> Quote:
    """Quote a swap now."""
    with open_agent(config) as agent:
        return agent.quote(token_in, token_out, amount, pool)[1]


def plan(config: LoadedConfig | Path | str = "trimtab.toml") -> StepOutcome:
    """Plan a rebalance now."""
    with open_agent(config) as agent:
        return agent.plan()


def step(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    send: bool = False,
    confirm: Confirm = never_confirm,
) -> StepOutcome:
    """Run one step of the agent; sends only with `send` and a `confirm` that returns True."""
    with open_agent(config) as agent:
        return agent.rebalance(send=send, confirm=confirm)
