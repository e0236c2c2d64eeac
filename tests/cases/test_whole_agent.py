"""Anything in any order, and the agent beside a model of it: hypothesis looks for an order that breaks what must hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from agent.localchain import LocalChain
from tests.support.samples import slow
from tests.support.whole_agent import WholeAgent

RUNS = int(os.environ.get("TRIMTAB_STATEFUL_RUNS", "3"))
STEPS = int(os.environ.get("TRIMTAB_STATEFUL_STEPS", "25"))


@pytest.mark.parametrize("runs", [RUNS, *slow([7])])
def test_events_in_any_order__keep_the_agent_s_promises(anvil_chain: LocalChain, tmp_path: Path, runs: int) -> None:
    """`make fuzz` does the same for longer."""
    run_state_machine_as_test(
        lambda: WholeAgent(anvil_chain, tmp_path),
        settings=settings(
            max_examples=runs,
            stateful_step_count=STEPS,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
