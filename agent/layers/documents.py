"""Keys and sentences of the layers in documents about a step and a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import TypedDict

from agent.layers.gradual import documents as gradual
from agent.model import Plan, Portfolio, StepInput
from agent.store.executions import PastExecution
from agent.store.store import Store


class LayerPlanKeys(gradual.PlanKeys, TypedDict):
    """Keys of all layers in the document of a plan."""


def plan_keys(plan: Plan, portfolio: Portfolio) -> LayerPlanKeys:
    """Return the keys of all layers in the document of a plan."""
    return {**gradual.plan_keys(plan, portfolio)}


SENTENCES: tuple[Callable[[StepInput, Plan | None], list[str]], ...] = (gradual.sentences,)
"""Descriptions of a past step's layers and plan."""
PAST_EXECUTIONS: tuple[Callable[[Store, int], Sequence[PastExecution[Any]]], ...] = (
    gradual.past_executions,
)
"""Newest executions of the layers, newest first, at most so many."""
