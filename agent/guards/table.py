"""All guards in one table; `judge` and `require` apply them.

Each row is defined beside its measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent.errors import ErrorCode, Refused
from agent.guards import market, portfolio, safety
from agent.guards.case import Guard, build_guard_case
from agent.model import Evidence, Plan, StepInput, Verdict

GUARDS: tuple[Guard[Any], ...] = (
    *safety.GUARDS,
    *market.LEG_GUARDS,
    *portfolio.PLAN_GUARDS,
    *market.PRICE_GUARDS,
    *portfolio.GAS_GUARDS,
)
"""Every guard, in the order of their verdicts."""
REMEDIES = {guard.name: guard.remedy for guard in GUARDS}
MARKET_GUARDS = frozenset(guard.name for guard in GUARDS if guard.judges_market)


def judge(step: StepInput, plan: Plan, evidence: Evidence) -> tuple[Verdict, ...]:
    """Return the verdict of every guard, passed ones too.

    Plans and chain data never make it raise.
    """
    case = build_guard_case(step, plan, evidence)
    return tuple(guard.judge(case) for guard in GUARDS)


def require(plan: Plan, verdicts: Sequence[Verdict]) -> Plan:
    """Return the plan with its verdicts.

    Raises Refused, with all verdicts, unless every guard passed.
    """
    missing = [
        guard.name for guard in GUARDS if guard.name not in {verdict.guard for verdict in verdicts}
    ]
    refusing = [verdict for verdict in verdicts if not verdict.passed]
    if missing:
        raise Refused(
            f"not judged by {', '.join(missing)}",
            verdicts,
            "judge the plan before it is used",
            code=ErrorCode.NOT_JUDGED,
        )
    if refusing:
        message = "; ".join(f"{v.guard} measured {v.measured}, limit {v.limit}" for v in refusing)
        remedies = "; ".join(f"{v.guard}: {REMEDIES.get(v.guard, 'plan again')}" for v in refusing)
        raise Refused(f"refused by {message}", verdicts, remedies)
    return replace(plan, verdicts=tuple(verdicts))
