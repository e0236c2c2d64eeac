"""Goals that trade one side alone: which tokens a plan leaves as they are, and which it would have moved the wrong way."""

from __future__ import annotations

from agent.model import Goal
from agent.planning.draft import Draft
from agent.planning.problem import Problem

LEFT = "policy.only leaves it as it is"


def untouched(problem: Problem, goal: Goal) -> dict[int, str]:
    """Tokens of which nothing is sold nor bought, by position, with the reason."""
    kept = set(goal.unsold) & set(goal.unbought)
    return {position: LEFT for position, node in enumerate(problem.nodes) if node.address in kept}


def crossed(problem: Problem, goal: Goal, draft: Draft) -> dict[int, str]:
    """Tokens of which a draft would sell, or buy, although they may not be: they stay, whatever that leaves undone.

    The search keeps to their bounds as far as floats and what pools pay beyond their count let it; this is exact.
    """
    wrong = {token for token in goal.unsold if draft.delta.get(token, 0) < 0}
    wrong |= {token for token in goal.unbought if draft.delta.get(token, 0) > 0}
    return {position: LEFT for position, node in enumerate(problem.nodes) if node.address in wrong}
