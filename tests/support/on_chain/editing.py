"""A run on a local chain whose config is edited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.app.records.ledger import pnl, refresh_ledger
from agent.app.settings import editing
from agent.app.settings.editing import EditReport
from agent.config.load import load_config
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.errors import Refused
from agent.localchain import LocalChain
from tests.support.agents import fund, reopened_agent, trusted_config

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
HELD = {"WETH": 5_000, "WBTC": 2_000, "USDC": 3_000}


class EditedRun:
    """A config on the chain, edited by changes."""

    def __init__(self, chain: LocalChain, folder: Path, **limits: object) -> None:
        fund(chain, HELD)
        self.chain, self.file = chain, folder / "trimtab.toml"
        self.loaded = trusted_config(chain, folder, {f"limits.{name}": value for name, value in limits.items()}, TARGETS)
        self.text = self.file.read_text()

    def edit(self, changes: ConfigChanges, answer: bool = True, **options: bool) -> EditReport:
        return editing.edit(
            self.file,
            editing.TextEdit(lambda text: apply_changes(text, changes)),
            editing.EditOptions(**options),
            confirm=lambda _edit, _agent: answer,
            transports=[self.chain.transport],
            clock=self.chain.clock,
        )

    def value(self) -> dict[str, Any]:
        """Return the newest figures of the whole time, an hour later."""
        self.chain.warp(3_700)
        loaded = load_config(self.file)
        with reopened_agent(self.chain, loaded) as agent:
            refresh_ledger(agent)
        return next(iter(pnl(loaded)["periods"]), {})

    def refused(self, changes: ConfigChanges, **options: bool) -> Refused:
        with pytest.raises(Refused) as refused:
            self.edit(changes, **options)
        assert self.file.read_text() == self.text
        assert not self.file.with_name("trimtab.toml.bak").exists()
        return refused.value
