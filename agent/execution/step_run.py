"""A running step: its sent, confirmed and skipped items, and the outcome that results. A refusal or
an endpoint error skips one exit, and the step continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from agent import codec
from agent.errors import Refused, Retryable, TrimtabError
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome, StepReaders
from agent.model import (
    BlockedExit,
    Intent,
    IntentKind,
    Plan,
    PlanRequest,
    StepInput,
    SubmissionRefusal,
)
from agent.planning.proposals import Proposer
from agent.planning.requests import proposer
from agent.policy.orders.blocked_exits import RETRY_REMEDY, add_submission_refusal, may_go_directly
from agent.store.store import Store


class LayerRun:
    """What a running step has done in a layer, and has found impossible there; empty at first."""

    def with_progress(self, step: StepInput) -> StepInput:
        """Return the step with the layer's progress."""
        return step

    def leaves(self, plan: Plan) -> bool:
        """True if the layer leaves this plan to the next step."""
        return False

    def is_done_before(self, plan: Plan | None) -> bool:
        """True if the step counts as done although this plan of the layer follows."""
        return False

    def notes(self) -> list[str]:
        """Return notes on the actions done."""
        return []

    @property
    def failed_exits(self) -> list[StepOutcome]:
        """Outcomes of exits that were refused or failed; purchases then wait for the next step."""
        return []

    @property
    def follows_swaps(self) -> bool:
        """True if the layer may act after the swap of this step."""
        return False

    def completed(self, outcome: StepOutcome) -> StepOutcome:
        """Return the outcome of the whole step with what the layer did and could not do."""
        return outcome


R = TypeVar("R", bound=LayerRun)


@dataclass(slots=True)
class StepRun:
    """State of a running step: its sources, and its confirmed, sent and skipped items.

    `sent` has all transactions of the step; those of the current plan begin at `first_of_plan`.
    `spend_caps` are the approved base units by token, an upper bound for legs. `exits`
    are the outcomes of sent exits, `skipped` the exits that the rest of the step ignores. `doubtful` has, per exit that simulation or
    signer refused in this step, the refusal stored before. `interrupted` are exits that could not
    be sent because an endpoint failed, with the error. `held` are exits that the owner declined or
    whose gas was refused. After an interrupted, held or failed exit only plans that reduce risk are
    sent. `direct` are tokens whose exits failed on a route through another token and are planned
    again without it.
    """

    readers: StepReaders
    asked: PlanRequest
    store: Store
    sent: list[Intent] = field(default_factory=list)
    first_of_plan: int = 0
    spend_caps: dict[str, int] = field(default_factory=dict)
    approval_rounds: int = 0
    layers: dict[type[LayerRun], LayerRun] = field(default_factory=dict)
    confirmed: StepOutcome | None = None
    swapped: StepOutcome | None = None
    exits: list[StepOutcome] = field(default_factory=list)
    skipped: tuple[BlockedExit, ...] = ()
    doubtful: dict[str, SubmissionRefusal | None] = field(default_factory=dict)
    interrupted: list[tuple[str, Retryable]] = field(default_factory=list)
    held: list[StepOutcome] = field(default_factory=list)
    direct: tuple[str, ...] = ()

    def layer(self, kind: type[R]) -> R:
        """Return what the step has done in a layer."""
        if not isinstance(part := self.layers.get(kind, kind()), kind):
            raise TypeError(f"{type(part).__name__} is no {kind.__name__}")
        parts: dict[type[LayerRun], LayerRun] = {**self.layers, kind: part}
        self.layers = dict(sorted(parts.items(), key=lambda item: item[0].__name__))
        return part

    @property
    def failed_in_layers(self) -> list[StepOutcome]:
        """Outcomes of the layers' exits that were refused or failed."""
        return [outcome for layer in self.layers.values() for outcome in layer.failed_exits]

    @property
    def propose(self) -> Proposer:
        """Proposer for the request of the step."""
        return proposer(self.asked)

    @property
    def tried(self) -> tuple[str, ...]:
        """Tokens of the exits that this step has sent or skipped."""
        sent = [outcome.decided.exit_token for outcome in self.exits]
        return tuple(dict.fromkeys([*sent, *(blocked.token for blocked in self.skipped)]))

    def close(self, outcome: StepOutcome) -> StepOutcome:
        """Record the outcome of an evaluation in the journal, and return it."""
        self.end(outcome, outcome.reason, outcome.kind.value)
        return outcome

    def end(self, outcome: StepOutcome, reason: str, kind: str) -> None:
        """Record an evaluation whose reason or kind differs from those of its outcome."""
        plan = None if outcome.plan is None else codec.dumps(outcome.plan)
        decision = type(outcome.decision).__name__.lower()
        self.store.steps.end(outcome.step_id, decision, reason, plan, kind)

    def exits_with(self, kind: OutcomeKind) -> list[StepOutcome]:
        """Return the sent exits with this kind of outcome."""
        return [outcome for outcome in self.exits if outcome.kind is kind]

    @property
    def is_risk_reducing_only(self) -> bool:
        """True after an unsold exit: purchases wait for the next cycle."""
        failed = self.exits_with(OutcomeKind.FAILED) or self.failed_in_layers
        return bool(failed or self.interrupted or self.held)

    @property
    def own_readers(self) -> StepReaders:
        """Readers whose step inputs include the progress of this step."""
        assemble = self.readers.assemble
        return replace(
            self.readers,
            assemble=lambda snapshot, history: self._with_progress(assemble(snapshot, history)),
        )

    def _with_progress(self, step_input: StepInput) -> StepInput:
        """Return the step input with caps and gas of the current plan, and what layers did."""
        receipts = [intent.receipt for intent in self.sent[self.first_of_plan :]]
        gas_wei = sum(receipt.gas_cost_wei for receipt in receipts if receipt is not None)
        step_input = replace(
            step_input,
            progress=replace(
                step_input.progress,
                spend_caps=tuple(self.spend_caps.items()),
                spent_gas_wei=gas_wei,
                direct=self.direct,
            ),
        )
        for layer in self.layers.values():
            step_input = layer.with_progress(step_input)
        return step_input

    def begin_plan(self) -> None:
        """Reset the counters for the next plan of this step."""
        self.approval_rounds, self.spend_caps, self.first_of_plan = 0, {}, len(self.sent)

    def go_directly(self, token: str) -> None:
        """Plan this exit again, without a route through another token."""
        self.direct += (token,)
        self.leave_exit()

    def leave_exit(self, blocked: BlockedExit | None = None) -> None:
        """Begin the next plan after an exit. The rest of the step ignores a `blocked` exit."""
        if blocked is not None:
            self.skipped += (blocked,)
        self.confirmed = None
        self.begin_plan()


# --- The outcome of a whole step.


def finish(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that sends nothing more: that of its swap, exits or actions,
    else of the evaluation.
    """
    if run.swapped is not None:
        run.close(outcome)
        return replace(run.swapped, transactions=tuple(run.sent), after=outcome.step_input)
    acted = [note for layer in run.layers.values() for note in layer.notes()]
    left = any(layer.is_done_before(outcome.plan) for layer in run.layers.values())
    if run.exits or not acted or not (outcome.kind is OutcomeKind.HOLD or left):
        return after_exits(run, run.close(outcome))
    reason = "; ".join([*acted, outcome.reason])
    return run.close(
        replace(outcome, kind=OutcomeKind.DONE, reason=reason, after=outcome.step_input)
    )


def after_exits(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the final outcome of a step that ends with `outcome`: that of its last failed exit,
    else of its last exit.
    """
    if not run.exits:
        return outcome
    step_outcome = (run.exits_with(OutcomeKind.FAILED) or run.exits)[-1]
    sent = {exit_.decided.exit_token for exit_ in run.exits}
    blocked = tuple(item for item in outcome.decided.stuck if item.token not in sent)
    parts = [step_outcome.reason]
    if len(sent) > 1:
        parts += sold_exits(run)
    if blocked or outcome.kind is not OutcomeKind.HOLD:
        parts.append(f"then: {outcome.reason}")
    return replace(
        step_outcome,
        reason="; ".join(parts),
        decided=replace(step_outcome.decided, stuck=blocked),
        exits_tried=run.tried,
        transactions=tuple(run.sent),
        after=outcome.step_input,
    )


def outcome_of_step(run: StepRun, ended: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that ends with `ended`, including what the layers did and
    everything that could not be sent. Raise the endpoint's error if nothing was sent.
    """
    for layer in run.layers.values():
        ended = layer.completed(ended)
    return _with_unsold_exits(run, ended)


def _with_unsold_exits(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Add the exits that the step could not sell to the outcome, even if later plans succeeded.
    Raise the endpoint's error if nothing was sent and no exit was held.
    """
    quiet = outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.PLANNED)
    outcomes = [*run.failed_in_layers, *run.held]
    if quiet and outcomes:
        outcome = replace(outcomes[-1], transactions=tuple(run.sent))
    elif quiet and run.interrupted and not run.sent:
        raise run.interrupted[0][1]
    failed = [*run.exits_with(OutcomeKind.FAILED), *run.failed_in_layers]
    token_at = outcome.step_input.portfolio.token
    unsold = [exit_.reason for exit_ in failed if exit_.reason not in outcome.reason]
    unsold += [
        f"{token_at(token).label} was not sold: {error}"
        for token, error in run.interrupted
        if error.message not in outcome.reason
    ]
    hidden = outcome.kind is OutcomeKind.DONE or (quiet and not outcomes)
    if (failed or run.interrupted) and hidden:
        outcome = replace(outcome, kind=OutcomeKind.FAILED)
    return replace(outcome, reason="; ".join([outcome.reason, *unsold]))


def sold_exits(run: StepRun) -> list[str]:
    """Return a note on the sold exits; empty if there are none."""
    labels = [
        sold.step_input.portfolio.token(sold.decided.exit_token).label
        for sold in run.exits_with(OutcomeKind.DONE)
    ]
    return [f"exits sold, each in its own transaction: {', '.join(labels)}"] if labels else []


def sent_so_far(sent: Sequence[Intent]) -> str:
    """Return the words before "sent" in the note on a declined plan, such as "nothing more was" if
    other actions were sent.
    """
    if any(intent.kind is not IntentKind.APPROVE for intent in sent):
        return "nothing more was"
    return "only approvals were" if sent else "nothing was"


def skip_refused_exit(run: StepRun, outcome: StepOutcome, refusal: Refused) -> StepOutcome | None:
    """Skip an exit refused by its token, the simulation or the signer; any other refusal ends the
    step. If no exit was sold and the remaining plan is refused too, the refusal does not count
    against the token: router or endpoint may be at fault.
    """
    reason = str(refusal)
    if outcome.plan is None:
        reason += f"; {outcome.reason}"  # include the decision's reason
    stopped = replace(
        outcome,
        kind=OutcomeKind.REFUSED,
        reason=reason,
        transactions=tuple(run.sent),
        verdicts=refusal.verdicts,
    )
    run.close(stopped)
    own = evaluation.concerns_trade(refusal) or evaluation.gas_refusal(refusal)
    token = outcome.decided.exit_token
    if (
        own
        and not isinstance(refusal, evaluation.ExitRefused)
        and may_go_directly(outcome.step_input, outcome.plan, token)
    ):
        run.go_directly(token)
        return None
    if not evaluation.concerns_trade(refusal):
        if own and token:
            hold_exit(run, stopped, f"refused at submission: {refusal.message}")
            return None
        return after_exits(run, stopped)
    refusals = {
        earlier.token: earlier
        for earlier in outcome.step_input.history.failures.submission_refusals
    }
    if run.confirmed is None or not (token := run.confirmed.decided.exit_token):
        if run.doubtful and not run.exits_with(OutcomeKind.DONE):
            run.store.budgets.mark_submission_refusals(
                evaluation.without_doubtful(tuple(refusals.values()), run.doubtful)
            )
        return after_exits(run, stopped)
    if not isinstance(refusal, evaluation.ExitRefused):
        run.doubtful[token] = refusals.get(token)
    blocked = BlockedExit(token, f"refused at submission: {refusal.message}", RETRY_REMEDY)
    run.store.budgets.mark_submission_refusals(add_submission_refusal(outcome.step_input, blocked))
    run.leave_exit(blocked)
    return None


def hold_exit(run: StepRun, outcome: StepOutcome, why: str) -> None:
    """Skip an exit that was declined or whose gas was refused, without recording a refusal by its
    token.
    """
    run.held.append(outcome)
    run.leave_exit(BlockedExit(outcome.decided.exit_token, why, evaluation.NOTHING_TO_DO))


def skip_interrupted_exit(
    run: StepRun, actors: StepActors, token: str, error: TrimtabError, directly: bool
) -> bool:
    """Skip an exit that was not sent because an endpoint failed, or plan it again without a route
    through another token. Return False for other errors, and if the next nonce is unknown: the swap
    was sent or a transaction is open.
    """
    if not isinstance(error, Retryable) or not token or token in run.tried:
        return False
    sent = [
        intent for intent in run.sent[run.first_of_plan :] if intent.kind is not IntentKind.APPROVE
    ]
    if sent or not actors.executor.ready():
        return False
    if directly:
        run.go_directly(token)
        return True
    run.interrupted.append((token, error))
    why = f"it could not be sent: {error.message}"
    run.leave_exit(BlockedExit(token, why, error.remedy or evaluation.NOTHING_TO_DO))
    return True
