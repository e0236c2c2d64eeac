"""What becomes of an exit whose plan the guards refuse for its market: the others go on without it, and it is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.execution.outcome import Outcome, OutcomeKind
from agent.guards.remedies import REMEDIES
from agent.model import StepInput, StuckExit, Verdict
from agent.policy import failures, stuck

OF_ITS_MARKET = frozenset(
    (
        "allowlist",
        "token_screen",
        "prediction",
        "price_impact",
        "slippage",
        "fair_floor",
        "pool_min_value",
        "plan_cost",
        "min_trade",
        "oracle_deviation",
        "second_quote_deviation",
    )
)
"""Guards that judge the pools and tokens of a plan: what they refuse says nothing against another one."""
TOGETHER = "it was refused together with another exit, which goes first"
IN_TURN = "too many transactions failed in a row, so exits go one by one and another goes first"


def around(outcome: Outcome, judge: Callable[[StepInput], Outcome]) -> Outcome:
    """The outcome; where it is a refused exit that of the step without what of it is refused by itself.

    Each asset that it sells is judged alone, so that one bad pool holds back its own asset and no other. After too many reverts in
    a row one of them goes alone, another after the next revert: who pushes a single pool must not hold back the others.
    """
    if (first := _in_turn(outcome, judge)) is not None:
        return first
    tokens = _refused(outcome)
    if not tokens:
        return outcome
    step = outcome.step_input
    if len(tokens) == 1:
        refused: Mapping[str, Outcome] = {tokens[0]: outcome}
    else:
        alone = {one: judge(stuck.left_alone(step, [StuckExit(other, TOGETHER, "") for other in tokens if other != one])) for one in tokens}
        refused = {one: found for one, found in alone.items() if found.plan is None or found.kind is not OutcomeKind.PLANNED}
    found = [StuckExit(one, *_why(why)) for one, why in refused.items()]
    found = found or [StuckExit(one, TOGETHER, "nothing has to be done") for one in tokens[1:]]
    left = stuck.left_alone(step, found)
    return outcome if left is step else around(judge(left), judge)  # what is left alone already and refused all the same stays refused


def _in_turn(outcome: Outcome, judge: Callable[[StepInput], Outcome]) -> Outcome | None:
    """The outcome of the first exit in turn that can go alone; None where they go together, or none of them can."""
    step, leaves = outcome.step_input, outcome.decided.leaves
    reverts = step.history.reverts_in_row
    if outcome.kind is not OutcomeKind.PLANNED or len(leaves) < 2 or reverts < failures.MAX_REVERTS_IN_ROW:
        return None
    first = (reverts - failures.MAX_REVERTS_IN_ROW) % len(leaves)
    for goes in (*leaves[first:], *leaves[:first]):
        waits = [StuckExit(one, IN_TURN, "nothing has to be done") for one in leaves if one != goes]
        alone = judge(stuck.left_alone(step, waits))
        if alone.kind is OutcomeKind.PLANNED and alone.decided.leaves == (goes,):
            return alone
    return None


def _refused(outcome: Outcome) -> tuple[str, ...]:
    """What the exit of an order would have sold that guards of its market alone refuse; empty for everything else."""
    plan, failing = outcome.plan, _failing(outcome)
    if outcome.kind is not OutcomeKind.REFUSED or plan is None or not plan.exits or not outcome.decided.leaves:
        return ()
    if not stuck.by_orders(outcome.step_input, outcome.decided.leaves):
        return ()
    return outcome.decided.leaves if failing and {one.guard for one in failing} <= OF_ITS_MARKET else ()


def _why(outcome: Outcome) -> tuple[str, str]:
    """(why, remedy) of an exit that was judged alone."""
    failing = _failing(outcome)
    why = "; ".join(f"{one.guard} measured {one.measured}, limit {one.limit}" for one in failing)
    remedies = dict.fromkeys(REMEDIES.get(one.guard, "plan anew") for one in failing)
    return (f"refused by {why}", "; ".join(remedies)) if failing else (outcome.reason, stuck.REMEDY)


def _failing(outcome: Outcome) -> list[Verdict]:
    return [verdict for verdict in outcome.verdicts if not verdict.passed]
