"""Documents of gradual executions."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import ConvertedBy, Money, Of, RoundedRaw, Time, fill, one_of
from agent.layers.gradual.state import GradualResult, GradualState
from agent.model import Plan, Portfolio, StepInput
from agent.policy.decision import DecisionResult


class ProgressDocument(TypedDict):
    """Progress of a gradual execution, at its initial prices."""

    id: str
    style: Annotated[str, Of("campaign.pace.style")]
    purchase: Annotated[str | None, Of("campaign.purchase")]
    began: Annotated[Time, Of("campaign.began_s")]
    expires: Annotated[Time, Of("campaign.expires_s")]
    rounds_done: Annotated[int, Of("done")]
    rounds_about: Annotated[int, Of("campaign.rounds")]
    next: Annotated[Time, Of("next_s")]
    wish: Annotated[Money, Of("campaign.wish")]
    moved: Money
    spent: Money
    budget: Annotated[Money | None, Of("campaign.budget")]


class SliceDocument(TypedDict):
    """Cost of a number of slices, in the numeraire."""

    rounds: int
    moved: Money
    fees: Money
    impact: Money
    skew: Money
    gas: Money
    waiting: Money
    rest: Money
    total: Money  # fmt: skip


class SlicingDocument(TypedDict):
    """Numbers of slices compared, and the choice."""

    chosen: int
    why: str
    options: list[SliceDocument]


class CorrectionDocument(TypedDict):
    """A gradual execution, under way or ended; values in numeraire base units."""

    id: Annotated[str, Of("underway.id")]
    style: Annotated[str, one_of("rounds", "twap", "limit"), Of("underway.campaign.pace.style")]
    state: Annotated[str, one_of("open", "ended", "cancelled")]
    why: str
    began: Annotated[Time, Of("underway.campaign.began_s")]
    expires: Annotated[Time, Of("underway.campaign.expires_s")]
    rounds_done: Annotated[int, Of("underway.done")]
    rounds_about: Annotated[int, Of("underway.campaign.rounds")]
    next: str | None
    wish_raw: Annotated[RoundedRaw, Of("underway.campaign.wish")]
    moved_raw: Annotated[RoundedRaw, Of("underway.moved")]
    spent_raw: Annotated[RoundedRaw, Of("underway.spent")]
    budget_raw: Annotated[RoundedRaw | None, Of("underway.campaign.budget")]


def _progress(source: tuple[StepInput, DecisionResult], portfolio: Any) -> ProgressDocument | None:
    """Return the progress of an execution that the decision does not end."""
    step, decided = source
    under = step.layer(GradualState).progress
    if under is None or decided.layer(GradualResult).ended:
        return None
    return fill(ProgressDocument, under, portfolio)


class StepKeys(TypedDict):
    """Keys in every document about a step."""

    campaign: Annotated[
        ProgressDocument | None, ConvertedBy(_progress), Of("step_input", "decided")
    ]


class PlanKeys(TypedDict):
    """Keys in the document of a plan."""

    pacing: NotRequired[SlicingDocument | None]


def plan_keys(plan: Plan, portfolio: Portfolio) -> PlanKeys:
    """Return the keys of a plan."""
    found = plan.pacing
    return {"pacing": None if found is None else fill(SlicingDocument, found, portfolio)}
