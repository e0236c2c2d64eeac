"""How tokens move, for the owner to see: tried out without a plan, and those that are left alone."""

from __future__ import annotations

from collections.abc import Iterator

from agent import wiring
from agent.chain.screen_moves import first_look
from agent.model import ScreenedToken, StepInput


def tried_out(desk: wiring.Desk, step: StepInput) -> Iterator[tuple[str, ScreenedToken]]:
    """Label and finding of each asset and hub that a pool can lend; what differs from its pins comes first. Raises Retryable.

    The amount is what the wallet holds, or a hundredth of the deepest pool.
    """
    shut = {one.token: one for one in step.quarantine}
    tried = desk.screen.screen(step, first_look(step)) if desk.limits.token_screen else ()
    for one in (*shut.values(), *(found for found in tried if found.token not in shut)):
        yield step.portfolio.token(one.token).label, one
