"""What decides when to act, as a document and as a line: the trigger, bands of single assets, sides, and when it looks next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.model import StepInput
    from agent.policy.decide import Decided

Document = dict[str, Any]


def document(step: StepInput, decided: Decided) -> Document:
    """The trigger in words; `next_s` is when a schedule is due next (unix seconds; null: any look may act)."""
    from agent.policy import trigger_words, words

    policy = step.policy
    return {
        "words": trigger_words.trigger(policy.trigger, step.portfolio),
        "bands": trigger_words.bands(step.portfolio),
        "only": None if policy.only is None else policy.only.value,
        "only_words": "" if policy.only is None else trigger_words.ONLY[policy.only],
        "destination": policy.destination.value,
        "cooldown_s": policy.cooldown_s,
        "next_s": decided.next_s,
        "next": None if decided.next_s is None else words.moment(decided.next_s),
    }


def line(found: Document) -> str:
    """The same for people."""
    parts = [f"Trigger: {found['words']}, to {found['destination']}"]
    parts += [f"bands of their own: {found['bands']}"] if found["bands"] else []
    parts += [f"only = {found['only']}: {found['only_words']}"] if found["only"] else []
    parts += [f"next {found['next']}"] if found["next"] else []
    return "; ".join(parts)
