"""Guards on whom a plan deals with and whether the agent may act at all."""

from __future__ import annotations

from agent.guards.case import Case, Measured, Missing
from agent.model import Plan, Provide
from agent.policy import failures
from agent.policy.words import moment
from agent.units import NATIVE

NO_CODE = "0x" + "0" * 64
SCREENED = "all move what they are told to"


def allowlist(case: Case) -> Measured:
    """Every pool, token, router, factory and position manager of the plan is pinned by address and by the code that the snapshot found.

    Tokens must also belong to the portfolio, as asset or hub. The native coin has no code; what wraps it is such a token.
    """
    portfolio, execution = case.step.portfolio, case.step.execution
    known = {token.address for token in (*(a.token for a in portfolio.assets), *portfolio.hubs, portfolio.numeraire)}
    legs, actions = case.plan.legs, case.plan.actions
    traded = [token for leg in legs for token in (leg.token_in, leg.token_out) if token != NATIVE]
    tokens = dict.fromkeys((*traded, *(token for action in actions for token in (action.token0, action.token1))))
    pools = dict.fromkeys((*(leg.pool for leg in legs), *(place for action in actions for place in (action.pool, action.contract))))
    shut = {one.token for one in case.step.quarantine}  # what is left alone may have changed; it is named already
    needed = dict.fromkeys((*pools, *tokens, execution.router, *(address for address in execution.pinned if address not in shut)))
    code = {entry.address.lower(): entry.hash.lower() for entry in case.step.snapshot.code_hashes}
    trusted = {(address.lower(), pinned.lower()) for address, pinned in case.evidence.trusted}
    pinned_addresses = {address for address, _ in trusted}
    complaints = [f"{token} is no token of the portfolio" for token in tokens if token not in known]
    for address in needed:
        found = code.get(address.lower())
        if found is None:
            complaints.append(f"code at {address} was not read")
        elif found == NO_CODE:
            complaints.append(f"no code at {address}")
        elif address.lower() not in pinned_addresses:
            complaints.append(f"{address} is not pinned")
        elif (address.lower(), found) not in trusted:
            complaints.append(f"code at {address} changed since it was pinned")
    return Measured("; ".join(complaints) or f"{len(needed)} of {len(needed)} pinned", not complaints)


def token_screen(case: Case, _: bool) -> Measured:
    """Every token that the plan moves was tried out at its amounts, and moves what it is told to; none is in quarantine.

    Taking liquidity out, and unwrapping, is not held back.
    """
    moved = moved_tokens(case.plan)
    screens = case.evidence.screens
    if moved and screens is None:
        raise Missing("no token was tried out")
    found = {one.token: one for one in screens or ()} | {one.token: one for one in case.step.quarantine}
    complaints = [f"{case.label(token)} was not tried out" for token in moved if token not in found]
    refused = [found[token] for token in moved if token in found and not found[token].finding.accepted]
    complaints += [f"{case.label(one.token)} {one.why}" for one in refused]
    return Measured("; ".join(complaints) or f"{len(moved)} of {len(moved)} move what they are told to", not complaints)


def moved_tokens(plan: Plan) -> tuple[str, ...]:
    """Tokens that legs exchange or that are provided as liquidity, each once. Wrapping and unwrapping exchange nothing."""
    traded = [token for leg in plan.legs if NATIVE not in (leg.token_in, leg.token_out) for token in (leg.token_in, leg.token_out)]
    provided = [token for action in plan.actions if isinstance(action, Provide) for token in (action.token0, action.token1)]
    return tuple(dict.fromkeys((*traded, *provided)))


def kill_switch(case: Case) -> Measured:
    """Paused by the owner, or the switch cannot be read, which counts as paused (T14)."""
    match case.evidence.paused:
        case False:
            return Measured("not paused", True)
        case True:
            return Measured(f"paused: {case.evidence.pause_reason}" if case.evidence.pause_reason else "paused", False)
        case None:
            return Measured("cannot be read, which counts as paused", False)


def quorum(case: Case) -> Measured:
    """Enough operators gave the same snapshot, byte for byte (T2)."""
    return Measured(f"{len(set(case.step.snapshot.operators))} operator(s) agree", case.evidence.quorum)


def reverts_in_row(case: Case) -> Measured:
    """Fewer transactions in a row reverted, and fewer steps approved without a swap, than make the agent stop until its owner resumes
    (T6). An exit is tried again after a wait that grows, since anybody can make it revert (T20).
    """
    history = case.step.history
    reverts, approvals = history.reverts_in_row, history.approvals_in_row
    told = f"{reverts} reverts, {approvals} steps of approvals without a swap"
    if not case.only_leaves():
        since = "; more since the owner resumed" if history.failures_stop and not failures.too_many(reverts, approvals) else ""
        return Measured(told + since, not failures.stopped(history))
    wait_s = failures.wait_s(history)
    if wait_s == 0 or case.step.spend_caps:  # what this step approved was let through when it began
        return Measured(told, True)
    if history.failed_s is None:
        raise Missing("when the last transaction failed")
    again_s = history.failed_s + wait_s
    return Measured(f"{told}; an exit is tried again at {moment(again_s)}", case.step.snapshot.head.timestamp_s >= again_s)
