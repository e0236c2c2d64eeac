"""A stop is written down before anything else, and waits for a run that holds the wallet to let go of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from agent import wiring
from agent.app.money import shutdown
from agent.localchain import LocalChain
from tests.support.agents import again, fund, trusted, yes

TARGETS = {"WETH": "50%", "USDC": "50%"}


class Letting:
    """The chain's clock; who sleeps by it lets the other process go."""

    def __init__(self, chain: LocalChain, held: ExitStack) -> None:
        self.chain, self.held, self.seen = chain, held, 0

    def now_s(self) -> int:
        return self.chain.now_s()

    def sleep(self, seconds: float) -> None:
        self.seen += 1
        self.held.close()
        self.chain.clock.sleep(seconds)


def test_a_stop_waits_for_a_run_that_holds_the_wallet(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, {"WETH": 500, "USDC": 500})
    loaded = trusted(anvil_chain, tmp_path, targets=TARGETS)
    with ExitStack() as exit_stack, again(anvil_chain, loaded) as runs:
        exit_stack.enter_context(wiring.open_transactor(runs.context, yes, lambda _: None))
        clock = Letting(anvil_chain, exit_stack)
        with again(anvil_chain, loaded, clock=clock) as agent:
            done = shutdown.stop(agent, send=True, confirm=lambda _: runs.context.store.requests.active_stop() is None)
        assert (done.state, clock.seen >= 1) == ("stopped", True), done.reason
        assert runs.context.store.requests.active_stop() is not None
