"""What a waiting proposal holds up, and what ends that."""

from __future__ import annotations

import pytest

from agent.execution.submission.held_up_exits import held_up_text
from agent.execution.submission.proposal_words import WITHDRAWAL_ADVICE
from agent.model import IntentKind
from agent.ports import Grant
from tests.support.decisions.exits import step_with_stops
from tests.support.text import mentions


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        pytest.param(IntentKind.SWAP, f"this proposal is executed or given up: {WITHDRAWAL_ADVICE}", id="trade"),
        pytest.param(IntentKind.CANCEL, "this rejection is executed or has expired", id="rejection"),
    ],
)
def test_fired_exit__waits_for_the_end_of_what_waits(kind: IntentKind, ending: str) -> None:
    grant = Grant(kind, now_s=0, deadline_s=1, max_gas_wei=0)
    text = held_up_text(step_with_stops("LINK", "WBTC"), grant)
    assert mentions(text, "stop_loss of LINK", "stop_loss of WBTC", "have fired")
    assert text.endswith(f"nothing is sold before {ending}")
    assert held_up_text(step_with_stops(), grant) == ""
