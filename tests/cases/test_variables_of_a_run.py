"""Variables of `.env` and the environment that change beside a run are no edit of its config: the run adopts the next edit and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.app.agent import open_agent
from agent.config.load import load_config
from agent.execution.step_context import StepOutcome
from agent.localchain import LocalChain
from agent.store.store import ConfigChanged, Store
from tests.support.agents import ROOMY, fund, trusted_config, yes

TARGETS = {"WETH": "50%", "USDC": "50%"}
NARROW = {**ROOMY, "policy.trigger": {"kind": "threshold", "absolute": "1%"}}
OLD_ENV = "TRIMTAB_KEYSTORE_PASSWORD=old\n"


def write_env(folder: Path, text: str) -> None:
    file = folder / ".env"
    file.write_text(text)
    file.chmod(0o600)


CHANGES: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "another password": lambda folder, _: write_env(folder, "TRIMTAB_KEYSTORE_PASSWORD=new\n"),
    "one more variable": lambda folder, _: write_env(folder, f"{OLD_ENV}TRIMTAB_AGENT_PASSWORD=new\n"),
    "no file": lambda folder, _: (folder / ".env").unlink(),
    "the environment": lambda _, monkeypatch: monkeypatch.setenv("TRIMTAB_KEYSTORE_PASSWORD", "new"),
}


def confirm_edit(path: Path, store: Store, old: str, new: str, now_s: int) -> str:
    """Change the file as `trimtab edit` does, and return its digest."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    digest = load_config(path).digest
    store.configs.record(digest, now_s, path.read_text(), "confirmed")
    return digest


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_run__edit_after_variables_changed__is_adopted(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    monkeypatch.delenv("TRIMTAB_KEYSTORE_PASSWORD", raising=False)
    fund(anvil_chain, {"WETH": 40_000, "USDC": 40_000})
    write_env(tmp_path, OLD_ENV)
    loaded = trusted_config(anvil_chain, tmp_path, NARROW, TARGETS)
    assert loaded.variables["TRIMTAB_KEYSTORE_PASSWORD"] == "old"
    with open_agent(loaded, transports=[anvil_chain.transport], clock=anvil_chain.clock) as agent:
        looks = agent.run(send=True, confirm=yes)
        assert isinstance(next(looks), StepOutcome)
        change(loaded.path.parent, monkeypatch)
        digest = confirm_edit(loaded.path, agent.context.store, '"1%"', '"2%"', anvil_chain.now_s())
        assert isinstance(next(looks), StepOutcome)
        assert agent.context.loaded_config.digest == digest
        looks.close()


def test_run__edit_of_an_endpoint__needs_a_restart(anvil_chain: LocalChain, tmp_path: Path) -> None:
    fund(anvil_chain, {"WETH": 40_000, "USDC": 40_000})
    loaded = trusted_config(anvil_chain, tmp_path, NARROW, TARGETS)
    operator = loaded.config.chain.rpc[0].operator
    with open_agent(loaded, transports=[anvil_chain.transport], clock=anvil_chain.clock) as agent:
        looks = agent.run(send=True, confirm=yes)
        next(looks)
        confirm_edit(loaded.path, agent.context.store, f'operator = "{operator}"', f'operator = "{operator}-2"', anvil_chain.now_s())
        with pytest.raises(ConfigChanged, match=r"edited in \[chain\]"):
            next(looks)
