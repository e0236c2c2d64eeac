"""A dry run beside one that sends: the dead man's switch hears of the latter alone."""

from __future__ import annotations

from pathlib import Path

from agent.app import StoppableClock, report_run
from agent.app.records.run_report import RunRecorder
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config
from tests.support.records.listeners import listener


def test_dry_run__beats_for_itself_once_the_sender_stopped(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    clock = StoppableClock()
    with listener(200) as (address, beats):
        loaded = trusted_config(chain, tmp_path, ROOMY | {"service": {"heartbeat_url": f"{address}/ping"}}, {"WETH": "50%", "USDC": "50%"})
        with reopened_agent(chain, loaded) as agent:
            live = RunRecorder(agent.context.store.run_reports, 600, sends=True)
            live.write()
            with report_run(agent, clock, "10m") as dry:
                assert dry.heartbeat is not None
                for heard, ends in ((0, True), (1, False)):
                    dry.on_cycle(agent.plan())
                    dry.heartbeat.wait_until_sent(60)
                    assert len(beats) == heard
                    if ends:
                        live.on_end()
                        live.write()
