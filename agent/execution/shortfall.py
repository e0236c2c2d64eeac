"""Tokens that a mined transaction brought less of than the plan's minimums, although it succeeded."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import Intent, Plan, Receipt, Snapshot, Withdraw
from agent.planning.gas import balance_deltas
from agent.units import NATIVE, decimal_text


def with_shortfall(outcome: StepOutcome, intent: Intent, after: Snapshot | None) -> StepOutcome:
    """Return a failed outcome that names the tokens that changed by less than the plan's minimums,
    although the transaction succeeded; the outcome itself if there are none.
    """
    plan, before = outcome.plan, outcome.step_input.snapshot
    if plan is None or intent.receipt is None or plan.futures is not None:
        return outcome
    if not (short := short_tokens(plan, intent.receipt, before, after)):
        return outcome
    portfolio, words = outcome.step_input.portfolio, []
    for token, (change_raw, least_raw) in short.items():
        known = portfolio.token(token)
        change, least = (decimal_text(raw, known.decimals) for raw in (change_raw, least_raw))
        words.append(f"the wallet's {known.label} changed by {change}, at least {least} was due")
    reason = (
        f"{'; '.join(words)}: the token keeps a part of its transfers, or left the wallet"
        " meanwhile. The difference counts in daily_loss; the token is tested before its next trade"
    )
    return replace(outcome, kind=OutcomeKind.FAILED, reason=reason, short=tuple(short))


def short_tokens(
    plan: Plan, receipt: Receipt, before: Snapshot, after: Snapshot | None
) -> dict[str, tuple[int, int]]:
    """Return the tokens whose balance in the wallet changed by less than the plan's minimums allow,
    each with the change and the least change, in base units. The smaller change counts: by the
    receipt's events, or by the balances of both snapshots (None: not read). Fees and gas of native
    coin are not compared.

    A token can keep a part of the router's transfer to the wallet, which no minimum of SwapRouter02
    covers.
    """
    if plan.actions:
        least = {}
        if isinstance(action := plan.actions[0], Withdraw):
            least = dict(zip((action.token0, action.token1), action.min_raw, strict=True))
    else:
        least = balance_deltas([replace(leg, amount_out_raw=leg.min_out_raw) for leg in plan.legs])
        least.pop(NATIVE, None)
    moved = receipt.net(before.owner)
    held = {holding.token: holding.raw for holding in before.holdings}
    now = {} if after is None else {holding.token: holding.raw for holding in after.holdings}
    changes = {token: moved.get(token, 0) for token in least}
    for token in least.keys() & held.keys() & now.keys():
        changes[token] = min(changes[token], now[token] - held[token])
    return {token: (changes[token], raw) for token, raw in least.items() if changes[token] < raw}
