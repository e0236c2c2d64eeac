"""Whether the sequencer of a rollup has been up long enough for prices, and everybody's answers to them, to have caught up."""

from __future__ import annotations

from agent.model import StepInput


def sequencer_fault(step: StepInput) -> str:
    """Why nothing may be traded by what the sequencer's uptime feed says (T13); empty when it may, or where there is no such feed.

    Chainlink's L2 uptime feeds answer 0 while the sequencer is up and 1 while it is down; a round starts with each change. Age
    says nothing: a sequencer that never stops never writes a round.
    """
    feed, now_s = step.reference.sequencer_feed, step.snapshot.head.timestamp_s
    if feed is None:
        return ""
    told = next((found for found in step.snapshot.feeds if found.feed == feed), None)
    if told is None:
        why = next((f": {item.why}" for item in step.snapshot.quarantined if item.address == feed), "")
        return f"the sequencer's uptime feed was not read{why}"
    if told.answer not in (0, 1):
        return f"the sequencer's uptime feed answers {told.answer}, neither up (0) nor down (1)"
    if told.started_at_s <= 0:
        return "the sequencer's uptime feed has no round yet"
    since_s = now_s - told.started_at_s
    if since_s < 0:
        return f"the sequencer's uptime feed is dated {-since_s} s after the block"
    if told.answer == 1:
        return f"the sequencer is down, since {since_s} s"
    if since_s < step.reference.sequencer_grace_s:
        return f"the sequencer is up again since {since_s} s only, reference.sequencer_grace is {step.reference.sequencer_grace_s} s"
    return ""
