"""SIGKILL after a swap of a token with a new fee, before the step notes the shortfall: restarted, it ends failed, with an alert."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from agent.app.alert_channels import unreported_shortfalls
from agent.app.alerting import shortfall_key
from agent.config.loaded import LoadedConfig
from agent.localchain import LocalChain
from agent.model import AlertKind, AlertState, IntentKind, Plan
from agent.store.journal.steps import StepStore
from tests.faults.rig import in_child
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config, yes
from tests.support.markets.moves import before_a_swap
from tests.support.markets.pending_fees import HELD, TARGETS, V3_ONLY
from tests.support.markets.switched_fees import ZERO, switch_on, switchable
from tests.support.samples import slow
from tests.support.text import mentions


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(chain: LocalChain, loaded: LoadedConfig, die_at: str) -> None:
    """One step whose swap is paid with a fee; killed once the swap was sent, before its outcome is written, or never."""
    chain.__dict__.pop("transport", None)  # a connection of its own
    ended = StepStore.end

    def end(self: StepStore, step_id: str, decision: str, reason: str, plan: Plan | None, outcome: str) -> None:
        if outcome == "failed":
            die()
        ended(self, step_id, decision, reason, plan, outcome)

    if die_at == "outcome":
        StepStore.end = end  # type: ignore[method-assign]
    with reopened_agent(chain, loaded) as agent:
        fee_on = before_a_swap(agent, lambda: switch_on(chain, payer=chain.addresses.swap_router_02))
        sent: list[str] = []

        def progress(event: str) -> None:
            fee_on(event)
            sent.append(event)
            if die_at == "sent" and event == "after:send" and agent.context.store.journal.open_intents()[-1].kind is IntentKind.SWAP:
                die()

        agent.rebalance(send=True, confirm=yes, progress=progress)


@pytest.mark.parametrize("die_at", ["sent", *slow(["outcome", "never"])])
def test_step_killed_before_its_shortfall__fails_with_an_alert(chain: LocalChain, tmp_path: Path, die_at: str) -> None:
    switchable(chain)
    fund(chain, HELD)
    loaded = trusted_config(chain, tmp_path, {**ROOMY, **V3_ONLY}, TARGETS)
    code = in_child(lambda: run(chain, loaded, die_at))
    assert code == (0 if die_at == "never" else -signal.SIGKILL)
    chain.__dict__.pop("transport", None)
    switch_on(chain, payer=ZERO)
    with reopened_agent(chain, loaded) as agent:
        store = agent.context.store
        now_s = agent.context.clock.now_s()
        agent.rebalance(send=True, confirm=yes)
        (swap,) = [intent for intent in store.journal.intents() if intent.kind is IntentKind.SWAP]
        record = store.steps.get(swap.step_id)
        assert record is not None
        assert record.summary.outcome == "failed"
        assert mentions(record.summary.reason or "", "LINK", "at least")
        assert unreported_shortfalls(store, store.alerts, now_s) == ((swap.step_id, ("LINK",)),)
        store.alerts.record_and_queue([AlertState(shortfall_key(swap.step_id), AlertKind.ERROR, "", now_s)], [], now_s)
        assert unreported_shortfalls(store, store.alerts, now_s) == (), "one alert for each step"
