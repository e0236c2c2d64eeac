"""What decides when to act, in words: the trigger, bands of single assets, the side, and when it looks next."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import Destination, Only, StepInput
from agent.policy import trigger_words, words
from agent.policy.decide import Decided


@dataclass(frozen=True, slots=True)
class TriggerView:
    """`next_s` is when a schedule is due next, unix seconds, `next` the same in words; None: any look may act."""

    words: str
    bands: str
    only: Only | None
    only_words: str
    destination: Destination
    cooldown_s: int
    next_s: int | None
    next: str | None


def view(step: StepInput, decided: Decided) -> TriggerView:
    """The policy that a step decided by."""
    policy = step.policy
    return TriggerView(
        words=trigger_words.trigger(policy.trigger, step.portfolio),
        bands=trigger_words.bands(step.portfolio),
        only=policy.only,
        only_words="" if policy.only is None else trigger_words.ONLY[policy.only],
        destination=policy.destination,
        cooldown_s=policy.cooldown_s,
        next_s=decided.next_s,
        next=None if decided.next_s is None else words.moment(decided.next_s),
    )
