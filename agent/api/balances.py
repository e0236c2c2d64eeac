"""What came to the wallet and went from it without the agent: compared with the chain, listed, and told by the owner."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from agent import wiring
from agent.api.agent import Agent
from agent.api.flow_words import document
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.execution.booking import settle
from agent.model import FlowKind, StepInput
from agent.policy import flows as rules

Document = dict[str, Any]
NAMES = tuple(kind.value for kind in (FlowKind.DEPOSIT, FlowKind.WITHDRAWAL, FlowKind.GIFT, FlowKind.LOSS))
"""What an owner may call a flow."""


def flows(agent: Agent, everything: bool = False, limit: int = 1000) -> Document:
    """Compares balances with the books now, writes down what nobody explains, and lists it; `everything` what was told too."""
    eyes, store = agent.desk.eyes, agent.desk.store
    snapshot = eyes.reader.snapshot()

    def present() -> StepInput:
        return eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s))

    settle(store, snapshot, present)
    step = present()
    chosen = [flow for flow in reversed(store.flows(limit)) if everything or flow.is_open]
    unwritten = [flow for flow in step.history.flows if flow.id == 0]
    return {
        "block": snapshot.head.number,
        "numeraire": step.portfolio.numeraire.label,
        "halts": rules.halting(step),
        "flows": [document(step, flow) for flow in (*unwritten, *chosen)],
    }


def confirm_flows(config: Path | str, number: str, kind: str | None = None) -> Document:
    """Writes down what open flows were, on the owner's word; `number` is an id or "all". Raises ConfigError for what does not fit."""
    if number != "all" and not number.isdecimal():
        raise ConfigError(f"flow: {number!r} is no number of a flow", "see trimtab flows, or write all")
    if kind is not None and kind not in NAMES:
        raise ConfigError(f"--as: {kind!r} is unknown", f"choose from {', '.join(NAMES)}")
    with wiring.books(load_config(config)) as (store, _):
        told = store.tell_flow(None if number == "all" else int(number), None if kind is None else FlowKind(kind), int(time.time()))
    return {"confirmed": [{"id": flow.id, "as": flow.kind.value if flow.kind else None} for flow in told]}
