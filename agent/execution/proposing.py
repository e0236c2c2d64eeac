"""What a step proposes once the tokens that it would move have been tried out: those that fail are left as they are."""

from __future__ import annotations

from collections.abc import Callable

from agent.amm.errors import TicksEnd
from agent.errors import Refused
from agent.model import Evidence, StepInput
from agent.planning.reach import ticks_end
from agent.planning.strategies import Proposal, Proposer, RefusedBesides
from agent.policy.quarantine import quarantine
from agent.ports import EvidenceSource

Further = Callable[[StepInput], StepInput | None]
"""The same step with more ticks of its pools; None where there are none to be had."""


def propose_screened(
    step: StepInput, propose: Proposer, evidence: EvidenceSource | None, further: Further | None = None
) -> tuple[StepInput, Proposal | Refused, Evidence | None]:
    """The step as it was decided from, what is proposed, and the evidence for its plan; a refusal comes back in its place.

    What comes to the end of the ticks read is proposed anew with more of them. Tokens that the evidence finds to move otherwise
    than they are told go into quarantine, and the step is proposed anew without them. Without an evidence source, or without a
    plan, nothing is tried out.
    """
    while True:
        proposal = _proposed(step, propose)
        if further is not None and _at_their_end(step, proposal) and (deeper := further(step)) is not None:
            step = deeper
            proposal = _proposed(step, propose)
        if isinstance(proposal, Refused):
            return (proposal.step if isinstance(proposal, RefusedBesides) else step), proposal, None
        step = proposal.step or step
        if proposal.plan is None or evidence is None:
            return step, proposal, None
        seen = evidence.gather(step, proposal.plan)
        left = quarantine(step, seen.screens or ())
        if left is step:
            return step, proposal, seen
        step = left


def _proposed(step: StepInput, propose: Proposer) -> Proposal | Refused:
    try:
        return propose(step)
    except Refused as refusal:
        return refusal


def _at_their_end(step: StepInput, proposal: Proposal | Refused) -> bool:
    """Whether the ticks read are what ends it."""
    if isinstance(proposal, Refused):
        return isinstance(proposal, TicksEnd)
    return proposal.ticks_end or (proposal.plan is not None and bool(ticks_end(step, proposal.plan.legs)))
