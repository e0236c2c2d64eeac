"""After a chain took back what was final, and the operator adopted its nonce: what is in flight stays ours."""

from __future__ import annotations

import pytest

from agent.errors import OperatorNeeded
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS
from agent.model import IntentState
from tests.support.text import raises_code
from tests.support.transactions import Bench, Killed


def test_transaction_in_flight_outlives_a_final_one_of_a_fork(setup: Bench) -> None:
    """Ended by mistake it would be planned again, while its bytes can still be mined."""
    assert setup.run().state is IntentState.FINAL
    setup.chain.blocks += [{} for _ in range(REORG_WATCH_BLOCKS)]
    setup.chain.reorg(REORG_WATCH_BLOCKS + 1)  # one block less, and it would be sent again
    with raises_code(OperatorNeeded, "deep_reorg", "deep", "trimtab adopt"):
        setup.executor().reconcile()
    assert setup.executor().resync_nonce() == 0
    setup.chain.automine = False

    def die(event) -> None:
        if event.name == "after:send":
            raise Killed

    setup.on_event = die
    with pytest.raises(Killed):
        setup.run(data="0x02")
    setup.restart()
    flying = setup.executor().reconcile()
    assert [intent.state for intent in flying] == [IntentState.BROADCAST]
    setup.chain.mine()
    assert [intent.state for intent in setup.executor().reconcile()] == [IntentState.FINAL]
