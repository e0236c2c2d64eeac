"""Revocation of every allowance that the wallet may have given."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent import codec, wiring
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.chain.tokens import PERMIT2, read_allowances
from agent.execution.approvals import (
    current_step_input,
    ends_if_raised,
    require_none_proposed,
    revoke_allowances,
)
from agent.layers.futures.policy.plans import vault_spender
from agent.layers.liquidity.policy.pools import position_spenders
from agent.model import (
    Intent,
    ManualAction,
)
from agent.ports import Approval
from agent.units import pluralize
from agent.venues import allowances


@dataclass(frozen=True, slots=True)
class OpenAllowance:
    """Allowance of one contract for one token in base units; `raw` is None if it is unreadable."""

    token: str
    token_label: str
    spender: str
    spender_role: str
    raw: int | None


@dataclass(frozen=True, slots=True)
class RevocationReport:
    """Result of a revocation. `state` is clear (no allowances), unknown (none is open, but some
    cannot be read), planned, declined, revoked or failed.
    """

    allowances: tuple[OpenAllowance, ...]
    state: str
    reason: str = ""
    transactions: tuple[Intent, ...] = ()


def revoke(
    agent: Agent,
    tokens: Sequence[str] = (),
    *,
    send: bool = False,
    confirm: Callable[[RevocationReport], bool],
    progress: Progress = ignore_progress,
) -> RevocationReport:
    """Read the allowances of routers, managers and Permit2, and with `send` set them to zero one by
    one after a confirmation. `tokens` are symbols or addresses, by default all of the config.
    Raises ConfigError for a token that the config does not list, AwaitingExternalSignature once a
    revocation is proposed.
    """
    named_addresses = [
        agent.token(symbol_or_address, "TOKEN").address for symbol_or_address in tokens
    ]
    token_addresses = list(dict.fromkeys(named_addresses or agent.context.token_addresses))
    open_allowances = _read_open_allowances(agent, token_addresses)
    unreadable_text = ", ".join(
        f"{open_allowance.token_label} for the {open_allowance.spender_role}"
        for open_allowance in open_allowances
        if open_allowance.raw is None
    )
    state = "unknown" if unreadable_text else "clear"
    report = RevocationReport(
        open_allowances,
        "planned" if any(allowance.raw for allowance in open_allowances) else state,
        f"cannot be read: {unreadable_text}" if unreadable_text else "",
    )
    if not send or report.state != "planned":
        return report
    if not confirm(report):
        return replace(report, state="declined", reason="not confirmed; nothing was sent")
    context = agent.context.without_venue_waits
    with wiring.open_transactor(context, never_confirm, progress) as transactor:
        transactor.executor.reconcile()
        step = current_step_input(context.readers, context.store)
        step_id = uuid.uuid4().hex[:12]
        confirmed_token_spenders = {
            (allowance.token, allowance.spender) for allowance in open_allowances if allowance.raw
        }
        revocations = [
            Approval(
                allowance.token, allowance.spender, 0, allowance.token_label, allowance.spender_role
            )
            # a running agent may have revoked some in the meantime
            for allowance in _read_open_allowances(agent, token_addresses)
            if allowance.raw and (allowance.token, allowance.spender) in confirmed_token_spenders
        ]
        context.store.steps.begin(
            step_id, context.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction("revoke"))
        )
        with ends_if_raised(context.store, step_id, "halt"):
            sent_intents, revocation_failures = revoke_allowances(
                transactor, step_id, step, revocations
            )
            require_none_proposed(revocation_failures)
            current_step_input(context.readers, context.store)
            remaining_allowances = _read_open_allowances(agent, token_addresses)
        failures = [failure.message for failure in revocation_failures]
        failures += [
            f"the {allowance.spender_role} may still spend {allowance.token_label}"
            + (": the allowance cannot be read" if allowance.raw is None else "")
            for allowance in remaining_allowances
        ]
        reason = "; ".join(failures) or f"{pluralize(len(sent_intents), 'allowance')} set to zero"
        context.store.steps.end(step_id, "halt", reason, None, "failed" if failures else "done")
    return replace(
        report,
        state="failed" if failures else "revoked",
        reason=reason,
        transactions=tuple(sent_intents),
    )


def _read_open_allowances(
    agent: Agent, token_addresses: Sequence[str]
) -> tuple[OpenAllowance, ...]:
    """Return every allowance that is open or unreadable."""
    context = agent.context
    spender_roles = _spender_roles(agent)
    token_spender_pairs = [
        (token, spender) for token in token_addresses for spender in spender_roles
    ]
    allowances_raw = read_allowances(
        context.transport, context.config.wallet.address, token_spender_pairs
    )
    return tuple(
        OpenAllowance(
            token,
            context.portfolio.token(token).label,
            spender,
            spender_roles[spender],
            allowance_raw,
        )
        for (token, spender), allowance_raw in zip(token_spender_pairs, allowances_raw, strict=True)
        if allowance_raw != 0
    )


def _spender_roles(agent: Agent) -> dict[str, str]:
    """Return the role by address of every contract that may have received an allowance."""
    config = agent.context.config
    role_by_address = {PERMIT2: "Permit2"}
    for venue in config.venues:
        if venue.router is not None:
            role_by_address[venue.router] = f"{venue.name} router"
        if venue.position_manager is not None:
            role_by_address[venue.position_manager] = "position manager"
    if config.execution.rebalancer is not None:
        role_by_address[config.execution.rebalancer] = "rebalancer"
    execution = agent.context.execution
    layer_spenders = position_spenders(execution) | vault_spender(agent.context.futures_policy)
    return role_by_address | allowances.allowed_spenders(execution, layer_spenders)
