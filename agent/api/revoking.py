"""Every allowance that the wallet has given to a contract that is known here: shown, and set to zero."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent import codec, wiring
from agent.api import retreat
from agent.api.agent import Agent, Progress, never, silent
from agent.chain.allowances import PERMIT2, read_allowances
from agent.execution.paying import present
from agent.model import ByHand, Intent
from agent.ports import Approval
from agent.venues import spending


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one contract may take of one token, base units; `raw` is None where the token does not say."""

    token: str
    label: str
    spender: str
    holder: str
    raw: int | None


@dataclass(frozen=True, slots=True)
class Revoking:
    """`state` is clear (nothing may be taken), planned, declined, revoked, or failed with the `reason`."""

    found: tuple[Allowed, ...]
    state: str
    reason: str = ""
    transactions: tuple[Intent, ...] = ()


def revoke(
    agent: Agent,
    tokens: Sequence[str] = (),
    *,
    send: bool = False,
    confirm: Callable[[Revoking], bool],
    progress: Progress = silent,
) -> Revoking:
    """Asks each token what routers, managers and Permit2 may take, and with `send` and a yes sets it to zero, one by one.

    `tokens` are symbols or addresses; all of the config unless said. Raises ConfigError for one that is none of the config.
    """
    wanted = [agent.token(name, "TOKEN").address for name in tokens] or list(agent.desk.tokens)
    found = _given(agent, wanted)
    unread = ", ".join(f"{one.label} for the {one.holder}" for one in found if one.raw is None)
    shown = Revoking(found, "planned" if any(one.raw for one in found) else "clear", f"cannot be read: {unread}" if unread else "")
    if not send or shown.state == "clear":
        return shown
    if not confirm(shown):
        return replace(shown, state="declined", reason="not confirmed; nothing was sent")
    desk = agent.desk
    with wiring.open_hands(desk, never, progress) as hands:
        hands.executor.reconcile()
        step, step_id = present(desk.eyes, desk.store), uuid.uuid4().hex[:12]
        desk.store.begin_step(step_id, desk.clock.now_s(), codec.dumps(step), codec.dumps(ByHand("revoke")))
        asked = {(one.token, one.spender) for one in found if one.raw}
        present_now = [one for one in _given(agent, wanted) if one.raw and (one.token, one.spender) in asked]  # a run may have been quicker
        zero = [Approval(one.token, one.spender, 0, one.label, one.holder) for one in present_now]
        sent, troubles = retreat.revoke(hands, step_id, step, zero)
        present(desk.eyes, desk.store)
        left = [one for one in _given(agent, wanted) if one.raw]
        troubles += [f"the {one.holder} may still take {one.label}" for one in left]
        reason = "; ".join(troubles) or f"{len(sent)} allowances set to zero"
        desk.store.end_step(step_id, "halt", reason, None, "failed" if troubles else "done")
    return replace(shown, state="failed" if troubles else "revoked", reason=reason, transactions=tuple(sent))


def _given(agent: Agent, tokens: Sequence[str]) -> tuple[Allowed, ...]:
    """Every allowance above zero, and every one that cannot be read."""
    desk, holders = agent.desk, _holders(agent)
    pairs = [(token, spender) for token in tokens for spender in holders]
    answers = read_allowances(desk.line, desk.config.wallet.address, pairs)
    named = ((token, spender, raw) for (token, spender), raw in zip(pairs, answers, strict=True) if raw != 0)
    return tuple(Allowed(token, desk.portfolio.token(token).label, spender, holders[spender], raw) for token, spender, raw in named)


def _holders(agent: Agent) -> dict[str, str]:
    """Contracts that may ever have been allowed something, by address, with what they are."""
    config = agent.desk.config
    v2, v3 = config.venues.uniswap_v2, config.venues.uniswap_v3
    found = {PERMIT2: "Permit2"}
    if v3 is not None:
        found |= {v3.router: "V3 router", v3.position_manager: "position manager"}
    if v2 is not None:
        found[v2.router] = "V2 router"
    if config.execution.rebalancer is not None:
        found[config.execution.rebalancer] = "rebalancer"
    return found | spending.spenders(agent.desk.execution)
