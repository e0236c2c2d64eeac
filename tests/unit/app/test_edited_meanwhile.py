"""A config that its owner confirmed while another process waited, asked or rested: nobody goes on by the version before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.app import config_versions, cycles
from agent.app.cycles import ignore_progress, never_confirm
from agent.config.load import load_config
from agent.errors import PassingFault
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.store import open_store
from agent.store.store import ConfigChanged
from agent.wiring import WalletSession
from tests.support import builders
from tests.support.configs.samples import config_text
from tests.support.text import raises_code

OTHER = "c0" * 32
DECIDED: Any = SimpleNamespace()
STEP: Any = SimpleNamespace(snapshot=SimpleNamespace(head=SimpleNamespace(timestamp_s=1_000)))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What waiting for the wallet needs of a desk."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(WalletSession, "_transactor", lambda _: "hands")
    (tmp_path / "trimtab.toml").write_text(config_text())
    loaded = load_config(tmp_path / "trimtab.toml")
    store = open_store(loaded.store_url, 1, builders.OWNER)
    store.configs.record(loaded.digest, 1)
    yield SimpleNamespace(
        loaded_config=loaded, config=loaded.config, store=store, confirmed_hash=loaded.digest, clock=SimpleNamespace(sleep=lambda _: None)
    )
    store.close()


def wallet(desk: Any) -> WalletSession:
    return WalletSession(desk, never_confirm, ignore_progress, None, None)


def test_wallet_after_an_edit__serves_no_earlier_version(desk: Any) -> None:
    with wallet(desk).open_transactor() as transactor:
        assert str(transactor) == "hands"
    desk.store.configs.record(OTHER, 2)
    with raises_code(ConfigChanged, "config"), wallet(desk).open_transactor():
        raise AssertionError("acts by limits that are nobody's any more")
    with wallet(desk).open_transactor(cancels_only=True) as transactor:
        assert str(transactor) == "hands", "a hard pause waits for no restart"
    desk.store.configs.record(desk.loaded_config.digest, 3)  # and taken back
    with wallet(desk).open_transactor():
        pass


def test_yes_overtaken_by_an_edit__confirms_neither_version(desk: Any) -> None:
    def edited_meanwhile(_: tuple[str, ...]) -> bool:
        desk.store.configs.record(OTHER, 2)
        return True

    with pytest.raises(ConfigChanged, match="the config was changed after this process had read it"):
        config_versions.confirm_changes(desk, edited_meanwhile)
    assert desk.store.configs.confirmed_digest() == OTHER
    assert config_versions.confirm_changes(desk, lambda _: True), "asked again, with what is different shown, it is an answer"


@pytest.mark.parametrize(
    "confirm",
    [config_versions.confirm_without_asking, partial(config_versions.confirm_changes, ask=lambda _: True)],
    ids=["--yes", "asked"],
)
def test_version_of_a_control__is_no_owner_s_after_an_edit_undone(desk: Any, confirm: Callable[[Any], bool]) -> None:
    """T28: what a control changed, it may take back, up to what the owner confirmed at a terminal."""
    configs = desk.store.configs
    configs.record(desk.loaded_config.digest, 2, origin=config_versions.CONTROL_ORIGIN)
    configs.record(OTHER, 3, origin=config_versions.NOTICED_ORIGIN)
    assert confirm(desk)
    assert [version.origin for version in configs.newest(2)] == [config_versions.NOTICED_ORIGIN, config_versions.CONTROL_ORIGIN]


def test_text_that_cannot_be_taken_back__says_what_interrupted(tmp_path: Path) -> None:
    """An interrupt has no text of its own."""
    with pytest.raises(PassingFault, match="not confirmed: interrupted; the old text cannot be written back"):
        config_versions.take_back(tmp_path / "missing.toml", "before", "after", KeyboardInterrupt())


def test_rounds_of_a_command__end_with_an_edit(desk: Any) -> None:
    sent: Any = SimpleNamespace(kind="swap")
    execution = SimpleNamespace(parts_done=1, next_s=1_060, terms=SimpleNamespace(part_count=3, style="rounds"))
    desk.store.budgets = SimpleNamespace(execution=lambda _: execution)
    desk.readers = None  # a round that began would fail here
    desk.kill_switch = SimpleNamespace(read=lambda: SimpleNamespace(paused=False))
    desk.store.configs.record(OTHER, 2)
    first = StepOutcome("1", OutcomeKind.DONE, "a round", STEP, DECIDED, None, transactions=(sent,))
    continued_outcome = cycles.continue_execution(wallet(desk), first)
    assert (continued_outcome.kind, continued_outcome.transactions) == (OutcomeKind.REFUSED, (sent,))
    assert [verdict.guard for verdict in continued_outcome.refusal_verdicts] == ["config"]
