"""Emergency commands: the hard pause, and revocation of every known allowance."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from agent import codec, wiring
from agent.app.agent import Agent, Progress, ignore_progress, never_confirm, open_agent
from agent.app.records.step_history import pause_by_file
from agent.chain.tokens import PERMIT2, read_allowances
from agent.config.load import LoadedConfig, load_config
from agent.errors import OperatorNeeded, TrimtabError
from agent.execution.approvals import OpenExposure, current_step_input, revoke_allowances
from agent.execution.step_context import StepOutcome
from agent.model import Intent, ManualAction
from agent.ports import Approval
from agent.store.files.locks import LockHeld, require_private
from agent.venues import composer

# --- The hard pause: pauses at once, shows what it would cancel and revoke, and acts once confirmed
# (T14).


@dataclass(frozen=True, slots=True)
class HardPauseReport:
    """Result of a hard pause.

    `outcome` is None if this command sent nothing: `hard` is True if the switch is at hard, `held`
    names the process that has the wallet and cancels instead.
    """

    reason: str
    hard: bool
    found: OpenExposure
    outcome: StepOutcome | None = None
    held: str = ""


def pause_hard(
    config: LoadedConfig | Path | str,
    reason: str,
    *,
    send: bool,
    sure: bool,
    confirm: Callable[[OpenExposure], bool],
    progress: Progress = ignore_progress,
) -> HardPauseReport:
    """Pause softly, so that nothing is sent while the chain is read and the owner decides; then
    pause hard. When confirmed with `send` (`sure`: without asking, even before the chain is read)
    the switch goes to hard. Pending transactions are then cancelled and allowances revoked, here or
    by a run once it holds the wallet.
    """
    loaded = config if isinstance(config, LoadedConfig) else load_config(config, guarded=False)
    with ExitStack() as stack:
        try:
            _, switch = stack.enter_context(wiring.open_store_offline(loaded))
        except TrimtabError as error:
            message = f"paused by {pause_by_file(loaded, error)}, but not hard: {error.message}"
            raise OperatorNeeded(
                message, f"{error.remedy}; then trimtab pause --hard again"
            ) from error
        switch.pause(reason, int(time.time()), hard=send and sure)
    require_private(loaded.path, "config")
    with open_agent(loaded) as agent:
        found = agent.takes_back()
        if not send or not (sure or confirm(found)):
            return HardPauseReport(reason, agent.context.switch.is_hard(), found)
        agent.context.switch.pause(reason, int(time.time()), hard=True)
        try:
            return HardPauseReport(reason, True, found, agent.cancel_and_revoke(reason, progress))
        except LockHeld as held:
            return HardPauseReport(reason, True, found, held=held.message)


@dataclass(frozen=True, slots=True)
class OpenAllowance:
    """Allowance of one contract for one token, base units; `raw` is None if the token does not
    report it.
    """

    token: str
    label: str
    spender: str
    holder: str
    raw: int | None


@dataclass(frozen=True, slots=True)
class RevocationReport:
    """Result of a revocation. `state` is clear (no allowances), planned, declined, revoked, or
    failed with the `reason`.
    """

    found: tuple[OpenAllowance, ...]
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
    """Read the allowances of routers, managers and Permit2 for each token; after confirmation
    (`send`) reset them to zero, one by one. `tokens` are symbols or addresses, by default all of
    the config. Raises ConfigError for a token that the config does not list.
    """
    wanted = [agent.token(name, "TOKEN").address for name in tokens] or list(agent.context.tokens)
    found = _open_allowances(agent, wanted)
    unread = ", ".join(f"{one.label} for the {one.holder}" for one in found if one.raw is None)
    shown = RevocationReport(
        found,
        "planned" if any(one.raw for one in found) else "clear",
        f"cannot be read: {unread}" if unread else "",
    )
    if not send or shown.state == "clear":
        return shown
    if not confirm(shown):
        return replace(shown, state="declined", reason="not confirmed; nothing was sent")
    context = agent.context
    with wiring.open_actors(context, never_confirm, progress) as actors:
        actors.executor.reconcile()
        step, step_id = current_step_input(context.readers, context.store), uuid.uuid4().hex[:12]
        context.store.steps.begin(
            step_id, context.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction("revoke"))
        )
        asked = {(one.token, one.spender) for one in found if one.raw}
        present_now = [
            one
            for one in _open_allowances(agent, wanted)
            if one.raw and (one.token, one.spender) in asked
        ]  # a run may have been faster
        zero = [Approval(one.token, one.spender, 0, one.label, one.holder) for one in present_now]
        sent, troubles = revoke_allowances(actors, step_id, step, zero)
        current_step_input(context.readers, context.store)
        left = [one for one in _open_allowances(agent, wanted) if one.raw]
        troubles += [f"the {one.holder} may still take {one.label}" for one in left]
        reason = "; ".join(troubles) or f"{len(sent)} allowances set to zero"
        context.store.steps.end(step_id, "halt", reason, None, "failed" if troubles else "done")
    return replace(
        shown, state="failed" if troubles else "revoked", reason=reason, transactions=tuple(sent)
    )


def _open_allowances(agent: Agent, tokens: Sequence[str]) -> tuple[OpenAllowance, ...]:
    """Return every open allowance, and every unreadable one."""
    context, holders = agent.context, _holders(agent)
    pairs = [(token, spender) for token in tokens for spender in holders]
    answers = read_allowances(context.line, context.config.wallet.address, pairs)
    named = (
        (token, spender, raw)
        for (token, spender), raw in zip(pairs, answers, strict=True)
        if raw != 0
    )
    return tuple(
        OpenAllowance(token, context.portfolio.token(token).label, spender, holders[spender], raw)
        for token, spender, raw in named
    )


def _holders(agent: Agent) -> dict[str, str]:
    """Contracts that may ever have received an allowance, by address, with their role."""
    config = agent.context.config
    v2, v3 = config.venues.uniswap_v2, config.venues.uniswap_v3
    found = {PERMIT2: "Permit2"}
    if v3 is not None:
        found |= {v3.router: "V3 router", v3.position_manager: "position manager"}
    if v2 is not None:
        found[v2.router] = "V2 router"
    if config.execution.rebalancer is not None:
        found[config.execution.rebalancer] = "rebalancer"
    return found | composer.allowed_spenders(agent.context.execution)
