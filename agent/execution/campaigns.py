"""What a step writes down of a correction over time: its begin, each round before anything of it is sent, its end."""

from __future__ import annotations

from dataclasses import replace

from agent.execution.fresh import Eyes
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import Draw, StepInput, Style
from agent.policy.pacing import MILLION
from agent.ports import Journal

SPREAD = (Style.ROUNDS, Style.TWAP)
"""Styles whose rounds are of random size."""


def drawn_ahead(eyes: Eyes, step: StepInput, journal: Journal) -> StepInput:
    """The step with the draw for a first round on disk: what is planned from it now is planned from it after a restart, too."""
    history = step.history
    if step.execution.pace.style not in SPREAD or history.campaign is not None or history.draw is not None:
        return step
    draw = _draw(eyes)
    journal.draw_ahead(draw)
    return replace(step, history=replace(history, draw=draw))


def looked(journal: Journal, outcome: Outcome) -> None:
    """Writes down what a look ended, and what it began that only waits for its price."""
    decided, under = outcome.decided, outcome.step_input.history.campaign
    if decided.ended and under is not None:
        journal.end_campaign(under.id, "ended", decided.ended, outcome.step_input.snapshot.head.timestamp_s)
    if decided.begins is not None and outcome.kind is OutcomeKind.HOLD:
        journal.begin_campaign(decided.begins)


def begun(eyes: Eyes, journal: Journal, outcome: Outcome) -> None:
    """Writes the round down that is about to be sent, with the draw for the one after it; a new campaign before its first round.

    Nothing where the plan is no round. A try at a round that was tried before is written beside it.
    """
    decided, under = outcome.decided, outcome.step_input.history.campaign
    at_s = outcome.step_input.snapshot.head.timestamp_s
    if decided.order:
        journal.begin_round(decided.order, 1, outcome.step_id, at_s, _draw(eyes))
        return
    if decided.begins is not None:
        number = 1 if decided.round is None else decided.round.number
        journal.begin_round(journal.begin_campaign(decided.begins), number, outcome.step_id, at_s, _draw(eyes))
    elif decided.round is not None and under is not None:
        journal.begin_round(under.id, decided.round.number, outcome.step_id, at_s, _draw(eyes))


def _draw(eyes: Eyes) -> Draw:
    return Draw(int(eyes.chance() * MILLION), int(eyes.chance() * MILLION))
