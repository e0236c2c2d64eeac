"""One cycle of a run as figures of its report and as log lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import version

from agent.app import describe
from agent.app.agent import Agent
from agent.errors import Retryable, TrimtabError
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import PPM, Counts, RunFigures
from agent.policy.decision import DecisionResult
from agent.policy.orders.exits import unconfirmed_notes
from agent.units import BPS, value_text

LogFields = dict[str, object]


def cycle_trouble(outcome_or_error: StepOutcome | TrimtabError) -> str:
    """Return the problem of a cycle, or an empty text. Halts, also while paused, failures and errors
    are problems; refusals by guards are normal.
    """
    if isinstance(outcome_or_error, TrimtabError):
        return outcome_or_error.message
    if outcome_or_error.has_halted or outcome_or_error.kind is OutcomeKind.FAILED:
        return f"{outcome_or_error.kind.value}: {outcome_or_error.reason}"
    return ""


def cycle_outcome(outcome_or_error: StepOutcome | TrimtabError) -> str:
    """Return the outcome of a cycle: that of its step, or the kind of error that ended it."""
    if isinstance(outcome_or_error, TrimtabError):
        return "retryable" if isinstance(outcome_or_error, Retryable) else "error"
    return outcome_or_error.kind.value


def cycle_transactions(outcome_or_error: StepOutcome | TrimtabError) -> Counts:
    """Return the number of transactions of a cycle by kind and state."""
    if isinstance(outcome_or_error, TrimtabError):
        return ()
    kinds_and_states = (
        f"{intent.kind.value} {intent.state.value}" for intent in outcome_or_error.transactions
    )
    return tuple(Counter(kinds_and_states).items())


def cycle_figures(
    agent: Agent,
    outcome_or_error: StepOutcome | TrimtabError,
    duration_s: float,
    previous_figures: RunFigures,
) -> RunFigures:
    """Return the figures after a cycle; what a failed one does not know stays as in
    `previous_figures`.
    """
    worst_score_by_operator: dict[str, int] = {}
    for endpoint in agent.endpoints():
        score = round(float(endpoint["score"]) * PPM)
        operator = str(endpoint["operator"])
        worst_score_by_operator[operator] = min(score, worst_score_by_operator.get(operator, PPM))
    figures = replace(
        previous_figures,
        took_ms=round(duration_s * 1_000),
        open_intents=len(agent.context.store.journal.open_intents()),
        endpoint_scores_ppm=tuple(worst_score_by_operator.items()),
    )
    if isinstance(outcome_or_error, TrimtabError):
        return figures
    step = outcome_or_error.input_after or outcome_or_error.step_input
    decimals = step.portfolio.numeraire.decimals
    figures = replace(
        figures,
        head_s=step.snapshot.head.timestamp_s,
        gas_24h_wei=step.history.budgets.gas_24h_wei,
        loss_24h=value_text(step.history.budgets.loss_24h, decimals),
    )
    total_value = _total_value(outcome_or_error.decision_result)
    if total_value is None:
        return figures
    loss_limit_bps = step.limits.daily_loss_bps
    loss_limit = None if loss_limit_bps is None else total_value * loss_limit_bps / BPS
    return replace(
        figures,
        value=value_text(total_value, decimals),
        drifts_bps=tuple(agent.drifts(step).items()),
        loss_limit=None if loss_limit is None else value_text(loss_limit, decimals),
    )


def log_events(
    agent: Agent, outcome_or_error: StepOutcome | TrimtabError, duration_s: float
) -> list[tuple[str, LogFields]]:
    """Return the log events of a cycle with their fields: the cycle, then each transaction."""
    if isinstance(outcome_or_error, TrimtabError):
        return [("look failed", {**error_fields(outcome_or_error), "took_s": round(duration_s, 3)})]
    numeraire = outcome_or_error.step_input.portfolio.numeraire
    total_value = _total_value(outcome_or_error.decision_result)
    drifts = agent.drifts(outcome_or_error.input_after or outcome_or_error.step_input)
    head = outcome_or_error.step_input.snapshot.head
    cycle_fields = nonempty_fields(
        outcome=outcome_or_error.kind.value,
        reason=outcome_or_error.reason,
        step=outcome_or_error.step_id,
        block=head.number,
        value=None if total_value is None else numeraire.money_text(total_value),
        orders=unconfirmed_notes(outcome_or_error.step_input),
        worst_drift_bps=max((abs(bps) for bps in drifts.values()), default=0),
        refused_by=[
            verdict.guard for verdict in outcome_or_error.refusal_verdicts if not verdict.passed
        ],
        off_target=describe.off_target_reasons(outcome_or_error)
        if outcome_or_error.kind is OutcomeKind.DONE
        else [],
        took_s=round(duration_s, 3),
    )
    return [("look", cycle_fields)] + [
        (
            "transaction",
            nonempty_fields(
                kind=intent.kind.value,
                state=intent.state.value,
                what=intent.note,
                nonce=intent.tx.nonce,
                hash=intent.tx_hash,
                block=intent.receipt.block_number if intent.receipt else None,
                gas_wei=str(intent.receipt.gas_cost_wei) if intent.receipt else None,
            ),
        )
        for intent in outcome_or_error.transactions
    ]


def status_line(outcome_or_error: StepOutcome | TrimtabError) -> str:
    """Return the status line for the service manager."""
    if isinstance(outcome_or_error, TrimtabError):
        return outcome_or_error.message
    return f"{outcome_or_error.kind.value}: {outcome_or_error.reason}"


def error_fields(error: TrimtabError) -> LogFields:
    """Return the log fields of an error."""
    return nonempty_fields(
        kind=type(error).__name__, message=error.message, remedy=error.remedy, exit=error.exit_code
    )


def agent_fields(agent: Agent) -> LogFields:
    """Return the log fields that identify the agent."""
    config = agent.context.config
    return {
        **({"book_kind": "paper"} if agent.on_paper else {}),
        "version": version("trimtab"),
        "chain": config.chain.chain_id,
        "wallet": config.wallet.address,
        "operators": sorted({endpoint.operator for endpoint in config.chain.rpc}),
    }


def nonempty_fields(**fields: object) -> LogFields:
    """Return the fields that are not empty."""
    return {
        field_name: field_value
        for field_name, field_value in fields.items()
        if field_value not in (None, "", [], ())
    }


def _total_value(decision_result: DecisionResult) -> Fraction | None:
    """Return the value of the assets; None while one is unknown."""
    if not decision_result.drifts:
        return None
    return sum((drift.value for drift in decision_result.drifts), Fraction(0))
