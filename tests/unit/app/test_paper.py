"""What paper books have to do with the live ones: another file, another lock, and no key; and what the dashboard shows of both."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent import wiring
from agent.app import config_versions, dashboard
from agent.app.paper import PaperStart, open_paper, require_holdings, start_over_text
from agent.app.records import maintenance
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.secrets.known import secrets_of
from agent.errors import ConfigError, OperatorNeeded
from agent.model import (
    ConditionalOrder,
    Holding,
    OrderKind,
    OrderStage,
    OrderTerms,
    PaperMargin,
    PaperPosition,
    PaperWallet,
)
from agent.store import open_store
from agent.wiring import store_file
from agent.wiring.transactor import wallet_locks
from tests.support import builders
from tests.support.configs.samples import config_text
from tests.support.stores import install_later_version
from tests.support.text import raises_code, raises_field
from tests.support.tokens import WETH

TOKEN = builders.address("token")


def loaded(folder: Path, *changes: tuple[str, str]) -> LoadedConfig:
    (folder / "trimtab.toml").write_text(config_text(*changes))
    return load_config(folder / "trimtab.toml")


def paper_wallet(symbol: str, raw: int, margin: PaperMargin | None) -> PaperWallet:
    """Return a wallet of one token, with native coin."""
    return PaperWallet((Holding(builders.token(symbol).address, raw),), (), 10**18, 7, 1_000, margin=margin)


def test_live_chain_s_paper__has_its_own_store_and_lock(tmp_path: Path) -> None:
    live = loaded(tmp_path)
    paper = replace(live, is_paper=True)
    assert live.config.chain.chain_id == 1
    assert (store_file(live), store_file(paper)) == (tmp_path / "trimtab.db", tmp_path / "paper.db")
    assert wallet_locks(paper).wallet_lock_file == tmp_path / "paper.db.lock"
    assert wallet_locks(live).wallet_lock_file.parent != tmp_path, "one place per machine, whatever the store"
    assert (wallet_locks(live).store_lock_file, wallet_locks(paper).store_lock_file) == (
        tmp_path / "trimtab.db.lock",
        wallet_locks(paper).wallet_lock_file,
    ), "and one for all who use the store"
    assert paper.live_store_url == live.store_url


def test_two_portfolios_of_a_folder_have_a_paper_store_each(tmp_path: Path) -> None:
    names = {
        "trimtab.db": "paper.db",
        "mine.db": "mine.paper.db",
        "my.own.db": "my.own.paper.db",
        "my.store.db": "my.store.paper.db",
        "bare": "bare.paper",
    }
    papers = {name: replace(loaded(tmp_path, ("trimtab.db", name)), is_paper=True) for name in names}
    assert {name: store_file(paper).name for name, paper in papers.items()} == names
    assert len({wallet_locks(paper).wallet_lock_file for paper in papers.values()}) == len(names)


@pytest.mark.parametrize("name", ["paper.db", "mine.paper.db", "bare.paper", "trimtab.store"])
def test_store_may_not_have_the_place_of_another(tmp_path: Path, name: str) -> None:
    with raises_field("store.url", name, "paper trading"):
        _ = loaded(tmp_path, ("sqlite:///trimtab.db", f"sqlite:///{name}")).store_url


def test_config_of_a_server_may_not_have_the_place_of_another_s_paper(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me@example.org/trimtab"
    live = loaded(tmp_path, ("sqlite:///trimtab.db", url))
    other = replace(live, path=tmp_path / "trimtab.paper.toml")
    assert live.store_url == url
    with pytest.raises(ConfigError, match=r"trimtab\.paper\.toml: .*rename it"):
        _ = other.store_url


def test_paper_does_not_even_read_a_key_to_hide_it_from_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "canary")
    for name in ("RPC_A", "RPC_B"):
        monkeypatch.setenv(name, f"https://{name}.example")
    live = loaded(tmp_path, ('keystore = "wallet.json"', 'key_env = "MY_KEY"'))
    assert "canary" in secrets_of(live)
    assert secrets_of(replace(live, is_paper=True)) == ["https://RPC_A.example", "https://RPC_B.example"]


@pytest.mark.parametrize("start", [PaperStart(native="5"), PaperStart(native="abc"), PaperStart(native="5", margin="500")])
def test_native_coins_beside_a_wallet_copy__are_refused(tmp_path: Path, start: PaperStart) -> None:
    with raises_field("--native"), open_paper(loaded(tmp_path), start):
        pass
    assert not (tmp_path / "paper.db").exists()


@pytest.mark.parametrize(
    ("symbol", "raw", "margin"),
    [
        pytest.param("WBTC", 5, None, id="another token"),
        pytest.param("WETH", 0, None, id="nothing of an asset"),
        pytest.param("WBTC", 5, PaperMargin(0, 0, ()), id="empty margin account"),
    ],
)
def test_empty_paper_wallet__is_refused(symbol: str, raw: int, margin: PaperMargin | None) -> None:
    with pytest.raises(ConfigError, match="holds none"):
        require_holdings(paper_wallet(symbol, raw, margin), builders.step_input().portfolio)


@pytest.mark.parametrize(
    ("symbol", "margin"),
    [
        pytest.param("WETH", None, id="asset"),
        pytest.param("WBTC", PaperMargin(1, 0, ()), id="collateral"),
        pytest.param("WBTC", PaperMargin(0, 1, ()), id="profit"),
        pytest.param("WBTC", PaperMargin(0, 0, (PaperPosition(TOKEN, 1, 1, growth_x96=0),)), id="position"),
    ],
)
def test_paper_wallet__of_an_asset_or_margin__is_accepted(symbol: str, margin: PaperMargin | None) -> None:
    require_holdings(paper_wallet(symbol, 1, margin), builders.step_input().portfolio)


def test_paper_on_a_server_names_no_file_that_there_is_not(tmp_path: Path) -> None:
    on_server = loaded(tmp_path, ("sqlite:///trimtab.db", "postgresql+psycopg://me@example.org/trimtab"))
    assert start_over_text(replace(on_server, is_paper=True)) == "name another database in store.url"
    assert start_over_text(replace(loaded(tmp_path), is_paper=True)) == f"remove {tmp_path / 'paper.db'}"


@pytest.mark.parametrize("is_in_file", [True, False], ids=["a file", "a server"])
@pytest.mark.parametrize("require", [maintenance.require_store, dashboard.require_store])
def test_a_missing_store_is_named_by_where_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require: Callable[[LoadedConfig], object], is_in_file: bool
) -> None:
    monkeypatch.setattr(wiring, "has_store", lambda _: False)
    url = "sqlite:///trimtab.db" if is_in_file else "postgresql+psycopg://me@example.org/trimtab"
    with pytest.raises(ConfigError) as error:
        require(loaded(tmp_path, ("sqlite:///trimtab.db", url)))
    assert (str(tmp_path / "trimtab.") in error.value.message, "PostgreSQL" in error.value.message) == (is_in_file, not is_in_file)


def _damage(paper_path: Path) -> None:
    paper_path.write_bytes(b"no database" * 1_000)


def _replace_by_that_of_another_wallet(paper_path: Path) -> None:
    paper_path.unlink()
    open_store(f"sqlite:///{paper_path}", 1, builders.OWNER).close()


def _make_unknown(paper_path: Path) -> None:
    with closing(sqlite3.connect(paper_path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'other'")
        connection.commit()


@pytest.mark.parametrize("spoil", [_damage, _replace_by_that_of_another_wallet, _make_unknown])
def test_dashboard__unusable_paper_store__hides_nothing_of_the_live_one(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    live = loaded(tmp_path)
    with wiring.open_store_offline(live) as (store, _):
        store.steps.begin("first", 1, "{}")
        with wiring.open_store_offline(replace(live, is_paper=True)):
            pass
        spoil(tmp_path / "paper.db")
        first_marker = dashboard.change_marker(live)
        store.steps.begin("second", 2, "{}")
        assert dashboard.change_marker(live) != first_marker
    documents = dashboard.stored_documents(live)
    assert len(documents["history"]["steps"]) == 2
    assert isinstance(documents["paper"]["raised"], OperatorNeeded)


def test_settings__say_what_a_paper_run_has_not_read(tmp_path: Path) -> None:
    at_start = replace(loaded(tmp_path), is_paper=True)
    with wiring.open_store_offline(at_start) as (store, _):
        config_versions.record_version(at_start, store.configs, config_versions.YES_ORIGIN)
    assert "changes_since_start" not in dashboard.stored_documents(at_start)["settings"]
    text = at_start.path.read_text()
    at_start.path.write_text(f"{text}\n# only a comment\n")
    changed = replace(load_config(at_start.path), is_paper=True)
    assert dashboard.stored_documents(changed)["settings"]["changes_since_start"] == ["only comments or secrets"]
    live = replace(changed, is_paper=False)
    with wiring.open_store_offline(live):
        assert "changes_since_start" not in dashboard.stored_documents(live)["settings"]


def test_dashboard__unusable_live_store__raises(tmp_path: Path) -> None:
    live = loaded(tmp_path)
    with wiring.open_store_offline(replace(live, is_paper=True)):
        _damage(tmp_path / "trimtab.db")
    for read in (dashboard.change_marker, dashboard.stored_documents):
        with raises_code(OperatorNeeded, "store"):
            read(live)


@pytest.mark.parametrize("is_paper", [False, True], ids=["live", "paper"])
def test_dashboard__reads_again_once_a_command_armed_an_order(tmp_path: Path, is_paper: bool) -> None:
    served = replace(loaded(tmp_path), is_paper=is_paper)
    terms = OrderTerms(WETH.address, OrderKind.STOP_LOSS, None, 1_000)
    with wiring.open_store_offline(served) as (store, _):
        store.steps.begin("first", 1, "{}")
        first_marker = dashboard.change_marker(served)
        assert store.orders.replace_orders((ConditionalOrder(terms.token, terms.kind, OrderStage.WAITING, terms, 1),), None, 0)
        assert dashboard.change_marker(served) != first_marker


@pytest.mark.parametrize("is_paper", [False, True], ids=["live", "paper"])
@pytest.mark.parametrize(
    "read",
    [
        dashboard.change_marker,
        dashboard.stored_documents,
        dashboard.live_documents,
        dashboard.plan_document,
        lambda config: dashboard.step_document(config, "first"),
    ],
    ids=["marker", "stored", "live", "plan", "step"],
)
def test_dashboard__store_of_an_older_version__is_left_to_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[LoadedConfig], object], is_paper: bool
) -> None:
    served = replace(loaded(tmp_path), is_paper=is_paper)
    with wiring.open_store_offline(served) as (store, _):
        store.steps.begin("first", 1, "{}")
    older_bytes = store_file(served).read_bytes()
    install_later_version(monkeypatch, tmp_path)
    with raises_code(OperatorNeeded, "store_version", "is older"):
        read(served)
    assert store_file(served).read_bytes() == older_bytes


def test_dashboard__paper_store_of_an_older_version__is_left_to_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = loaded(tmp_path)
    paper = replace(live, is_paper=True)
    with wiring.open_store_offline(paper):
        pass
    older_bytes = store_file(paper).read_bytes()
    install_later_version(monkeypatch, tmp_path)
    with wiring.open_store_offline(live) as (store, _):
        store.steps.begin("first", 1, "{}")
    assert "is older" in dashboard.stored_documents(live)["paper"]["error"]
    assert "trimtab paper" in dashboard.change_marker(live)
    assert store_file(paper).read_bytes() == older_bytes
