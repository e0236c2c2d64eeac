"""Keys and sentences of the layers in documents about a step and a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from agent.layers.gradual import documents as gradual
from agent.layers.opinions import documents as opinions
from agent.model import Plan, Portfolio, StepInput
from agent.store.executions import StoredExecution
from agent.store.store import Store

if TYPE_CHECKING:
    from agent.execution.step_context import StepOutcome
    from agent.layers.config import LayerTables


class LayerPlanKeys(gradual.PlanKeys, TypedDict):
    """Keys of all layers in the document of a plan."""


class LayerLivePlanKeys(opinions.LivePlanKeys, TypedDict):
    """Keys of all layers in the document of a plan that was made now."""


def plan_keys(plan: Plan, portfolio: Portfolio) -> LayerPlanKeys:
    """Return the keys of all layers in the document of a plan."""
    return {**gradual.plan_keys(plan, portfolio)}


LIVE_PLAN_KEYS: tuple[Callable[[LayerTables, StepOutcome], Mapping[str, object]], ...] = (
    opinions.live_plan_keys,
)
"""Keys of a plan that was made to be shown; may ask services outside."""
SENTENCES: tuple[Callable[[StepInput, Plan | None], list[str]], ...] = (gradual.sentences,)
"""Descriptions of a past step's layers and plan."""
NEWEST_EXECUTIONS: tuple[Callable[[Store, int], Sequence[StoredExecution[Any]]], ...] = (
    gradual.newest_executions,
)
"""Newest executions of the layers, newest first, at most so many."""
