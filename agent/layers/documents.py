"""Keys and sentences of the layers in documents about a step and a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class LayerDocuments:
    """What a layer adds to documents about a step and a plan."""

    live_plan_keys: Callable[[LayerTables, StepOutcome], Mapping[str, object]] = (
        lambda tables, outcome: {}
    )
    """Keys of a plan that was made to be shown; may ask services outside."""
    sentences: Callable[[StepInput, Plan | None], Sequence[str]] = lambda step, plan: ()
    """Descriptions of a past step's layer and plan."""
    newest_executions: Callable[[Store, int], Sequence[StoredExecution[Any]]] = (
        lambda store, limit: ()
    )
    """Newest executions of the layer in several steps, newest first, at most so many."""


LAYERS: tuple[LayerDocuments, ...] = (
    LayerDocuments(sentences=gradual.sentences, newest_executions=gradual.newest_executions),
    LayerDocuments(live_plan_keys=opinions.live_plan_keys),
)
"""Each layer that documents show, beside its keys of a plan in `plan_keys`."""
