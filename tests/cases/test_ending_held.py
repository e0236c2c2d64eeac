"""A stop is written down before anything else, and waits for a run that holds the wallet to let go of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from agent import wiring
from agent.app.money import shutdown
from agent.localchain import LocalChain
from tests.support.agents import fund, reopened_agent, trusted_config, yes
from tests.support.fakes.clock import chain_clock

TARGETS = {"WETH": "50%", "USDC": "50%"}


def test_a_stop_waits_for_a_run_that_holds_the_wallet(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, {"WETH": 500, "USDC": 500})
    loaded = trusted_config(anvil_chain, tmp_path, targets=TARGETS)
    with ExitStack() as exit_stack, reopened_agent(anvil_chain, loaded) as runs:
        exit_stack.enter_context(wiring.open_transactor(runs.context, yes, lambda _: None))
        clock = chain_clock(anvil_chain, on_sleep=exit_stack.close)
        with reopened_agent(anvil_chain, loaded, clock=clock) as agent:
            done = shutdown.stop(agent, send=True, confirm=lambda _: runs.context.store.requests.active_stop() is None)
        assert done.state == "stopped", done.reason
        assert clock.sleeps
        assert runs.context.store.requests.active_stop() is not None
