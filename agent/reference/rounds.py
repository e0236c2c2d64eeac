"""Whether the round of a price feed counts: complete, of its time, within its aggregator's bounds, not older than one seen before."""

from __future__ import annotations

from agent.model import FeedRound, Snapshot, StepInput


def fault(step: StepInput, answer: FeedRound) -> str:
    """Why a round does not count (AggregatorV3Interface.latestRoundData); empty when it does. Age is by block timestamp."""
    now_s = step.snapshot.head.timestamp_s
    unfit = incomplete(answer, now_s) or at_bound(answer) or fallen(step.snapshot, answer)
    if unfit:
        return unfit
    age_s, most_s = now_s - answer.updated_at_s, step.reference.max_age_s(answer.feed)
    return f"is {age_s} s old, at most {most_s} s count" if age_s > most_s else ""


def incomplete(answer: FeedRound, now_s: int) -> str:
    """Why a round is none: no positive answer, never begun or ended, carried over from an earlier one, dated after the block."""
    if answer.answer <= 0:
        return f"answers {answer.answer}"
    if answer.updated_at_s <= 0 or answer.started_at_s <= 0:
        return f"has an unfinished round {answer.round_id}"
    if answer.answered_in_round < answer.round_id:
        return f"answers round {answer.round_id} with the price of round {answer.answered_in_round}"
    latest_s = max(answer.updated_at_s, answer.started_at_s)
    return f"is dated {latest_s - now_s} s after the block" if latest_s > now_s else ""


def at_bound(answer: FeedRound) -> str:
    """An aggregator cuts answers off at its bounds: one that stands there is a bound and no price. Empty when it does not."""
    if answer.min_answer is not None and answer.answer <= answer.min_answer:
        return f"answers {answer.answer}, its least answer is {answer.min_answer}: the price may be any below"
    if answer.max_answer is not None and answer.answer >= answer.max_answer:
        return f"answers {answer.answer}, its largest answer is {answer.max_answer}: the price may be any above"
    return ""


def fallen(snapshot: Snapshot, answer: FeedRound) -> str:
    """Rounds only rise along a chain: one that is lower than in a block before is another feed's. Empty when none is."""
    before = [(found.round_id, past.head.number) for past in snapshot.past for found in past.feeds if found.feed == answer.feed]
    highest, block = max(before, default=(0, 0))
    return f"fell from round {highest} at block {block} to round {answer.round_id}" if highest > answer.round_id else ""
