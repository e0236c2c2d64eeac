"""A look: a cycle of `trimtab run` at a new block that decides to hold. It asks the store as little as it can."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from agent import wiring
from agent.app import Agent
from agent.app.cycles import READING_STAGE
from agent.app.service import report_run
from agent.chain.rpc import RpcCall, RpcFault
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.store.database.connection import WRITE_FLAG
from tests.support.agents import FIVE, agent_on, fund, reopened_agent, trusted_config, yes
from tests.support.fakes.clock import chain_clock
from tests.support.fakes.transport import RecordingTransport

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


def pruned_node(chain: LocalChain) -> RecordingTransport:
    """Return a transport of the chain whose node has no old blocks."""

    def refuse(calls: Sequence[RpcCall]) -> list[Any] | None:
        return [RpcFault(-32000, "pruned")] * len(calls) if ("eth_getBlockByNumber", ["0x0", False]) in calls else None

    return RecordingTransport(chain.transport, "local", intercept=refuse)


class CommitCounter:
    """Number of commits of transactions that write."""

    number = 0

    def count(self, db: Connection) -> None:
        self.number += WRITE_FLAG in db.info


LOOK_S = 60
HYBRID = {"policy.trigger": {"kind": "hybrid", "every": "1h", "relative": "10%"}}


@pytest.mark.parametrize(
    ("changes", "pause_s", "vouched"),
    [
        pytest.param({}, LOOK_S, True, id="bands"),
        pytest.param({}, 3_601, True, id="the_first_look_of_an_hour"),
        pytest.param(HYBRID, 3_601, True, id="a_schedule_is_reviewed"),
        pytest.param({}, LOOK_S, False, id="the_last_day_is_unknown"),
        pytest.param({"portfolio.use_cash": "100", "limits.payout_per_day": "off"}, LOOK_S, True, id="a_part_of_the_cash"),
        pytest.param({"service": {"keep_steps": 10}}, LOOK_S, True, id="old_steps_are_removed"),
    ],
)
def test_a_look_that_holds_commits_at_most_once(
    anvil_chain: LocalChain, tmp_path: Path, changes: dict[str, object], pause_s: int, vouched: bool
) -> None:
    fund(anvil_chain, ON_TARGET)
    clock = chain_clock(anvil_chain)
    commits = CommitCounter()
    with (
        reopened_agent(
            anvil_chain, trusted_config(anvil_chain, tmp_path, changes, FIVE, vouched), [pruned_node(anvil_chain)], clock
        ) as agent,
        report_run(agent, clock, "1s") as service,  # type: ignore[arg-type]  # a clock that ticks by blocks
    ):
        store = agent.context.store
        run = agent.run(send=True, confirm=yes, every="1s", progress=service.on_stage)
        outcomes = []
        event.listen(store.db.engine, "commit", commits.count)
        for _ in range(14):
            commits.number = 0
            outcomes.append(next(run))
            service.on_cycle(outcomes[-1])
            steps = store.steps.newest(100)
            anvil_chain.clock.sleep(pause_s)
            if len(outcomes) > 2:
                assert isinstance(outcomes[-1], StepOutcome)
                assert outcomes[-1].kind is OutcomeKind.HOLD, outcomes[-1].reason
                assert commits.number == 1
                assert (steps[0].id, steps[0].outcome) == (outcomes[-1].step_id, "hold"), "the report took the step along"
        run.close()
        assert len(steps) == 12 or "service" not in changes, "ten, this look's, and the first of all"


def held_steps(agent: Agent) -> set[str]:
    """Return the steps without a trade that another process sees in the store."""
    path = wiring.store_file(agent.context.loaded_config)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return {step_id for (step_id,) in db.execute("SELECT id FROM steps WHERE outcome = 'hold'")}


@pytest.mark.parametrize("is_last", [False, True], ids=["before it waits", "before it is closed"])
def test_a_run_without_a_report_writes_its_look(anvil_chain: LocalChain, tmp_path: Path, is_last: bool) -> None:
    fund(anvil_chain, ON_TARGET)
    with agent_on(anvil_chain, tmp_path) as agent:
        run = agent.run(send=True, confirm=yes, every="1s")
        next(run)
        look = next(run)
        assert isinstance(look, StepOutcome)
        assert look.step_id not in held_steps(agent), "one commit a look, with what comes after it"
        if is_last:
            run.close()
        else:
            next(run)
        assert look.step_id in held_steps(agent)
        run.close()
