"""A look: a cycle of `trimtab run` at a new block that decides to hold. It asks the store as little as it can."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from pathlib import Path

from sqlalchemy import event

from agent.app.cycles import READING_STAGE
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from tests.support.agents import FIVE, agent_on, fund, yes

ON_TARGET = {symbol: Fraction(share.rstrip("%")) * 900 for symbol, share in FIVE.items()}
MOST_STATEMENTS = 60


def test_a_look_at_a_new_block_asks_the_store_at_most_60_times(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, ON_TARGET)
    statements: list[int] = []  # of each cycle and of the pause after it

    def begin(progress: str) -> None:
        if progress == READING_STAGE or progress.startswith("next cycle"):
            statements.append(0)

    def count(*_: object) -> None:
        statements[-1] += 1

    with agent_on(anvil_chain, tmp_path) as agent:
        run = agent.run(send=True, confirm=yes, every="12s", progress=begin)
        first = next(run)  # opens the books
        event.listen(agent.context.store.db.engine, "before_cursor_execute", count)
        looks = [outcome for outcome in islice(run, 2) if isinstance(outcome, StepOutcome)]
        run.close()
    blocks = [outcome.step_input.snapshot.head.number for outcome in (first, *looks) if isinstance(outcome, StepOutcome)]
    assert len({*blocks}) == 3
    assert [outcome.kind for outcome in looks] == [OutcomeKind.HOLD] * 2
    assert 0 < max(statements[2::2]) <= MOST_STATEMENTS
