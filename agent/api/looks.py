"""One look of a run, as others want it: as figures, as log lines, and whether it was a good one."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from importlib.metadata import version

from agent.api.agent import Agent
from agent.errors import Retryable, TrimtabError
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import StepInput
from agent.observe.metrics import Look
from agent.policy.decide import Decided
from agent.units import BPS, value_text

Fields = dict[str, object]
_BAD = (OutcomeKind.HALT, OutcomeKind.FAILED)


def trouble(found: Outcome | TrimtabError, paused: bool) -> str:
    """Why a look was no good, empty where it was. A guard that refuses does its work; what halts or fails needs eyes."""
    if isinstance(found, TrimtabError):
        return found.message
    if found.kind in _BAD and not (paused and found.kind is OutcomeKind.HALT):
        return f"{found.kind.value}: {found.reason}"
    return ""


def figures(agent: Agent, found: Outcome | TrimtabError, took_s: float, paused: bool) -> Look:
    """The look for Prometheus."""
    endpoints = [(str(one["operator"]), float(one["score"])) for one in agent.endpoints()]
    waiting = len(agent.desk.store.open_intents())
    if isinstance(found, TrimtabError):
        return Look("retryable" if isinstance(found, Retryable) else "error", took_s, paused, waiting, endpoints=endpoints)
    step = found.after or found.step_input
    portfolio = step.portfolio
    total = _total(found.decided)
    return Look(
        found.kind.value,
        took_s,
        paused,
        waiting,
        value=float(total / 10**portfolio.numeraire.decimals),
        drifts_bps=agent.drifts(step),
        head_s=step.snapshot.head.timestamp_s,
        transactions=Counter(f"{intent.kind.value} {intent.state.value}" for intent in found.transactions),
        gas_24h_wei=step.history.gas_24h_wei,
        loss_share=_loss_share(step, total),
        endpoints=endpoints,
    )


def lines(agent: Agent, found: Outcome | TrimtabError, took_s: float) -> list[tuple[str, Fields]]:
    """(event, fields) of the log: one for the look, one for each transaction."""
    if isinstance(found, TrimtabError):
        return [("look failed", {**failure(found), "took_s": round(took_s, 3)})]
    numeraire = found.step_input.portfolio.numeraire
    drifts = agent.drifts(found.after or found.step_input)
    head = found.step_input.snapshot.head
    told = filled(
        outcome=found.kind.value,
        reason=found.reason,
        step=found.step_id,
        block=head.number,
        value=f"{value_text(_total(found.decided), numeraire.decimals, 2)} {numeraire.label}",
        worst_drift_bps=max((abs(bps) for bps in drifts.values()), default=0),
        refused_by=[verdict.guard for verdict in found.verdicts if not verdict.passed],
        took_s=round(took_s, 3),
    )
    return [("look", told)] + [
        (
            "transaction",
            filled(
                kind=intent.kind.value,
                state=intent.state.value,
                what=intent.note,
                nonce=intent.tx.nonce,
                hash=intent.tx_hash,
                block=intent.receipt.block_number if intent.receipt else None,
                gas_wei=str(intent.receipt.gas_cost_wei) if intent.receipt else None,
            ),
        )
        for intent in found.transactions
    ]


def summary(found: Outcome | TrimtabError) -> str:
    """One line for the service manager."""
    return found.message if isinstance(found, TrimtabError) else f"{found.kind.value}: {found.reason}"


def failure(error: TrimtabError) -> Fields:
    """An error as fields."""
    return filled(kind=type(error).__name__, message=error.message, remedy=error.remedy, exit=error.exit_code)


def who(agent: Agent) -> Fields:
    """Which agent runs here."""
    config = agent.desk.config
    return {
        **({"books": "paper"} if agent.desk.loaded.paper else {}),
        "version": version("trimtab"),
        "chain": config.chain.chain_id,
        "wallet": config.wallet.address,
        "operators": sorted({one.operator for one in config.chain.rpc}),
    }


def filled(**fields: object) -> Fields:
    """Fields without those that say nothing."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], ())}


def _total(decided: Decided) -> Fraction:
    return sum((drift.value for drift in decided.drifts), Fraction(0))


def _loss_share(step: StepInput, total: Fraction) -> float | None:
    limit = step.limits.daily_loss_bps
    if limit is None or total <= 0:
        return None
    return float(step.history.loss_24h / (total * limit / BPS)) if limit else float("inf")
