"""What decides when to act, as a document and as a line: the trigger, bands of single assets, sides, and when it looks next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.api.trigger_view import TriggerView

Document = dict[str, Any]


def document(found: TriggerView) -> Document:
    """The trigger in words; `next_s` is when a schedule is due next (unix seconds; null: any look may act)."""
    return {
        "words": found.words,
        "bands": found.bands,
        "only": None if found.only is None else found.only.value,
        "only_words": found.only_words,
        "destination": found.destination.value,
        "cooldown_s": found.cooldown_s,
        "next_s": found.next_s,
        "next": found.next,
    }


def line(found: Document) -> str:
    """The same for people."""
    parts = [f"Trigger: {found['words']}, to {found['destination']}"]
    parts += [f"bands of their own: {found['bands']}"] if found["bands"] else []
    parts += [f"only = {found['only']}: {found['only_words']}"] if found["only"] else []
    parts += [f"next {found['next']}"] if found["next"] else []
    return "; ".join(parts)
