"""Readers, transactor and outcome of a step; confirmation of prices, and screening of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from agent.amm.swap_errors import KnownTicksExceeded
from agent.errors import READ_FAILURES, ErrorCode, Refused, Retryable
from agent.model import (
    Decision,
    Evidence,
    Halt,
    HaltCode,
    History,
    Intent,
    LayerPart,
    Plan,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.planning.proposals import Proposal, Proposer, RefusedWithBlockedExits
from agent.planning.rounding import plan_pools_out_of_ticks
from agent.policy import quarantine
from agent.policy.cash_flows import purchases
from agent.policy.cash_flows.balance_changes import transfer_texts
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.orders import blocked_exits
from agent.policy.orders import conditional as conditional_orders
from agent.policy.triggers import price_confirmation
from agent.ports import Clock, Composer, EvidenceSource, Executor, Reader, ReaderLayer
from agent.reference import depegged_tokens, reference_prices
from agent.store.accounts.balances import BalanceStore
from agent.store.accounts.budgets import BudgetStore
from agent.store.journal.intents import IntentStore
from agent.store.orders import OrderStore
from agent.units import pluralize

CATCH_UP_ATTEMPTS = 10
CATCH_UP_PAUSE_S = 2.0
"""Attempts and the pause between them: twenty seconds in all, longer than any chain's block time.
"""


class CaughtUpReader(ReaderLayer):
    """ports.Reader whose snapshots include every mined transaction of the journal."""

    def __init__(self, reader: Reader, journal: IntentStore, clock: Clock) -> None:
        self.reader = reader
        self._journal = journal
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Raises Retryable if the quorum stays behind the journal."""
        expected_nonce = self._journal.expected_nonce() or 0
        snapshot = self.reader.snapshot()
        for _ in range(CATCH_UP_ATTEMPTS):
            if snapshot.nonce_latest >= expected_nonce:
                break
            self._clock.sleep(CATCH_UP_PAUSE_S)
            snapshot = self.reader.snapshot()
        if snapshot.nonce_latest >= expected_nonce:
            return snapshot
        raise Retryable(
            f"the endpoints agree only on block {snapshot.head.number}, which is "
            f"behind our transaction at nonce {expected_nonce - 1}",
            "try again when the slower endpoint has caught up; if a local chain began anew, set a new"
            " file in store.url",
            code=ErrorCode.LAG,
        )


class TickExtender:
    """Reads more ticks of all V3 pools of a step, once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._has_read = False

    def __call__(self, step: StepInput) -> StepInput | None:
        """Return the step with more ticks; None if they were already read, there are no more, or
        they cannot be read.
        """
        if self._has_read:
            return None
        self._has_read = True
        pool_addresses = [
            pool.address for pool in step.snapshot.pools if pool.tick_state is not None
        ]
        try:
            extended_snapshot = self._reader.with_more_ticks(step.snapshot, pool_addresses)
        except READ_FAILURES:
            return None
        return (
            None
            if extended_snapshot.pools == step.snapshot.pools
            else replace(step, snapshot=extended_snapshot)
        )


@dataclass(frozen=True, slots=True)
class StepReaders:
    """Sources of a step: chain, history and evidence. `assemble` combines snapshot, history and
    config; `chance` returns unpredictable numbers in [0, 1). `assemble_for_ledger` is the assembly
    for ledger and valuations, where `assemble` also reserves a withdrawal that is only planned.
    """

    reader: Reader
    assemble: Callable[[Snapshot, History], StepInput]
    read_history: Callable[[int], History]
    evidence_source: EvidenceSource
    clock: Clock
    chance: Callable[[], float]
    assemble_for_ledger: Callable[[Snapshot, History], StepInput] | None = None

    def step_input_at(self, snapshot: Snapshot) -> StepInput:
        """Return the step input at that snapshot with the current history."""
        return self.assemble(snapshot, self.read_history(snapshot.head.timestamp_s))

    def ledger_step_input(self, step: StepInput) -> StepInput:
        """Return the step input for the ledger and the valuations."""
        if self.assemble_for_ledger is None:
            return step
        history = self.read_history(step.snapshot.head.timestamp_s)
        return self.assemble_for_ledger(step.snapshot, history)


def add_past_prices(readers: StepReaders, step: StepInput) -> StepInput:
    """Add the preceding blocks to the step if it acts on prices and policy.confirm_blocks requires
    them.
    """
    orders_need_prices = conditional_orders.needs_past_prices(step)
    if not orders_need_prices and not _acts_on_prices(step):
        return step
    past_prices = readers.reader.past_prices(step.snapshot.head, step.policy.confirm_blocks)
    snapshot = replace(step.snapshot, past_prices=past_prices)
    # the preceding blocks may change the stage of orders and thereby the targets
    return (
        readers.step_input_at(snapshot) if orders_need_prices else replace(step, snapshot=snapshot)
    )


def _acts_on_prices(step: StepInput) -> bool:
    """True if the step acts on prices now, or would without its open purchase: triggers are judged
    beside one that waits, and in place of one that ends.
    """
    step_variants = [step]
    if step.history.cash_flows.purchase is not None:
        step_variants.append(purchases.with_purchase(step, None))
    return any(
        price_confirmation.needs_past_blocks(
            step_variant, lambda judged_step: decide(judged_step).decision_to_confirm
        )
        for step_variant in step_variants
    )


def record_anomalies(budgets: BudgetStore, balances: BalanceStore, step: StepInput) -> None:
    """Record depegged tokens, unread balances and deposits above portfolio.max_live_value. Later
    steps need these records: a depegged token counts as recovered only within a narrower limit, a
    token is quarantined if its balance is unreadable for too long, and an excluded deposit stays
    excluded.
    """
    if (
        tokens_off_peg := depegged_tokens(step, reference_prices(step))
    ) != step.history.depegged_tokens:
        budgets.mark_depegged(tokens_off_peg)
    if (
        unread_tokens := quarantine.unreadable_since_s(step)
    ) != step.history.unread_since_s_by_token:
        budgets.mark_unreadable(unread_tokens)
    cash_flows = step.history.cash_flows
    if (
        step.exclusions.reason
        and cash_flows.excluded_increases_raw != cash_flows.unexplained_increases_raw
    ):
        balances.exclude_unexplained_deposits(
            max((transfer.id for transfer in cash_flows.unexplained_transfers), default=0)
        )


def record_order_stages(orders: OrderStore, history: History) -> None:
    """Record every order's stage before the step acts on it, also that none is left: a removed
    order that is set again starts anew. Raise Retryable if orders changed meanwhile.
    """
    order_states = history.orders.states
    nav_per_share = history.orders.nav_per_share
    orders_version = history.orders.version
    if (
        orders_version == 0 and not order_states and nav_per_share is None
    ):  # there has never been an order
        return
    if not orders.replace_orders(order_states, nav_per_share, orders_version):
        raise Retryable(
            "orders were changed while the chain was read",
            "run it again",
            code=ErrorCode.ORDERS_CHANGED,
        )


class OutcomeKind(Enum):
    """Result kind of a step."""

    HOLD = "hold"
    HALT = "halt"
    PLANNED = "planned"
    REFUSED = "refused"
    DECLINED = "declined"
    DONE = "done"
    FAILED = "failed"


REVIEW_DONE_KINDS = (OutcomeKind.HOLD, OutcomeKind.DECLINED, OutcomeKind.DONE)
"""Outcomes after which a schedule's review is done. A refused or failed step repeats it in
the next cycle."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """Result of a step: inputs, decision and actions.

    `input_after` is the step input read after the swap (None: no swap, or no answer).
    `refusal_verdicts` are those of a refusal, by a plan's guards or before or after them.
    `exits_tried` are tokens of exits already sold or skipped; later trades are confirmed
    separately. `layers` is what the layers did. `shortfall_tokens` are the tokens of a mined
    transaction whose balance changed by less than the plan's minimums.
    """

    step_id: str
    kind: OutcomeKind
    reason: str
    step_input: StepInput
    decision_result: DecisionResult
    plan: Plan | None
    transactions: tuple[Intent, ...] = ()
    input_after: StepInput | None = None
    refusal_verdicts: tuple[Verdict, ...] = ()
    exits_tried: tuple[str, ...] = ()
    layers: tuple[LayerPart, ...] = ()
    shortfall_tokens: tuple[str, ...] = ()

    def __repr__(self) -> str:
        notes_text = f"; {pluralize(len(self.notes), 'note')}" if self.notes else ""
        return f"StepOutcome({self.kind.value}, step {self.step_id}: {self.reason}{notes_text})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the command says beside the reason: why the targets are not those of the config, what
        stays off target, and unexplained balance changes.
        """
        portfolio = self.step_input.portfolio
        labels = [asset.token.label for asset in portfolio.assets]
        skipped = () if self.plan is None else self.plan.skipped
        return (
            *(f"targets: {reason}" for reason in self.step_input.targets.reasons),
            *(f"{item.subject} stays {item.why}" for item in skipped if item.subject in labels),
            *transfer_texts(self.step_input),
        )

    @property
    def plan_verdicts(self) -> tuple[Verdict, ...]:
        """Verdicts of the guards on the plan; none without a plan."""
        return () if self.plan is None else self.plan.verdicts

    @property
    def failed_verdicts(self) -> list[Verdict]:
        """Verdicts that failed, each once: those of the refusal, then the plan's."""
        verdicts = dict.fromkeys((*self.refusal_verdicts, *self.plan_verdicts))
        return [verdict for verdict in verdicts if not verdict.passed]

    @property
    def decision(self) -> Decision:
        """Decision of the step."""
        return self.decision_result.decision

    @property
    def has_halted(self) -> bool:
        """True if the policy halted; a hard pause that had nothing to undo decides nothing."""
        if self.kind is not OutcomeKind.HALT:
            return False
        return not (isinstance(self.decision, Halt) and HaltCode.HARD_PAUSE in self.decision.codes)


@dataclass(frozen=True, slots=True)
class StepTransactor:
    """What builds, confirms and sends the transactions of a step, which without it only evaluates.
    `confirm` is called before anything is sent, again for each exit, and for the trades after the
    exits.
    """

    executor: Executor
    composer: Composer
    confirm: Callable[[StepOutcome], bool]


# --- Proposal with screened tokens: tokens that fail the screen are quarantined.


ExtendTicks = Callable[[StepInput], StepInput | None]
"""Returns the step with more ticks of its pools; None if there are none."""


class ExitInterrupted(Retryable):
    """An endpoint failed while evidence for the exit of `token` was gathered.
    `may_take_direct_route` is True if the exit may be planned again without routing through another
    token.
    """

    def __init__(self, token: str, error: Retryable, may_take_direct_route: bool = False) -> None:
        super().__init__(error.message, error.remedy, code=error.code)
        self.token = token
        self.may_take_direct_route = may_take_direct_route


def propose_screened(
    step: StepInput,
    propose: Proposer,
    evidence_source: EvidenceSource | None,
    extend_ticks: ExtendTicks | None = None,
) -> tuple[StepInput, Proposal | Refused, Evidence | None]:
    """Return the final step, its proposal, and the evidence for the plan; or the refusal in place
    of the proposal. A proposal that reaches the end of the known ticks is repeated with more ticks.
    Tokens that do not transfer exact amounts, and pools that fail for a token, are quarantined, and
    the step is planned again without them, until every pool of the plan passes. Nothing is screened
    without an evidence source or a plan.
    """
    while True:
        proposal = _try_propose(step, propose)
        if (
            extend_ticks is not None
            and _ran_out_of_ticks(step, proposal)
            and (extended_step := extend_ticks(step)) is not None
        ):
            step = extended_step
            proposal = _try_propose(step, propose)
        if isinstance(proposal, Refused):
            return (
                (proposal.step if isinstance(proposal, RefusedWithBlockedExits) else step),
                proposal,
                None,
            )
        step = proposal.changed_step or step
        if proposal.plan is None or evidence_source is None:
            return step, proposal, None
        try:
            plan_evidence = evidence_source.gather(step, proposal.plan)
        except Retryable as error:
            if exit_token := proposal.decision_result.exit_token:
                may_retry_on_direct_route = blocked_exits.may_take_direct_route(
                    step.portfolio, step.progress.direct_route_tokens, proposal.plan, exit_token
                )
                raise ExitInterrupted(exit_token, error, may_retry_on_direct_route) from error
            raise
        screened_tokens = plan_evidence.screened_tokens or ()
        screened_step = quarantine.quarantine_pools(step, screened_tokens)
        screened_step = quarantine.quarantine_tokens(screened_step, screened_tokens)
        if screened_step is step:
            return step, proposal, plan_evidence
        step = screened_step


def _try_propose(step: StepInput, propose: Proposer) -> Proposal | Refused:
    try:
        return propose(step)
    except Refused as refusal:
        return refusal


def _ran_out_of_ticks(step: StepInput, proposal: Proposal | Refused) -> bool:
    """True if the proposal ends at the last tick that was read."""
    if isinstance(proposal, Refused):
        return isinstance(proposal, KnownTicksExceeded)
    return proposal.needs_more_ticks or (
        proposal.plan is not None and bool(plan_pools_out_of_ticks(step, proposal.plan.legs))
    )
