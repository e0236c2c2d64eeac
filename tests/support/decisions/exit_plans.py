"""Plans that are exits."""

from __future__ import annotations

from dataclasses import replace

from agent.model import Goal, Plan, Rebalance


def with_exit(plan: Plan, exits: bool = True) -> Plan:
    return replace(plan, decision=Rebalance("a stop fired", Goal(()), is_exit=exits))
