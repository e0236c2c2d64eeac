"""A live agent from Python: what it shows fits a line, and its history is a frame."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from agent import open_agent
from agent.app.documents.past.frames import AgentHistory
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, agent_on, fund, trusted_config, yes

TARGETS = {"WETH": "50%", "USDC": "50%"}


def test_status_and_outcome__fit_a_line_and_history_is_a_frame(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with agent_on(anvil_chain, tmp_path, ROOMY, TARGETS) as agent:
        fund(anvil_chain, {"WETH": 10_000})
        before = agent.status()
        outcome = agent.rebalance(send=True, confirm=yes)
        agent.rebalance(send=True, confirm=yes)
        history = agent.history()
        limited = agent.history(limit=1)
    assert repr(before).startswith(f"PortfolioStatus(block {before.step_input.snapshot.head.number}, ")
    assert "WETH 100.00 %, USDC 0.00 %; rebalance)" in repr(before)
    assert repr(outcome) == f"StepOutcome(done, step {outcome.step_id}: {outcome.reason})"
    assert outcome.notes == ()
    frame = history.frame()
    assert frame["step"].to_list()[1] == outcome.step_id
    assert frame["outcome"].to_list() == ["hold", "done", "approved"]
    assert frame["time"].dtype == pl.Datetime(time_unit="us", time_zone="UTC")
    hold, done, approved = frame.rows(named=True)
    assert hold["total"] is None
    assert (hold["transactions"], approved["transactions"]) == (0, 1)
    assert done["transactions"] == 1
    assert done["total"] == pytest.approx(done["fees"] + done["impact"] + done["gas"], abs=5e-6), "each is rounded to six places"
    assert done["total"] > 0
    assert frame["time"].is_sorted(descending=True)
    values = history.values
    assert values["value"].max() == pytest.approx(10_000, rel=0.01)
    assert (values["WETH"] + values["USDC"]).to_list() == pytest.approx([1.0] * len(values), abs=1e-3)
    assert len(limited.frame()) == 1
    assert repr(history).startswith("AgentHistory(3 steps, newest ")
    assert outcome.step_id in history._repr_html_()
    assert {"document", "frame", "values"} <= set(dir(history))


def test_doctor_of_an_open_agent__asks_its_own_endpoints(chain: LocalChain, tmp_path: Path) -> None:
    loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
    with open_agent(loaded.path, transports=[chain.transport], clock=chain.clock) as agent:
        requests_before = chain.transport.request_count
        states = {check["check"]: check["state"] for check in agent.doctor()["checks"]}
        assert chain.transport.request_count > requests_before
    assert states["store"] == "ok"


def test_history_without_steps_has_the_same_columns() -> None:
    history = AgentHistory({"steps": [], "gradual_executions": [], "values": []})
    assert repr(history) == "AgentHistory(0 steps)"
    assert history.frame().schema["total"] == pl.Float64
    assert history.frame().schema["time"] == pl.Datetime(time_unit="us", time_zone="UTC")
    assert history.values.columns == ["time", "block", "value"]
