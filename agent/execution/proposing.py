"""What a step proposes once the tokens that it would move have been tried out: those that fail are left as they are."""

from __future__ import annotations

from agent.errors import Refused
from agent.model import Evidence, StepInput
from agent.planning.strategies import Proposal, Proposer, RefusedBesides
from agent.policy.quarantine import quarantine
from agent.ports import EvidenceSource


def propose_screened(
    step: StepInput, propose: Proposer, evidence: EvidenceSource | None
) -> tuple[StepInput, Proposal | Refused, Evidence | None]:
    """The step as it was decided from, what is proposed, and the evidence for its plan; a refusal comes back in its place.

    Tokens that the evidence finds to move otherwise than they are told go into quarantine, and the step is proposed anew
    without them. Without an evidence source, or without a plan, nothing is tried out.
    """
    while True:
        try:
            proposal = propose(step)
        except Refused as refusal:
            return (refusal.step if isinstance(refusal, RefusedBesides) else step), refusal, None
        step = proposal.step or step
        if proposal.plan is None or evidence is None:
            return step, proposal, None
        seen = evidence.gather(step, proposal.plan)
        left = quarantine(step, seen.screens or ())
        if left is step:
            return step, proposal, seen
        step = left
