"""The sales of a stop: the plans to sell everything, and what they leave unsold, with the
reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.guards.sandwich import plan_worst_case
from agent.model import BlockedExit, Holding, Plan, StepInput
from agent.planning import requests
from agent.policy import native_coin
from agent.policy.decide import current_drifts
from agent.policy.orders.blocked_exits import exclude_blocked_exits
from agent.units import Value


@dataclass(frozen=True, slots=True)
class SalesTotal:
    """All sales of a stop together, in numeraire base units. `worst_case` is None if that of a sale
    is unknown; `weights_after_bps` are by token, after the sales and before any payment.
    """

    turnover: Value
    cost: Value
    worst_case: Value | None
    weights_after_bps: tuple[tuple[str, int], ...]


def planned_sales(readers: StepReaders) -> tuple[tuple[StepOutcome, ...], str, str]:
    """Return the current plans to sell everything, each as if it were the first, the text of what
    stays unsold after them, and why the sale waits for it (empty: it does not). Only the last may
    be refused; it sells nothing.
    """
    sale_outcomes = [evaluation.evaluate(readers, requests.propose_selling_everything)]
    while sale_outcomes[-1].kind is OutcomeKind.PLANNED and (
        exit_token := sale_outcomes[-1].decision_result.exit_token
    ):
        step = exclude_blocked_exits(
            sale_outcomes[-1].step_input, [BlockedExit(exit_token, "", "")]
        )
        sale_outcomes.append(
            evaluation.evaluate_input(
                step, requests.propose_selling_everything, readers.evidence_source
            )
        )
    last_outcome = sale_outcomes[-1]
    if len(sale_outcomes) > 1 and last_outcome.plan is None:
        del sale_outcomes[-1]
    wait_reason = "" if last_outcome.kind is OutcomeKind.PLANNED else sale_wait_reason(last_outcome)
    return tuple(sale_outcomes), unsold_assets_text(last_outcome), wait_reason


def sale_wait_reason(outcome: StepOutcome) -> str:
    """Return why the sale of everything that ends like this is not finished, so that a later attempt
    goes on with it; empty if it is finished.
    """
    if outcome.kind is not OutcomeKind.HOLD:
        return outcome.reason
    blocked_text = "; ".join(
        f"{outcome.step_input.portfolio.token(blocked_exit.token).label} is not sold: {blocked_exit.why}"
        for blocked_exit in outcome.decision_result.blocked_exits
        if blocked_exit.why
    )
    return blocked_text or (unsold_assets_text(outcome) if is_sale_delayed(outcome) else "")


def unsold_assets_text(outcome: StepOutcome) -> str:
    """Return which assets the end of a sale leaves in the wallet, and why; empty if it leaves
    none.
    """
    if outcome.kind is not OutcomeKind.HOLD:
        return ""
    return "; ".join(outcome.decision_result.unsold_reasons)


def is_sale_delayed(outcome: StepOutcome) -> bool:
    """Return whether tokens or pools in quarantine keep assets of the wallet unsold, so that a later
    attempt may sell them. Those of assets that the wallet does not hold keep none; an unknown
    balance counts as held.
    """
    step = outcome.step_input
    numeraire = step.portfolio.numeraire.address
    balances_raw = native_coin.held_balances(step)
    held_tokens = {
        asset.token.address
        for asset in step.portfolio.assets
        if balances_raw.get(asset.token.address) != 0
    }
    if any(
        screened_token.token in held_tokens | {numeraire}
        for screened_token in step.targets.quarantined_tokens
    ):
        return True
    failed_addresses = {item.address for item in step.snapshot.unreadable_items}
    return any(
        pool.address in failed_addresses
        and (held_tokens - {numeraire}).intersection((pool.token0, pool.token1))
        for pool in step.snapshot.pools
    )


def total_of_sales(sale_outcomes: Sequence[StepOutcome]) -> SalesTotal | None:
    """Return all planned sales together; None if nothing is sold."""
    sales = _sendable_sales(sale_outcomes)
    if not sales:
        return None
    worst_cases = [plan_worst_case(step, plan) for step, plan in sales]
    known_worst_cases = [worst_case for worst_case in worst_cases if worst_case is not None]
    drifts = current_drifts(step_after_sales(sale_outcomes[0].step_input, sale_outcomes))
    return SalesTotal(
        sum((plan.turnover for _, plan in sales), Value(0)),
        sum((plan.cost.total for _, plan in sales), Value(0)),
        sum(known_worst_cases, Value(0)) if len(known_worst_cases) == len(sales) else None,
        tuple((drift.token, drift.weight_bps) for drift in drifts),
    )


def step_after_sales(step: StepInput, sale_outcomes: Sequence[StepOutcome]) -> StepInput:
    """Return the step input after these sales, as predicted by their plans."""
    predicted_holdings = [dict(plan.holdings_after) for _, plan in _sendable_sales(sale_outcomes)]
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    raw_after_by_token = {
        token: raw
        + sum(holdings_after.get(token, raw) - raw for holdings_after in predicted_holdings)
        for token, raw in raw_by_token.items()
    }
    return replace(
        step,
        snapshot=replace(
            step.snapshot,
            holdings=tuple(Holding(token, raw) for token, raw in raw_after_by_token.items()),
        ),
    )


def _sendable_sales(sale_outcomes: Sequence[StepOutcome]) -> list[tuple[StepInput, Plan]]:
    """Return step and plan of each sale that is not refused."""
    return [
        (sale.step_input, sale.plan)
        for sale in sale_outcomes
        if sale.plan is not None and sale.kind is OutcomeKind.PLANNED
    ]
