"""Guards on the block a plan stands on: its age, the plan's expiry, the balances it spends, the predictions it makes."""

from __future__ import annotations

from agent.guards.case import Case, Measured
from agent.guards.words import seconds
from agent.model import Collect, Funding, LpAction, Provide, Withdraw

FUTURE_TOLERANCE_S = 30
"""How far a block's time may be ahead of the agent's clock: consensus lets block producers be some seconds fast."""


def head_age(case: Case, limit_s: int) -> Measured:
    """Agent's clock less the head's timestamp; a head from the future means a wrong clock or a lying endpoint."""
    age = case.evidence.now_s - case.step.snapshot.head.timestamp_s
    if age < 0:
        return Measured(f"{seconds(-age)} in the future", age >= -FUTURE_TOLERANCE_S)
    return Measured(seconds(age), age <= limit_s)


def expiry(case: Case) -> Measured:
    """The plan was made at this snapshot's block, and may be used now."""
    head = case.step.snapshot.head.number
    current = case.plan.block == head <= case.plan.expires_block
    return Measured(f"plan of block {case.plan.block}, valid to {case.plan.expires_block}, head {head}", current)


def balance(case: Case) -> Measured:
    """Every wallet-funded leg spends what is investable or was bought by the legs before it, and nothing stays in the router.

    What is provided as liquidity is investable, or surely paid by the actions before.
    """
    for action in case.actions():
        if isinstance(action.action, Provide):
            for token, raw in zip((action.action.token0, action.action.token1), action.action.desired_raw, strict=True):
                short = raw - action.before.spendable(token)
                if short > 0:
                    return Measured(f"action {action.number} provides {short} base units of {case.label(token)} too much", False)
    available: dict[str, int] = {}
    for run in case.runs():
        leg = run.leg
        for token in (leg.token_in, leg.token_out):
            available.setdefault(token, _spendable(case, token))
        if leg.source is Funding.WALLET:
            available[leg.token_in] -= run.amount_in_raw
            if available[leg.token_in] < 0:
                short = -available[leg.token_in]
                return Measured(f"leg {run.number} spends {short} base units of {case.label(leg.token_in)} too much", False)
        if leg.sink is Funding.WALLET:
            available[leg.token_out] += run.amount_out_raw
    if case.replay.stranded:
        left = "; ".join(f"{raw} base units of {case.label(token)}" for token, raw in case.replay.stranded.items())
        return Measured(f"{left} stay in the router", False)
    return Measured("every leg is funded", True)


def _spendable(case: Case, token: str) -> int:
    """Balance less reserve of an asset, negative where the reserve is not filled; of a hub nothing, since it is not ours to invest."""
    for asset in case.step.portfolio.assets:
        if asset.token.address == token:
            return case.balance(token) - asset.reserve_raw
    return 0


def prediction(case: Case) -> Measured:
    """What the plan predicts is what the simulation gives: amounts of every leg, balances after."""
    for run in case.runs():
        if (run.leg.amount_in_raw, run.leg.amount_out_raw) != (run.amount_in_raw, run.amount_out_raw):
            return Measured(
                f"leg {run.number} gives {run.amount_out_raw} for {run.amount_in_raw}, "
                f"the plan says {run.leg.amount_out_raw} for {run.leg.amount_in_raw}",
                False,
            )
    predicted = dict(case.plan.holdings_after)
    for action in case.actions():
        found, said = (action.liquidity, action.amounts, action.fees), _said(action.action)
        if said != found:
            return Measured(f"action {action.number} moves {found}, the plan says {said}", False)
    if case.plan.actions and not isinstance(case.lp, str):
        for token, raw in predicted.items():
            if case.lp.after.held.get(token) != raw:
                ends = case.lp.after.held.get(token)
                return Measured(f"{case.label(token)} ends at {ends} base units, the plan says {raw}", False)
    for token in case.replay.tokens:
        after = case.balance(token) + case.replay.delta(token) if token in predicted else None
        if after != predicted.get(token):
            return Measured(f"{case.label(token)} ends at {after} base units, the plan says {predicted[token]}", False)
    return Measured("as simulated", True)


def _said(action: LpAction) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Liquidity, amounts and fees that an action predicts."""
    match action:
        case Withdraw():
            return action.liquidity, action.amounts_raw, action.fees_raw
        case Collect():
            return 0, (0, 0), action.fees_raw
        case Provide():
            return action.liquidity, action.amounts_raw, (0, 0)
