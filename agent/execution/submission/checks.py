"""What must hold before a transaction is sent: the kill switch, its deadline, its data fee."""

from __future__ import annotations

from agent.errors import ErrorCode, Refused, Retryable
from agent.model import IntentKind, Verdict
from agent.ports import Grant, Simulation
from agent.store.files.pause import PauseCheck, PauseSwitchState

UNDO_ADVICE = (
    "trimtab pause --hard --send allows it, cancels what is pending and revokes allowances, and still"
    " sends nothing else"
)
"""Remedy for a cancel or revocation that a pause refuses: the pause stays."""


def guard_refusal(
    guard: str,
    measured: str,
    limit: str,
    message: str,
    remedy: str = "",
    error_type: type[Refused] = Refused,
) -> Refused:
    """Return a refusal with one verdict."""
    return error_type(message, (Verdict(guard, measured, limit, False),), remedy)


def pause_refusal(switch_state: str, grant: Grant, why: str = "") -> Refused:
    """Return the refusal by a kill switch in this state, with why it is on and what ends it."""
    return guard_refusal(
        "kill_switch",
        switch_state,
        "off",
        f"the kill switch is on ({switch_state}{why and f': {why}'}); nothing is sent",
        UNDO_ADVICE if only_undoes(grant) else "trimtab resume",
    )


def stored_pause_check(grant: Grant) -> PauseCheck:
    """Return what raises Refused for a stored pause that forbids to send by this grant, as
    `Submitter.require_running`; for the transaction that records the send, after all that asks the
    network.
    """

    def require_running(pause: PauseSwitchState) -> None:
        if pause.paused and not (pause.hard and only_undoes(grant)):
            raise pause_refusal("paused", grant, pause.reason)

    return require_running


def only_undoes(grant: Grant) -> bool:
    """True if the grant permits nothing but a cancel or setting an allowance to zero."""
    return grant.kind is IntentKind.CANCEL or (
        grant.kind is IntentKind.APPROVE
        and grant.approval_terms is not None
        and grant.approval_terms[2] == 0
    )


def require_granted_data_fee(simulation: Simulation, grant: Grant) -> None:
    """Raise Refused if the data fee at the head is above the granted one, Retryable if it is
    unknown (T13).
    """
    max_data_fee_wei = grant.max_data_fee_wei
    if only_undoes(grant):
        return
    if simulation.data_fee_unknown_reason:
        raise Retryable(simulation.data_fee_unknown_reason, code=ErrorCode.ANSWER)
    if max_data_fee_wei is None or simulation.data_fee_wei <= max_data_fee_wei:
        return
    raise guard_refusal(
        "data_fee",
        f"{simulation.data_fee_wei} wei",
        f"{max_data_fee_wei} wei",
        "the rollup's data fee rose above what the plan allows for",
        "plan again",
    )


def require_before_deadline(now_s: int, deadline_s: int | None) -> None:
    """Raise Refused once chain time has reached the deadline, because the next block would be too
    late.
    """
    if deadline_s is not None and now_s >= deadline_s:
        raise guard_refusal(
            "deadline",
            f"chain time {now_s}",
            f"before {deadline_s}",
            "the transaction's deadline has passed",
            "plan again",
        )
