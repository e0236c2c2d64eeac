"""A plan is asked for, confirmed and carried out from a phone, on real contracts and a local server of the Bot API."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.controls.telegram import QueueActions
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import ControlState
from tests.support.agents import off_target
from tests.support.on_chain.controls import controlled_run
from tests.support.telegram_server import TOKEN, bot_api, code_in, running
from tests.support.text import mentions

ME = 4711
TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}


@pytest.mark.parametrize("offers", [False, True])
def test_a_plan_is_confirmed_from_a_phone_and_sent_once(
    chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offers: bool
) -> None:
    monkeypatch.setenv("TRIMTAB_TELEGRAM", TOKEN)
    with bot_api() as api:
        table = {"token_env": "TRIMTAB_TELEGRAM", "chats": [ME], "api": api.url, "poll": "1s"}
        with controlled_run(chain, tmp_path, offers=offers, telegram=table) as run:
            actions = QueueActions(run.loaded, [chain.transport], chain.clock)
            with running(run.loaded, actions):
                if offers:  # the run's plan waits, and the bot tells of it by itself
                    run.look()
                else:
                    api.write(ME, "/plan")
                text = api.until(1)[0][1]
                assert mentions(text, "WETH", "Cost", "worst case", "/confirm")
                code = code_in(text)
                for number in (2, 3):
                    api.write(ME, f"/confirm {code}")
                    api.until(number)
                assert mentions(api.sent[1][1], "queued")
                assert mentions(api.sent[2][1], "not done")
                run.look()
                assert mentions(api.until(4)[3][1], "done")
            (record,) = run.store.controls.newest()
            assert record.state is ControlState.DONE
            assert max(off_target(chain, TARGETS).values()) < 60
            outcome = run.look()
            assert isinstance(outcome, StepOutcome)
            assert outcome.kind is OutcomeKind.HOLD
