"""The whole agent with its store on PostgreSQL: from trust to a rebalance, and a store moved there and back."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import pytest
import requests
from sqlalchemy import Connection, event, select

from agent import app, wiring
from agent.app.records.store_copy import with_store_url
from agent.app.service import report_run
from agent.config.load import load_config
from agent.errors import ConfigError, OperatorNeeded, PassingFault, Refused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.store.files.secret import secret_path
from agent.store.postgresql.copying import OWN_FACTS
from agent.store.postgresql.session import WRITER_KEY_PREFIX
from agent.store.tables import Base
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config, yes
from tests.support.fakes.clock import chain_clock
from tests.support.postgresql import Server
from tests.support.text import raises_code

HELD = {"WETH": 50_000, "WBTC": 10_000, "USDC": 30_000}
ON_TARGET = {"WETH": "50%", "USDC": "50%"}


def rows(config: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a store, by table, in one order whatever the database."""
    loaded = load_config(config)
    with wiring.open_store_offline(loaded) as (store, _), store.db.read("compare") as db:
        rows_by_table = {
            table.name: sorted((tuple(row) for row in db.execute(select(table))), key=repr) for table in Base.metadata.sorted_tables
        }
    is_copied = [row for row in rows_by_table["meta"] if row[0] not in OWN_FACTS and not str(row[0]).startswith(WRITER_KEY_PREFIX)]
    return rows_by_table | {"meta": is_copied}


def outcomes(chain: LocalChain, config: Path, count: int = 1) -> Sequence[OutcomeKind]:
    with reopened_agent(chain, load_config(config)) as agent:
        return [agent.rebalance(send=True, confirm=yes).kind for _ in range(count)]


def test_from_trust_to_history_on_the_server(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, {**ROOMY, "store.url": url})
    fund(anvil_chain, HELD)
    assert outcomes(anvil_chain, loaded.path, 2) == [OutcomeKind.DONE, OutcomeKind.HOLD]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trimtab.store.lock", "trimtab.store.secret", "trimtab.toml"]
    history = app.history(loaded, 9)
    assert [step["outcome"] for step in history["steps"]] == ["hold", "done", "approved", "approved"]
    assert app.pause(loaded.path, "to look")["paused"]
    with reopened_agent(anvil_chain, load_config(loaded.path)) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is not OutcomeKind.DONE
    assert not app.resume(loaded.path, lambda _: True)["paused"]
    for refused in (lambda: app.backup_store(loaded.path, tmp_path / "b.db"), lambda: app.check_store(loaded.path)):
        with pytest.raises(ConfigError, match="PostgreSQL"):
            refused()


def test_a_look_that_holds_commits_at_most_once(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    """Transactions that read alone have no number of their own."""
    loaded = trusted_config(anvil_chain, tmp_path, {"store.url": url}, ON_TARGET)
    fund(anvil_chain, {"WETH": 50_000, "USDC": 50_000})
    numbers: list[int] = []

    def note(db: Connection) -> None:
        number = db.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()::text").scalar()
        if number is not None:
            numbers.append(int(number))

    clock = chain_clock(anvil_chain)
    with (
        reopened_agent(anvil_chain, loaded, clock=clock) as agent,
        report_run(agent, clock, "1s") as service,  # type: ignore[arg-type]  # a clock that ticks by blocks
    ):
        event.listen(agent.context.store.db.engine, "commit", note)
        run = agent.run(send=True, confirm=yes, every="1s", progress=service.on_stage)
        counts = []
        for outcome in islice(run, 5):
            service.on_cycle(outcome)
            assert isinstance(outcome, StepOutcome)
            assert outcome.kind is OutcomeKind.HOLD, outcome.reason
            counts.append(len(numbers))
            anvil_chain.clock.sleep(60)
        run.close()
    assert [after - before for before, after in pairwise(counts)][1:] == [1, 1, 1]


def test_a_store_moves_to_the_server_and_back_row_by_row(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, ROOMY)
    config = loaded.path
    fund(anvil_chain, HELD)
    assert outcomes(anvil_chain, config) == [OutcomeKind.DONE]
    in_file = rows(config)
    assert sum(map(len, in_file.values())) > 30
    copied = app.copy_store(config, url)
    assert copied["rows"] == {name: len(table_rows) for name, table_rows in in_file.items()}
    config.write_text(config.read_text().replace("sqlite:///trimtab.db", url))
    on_server = rows(config)
    assert on_server == in_file
    old = with_store_url(load_config(config), "sqlite:///trimtab.db")
    with wiring.open_store_offline(old) as (store, switch):
        assert switch.is_paused() is True, "the old store sends nothing until it is adopted"
        assert "moved to another database" in store.pause_switch.read().reason
    anvil_chain.move_market({"WETH": anvil_chain.deployed_world.prices_usd["WETH"] * Fraction(13, 10)})
    assert outcomes(anvil_chain, config) == [OutcomeKind.DONE]
    moved = rows(config)
    assert len(moved["steps"]) > len(in_file["steps"])

    app.copy_store(config, "sqlite:///again.db")
    config.write_text(config.read_text().replace(url, "sqlite:///again.db"))
    assert rows(config) == moved
    with sqlite3.connect(tmp_path / "again.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert outcomes(anvil_chain, config) == [OutcomeKind.HOLD]


def test_nothing_is_copied_over_a_store_or_beside_another_secret(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, ROOMY)
    (tmp_path / "trimtab.store.secret").write_text("cd" * 32)
    (tmp_path / "trimtab.store.secret").chmod(0o600)
    with pytest.raises(Refused, match="another store"):
        app.copy_store(loaded.path, url)
    (tmp_path / "trimtab.store.secret").unlink()
    (tmp_path / "trimtab.db.paused").touch()
    app.copy_store(loaded.path, url)
    assert (tmp_path / "trimtab.store.paused").is_file(), "a pause by file is one of the new store too"
    with pytest.raises(Refused, match="a copy itself"):
        app.copy_store(loaded.path, url)
    with wiring.open_store_offline(loaded) as (store, _):
        store.adopt_copy()
    with pytest.raises(Refused, match="already"):
        app.copy_store(loaded.path, url)
    with wiring.open_store_offline(loaded) as (store, _):
        assert not store.pause_switch.read().paused, "what failed leaves the source as it was"
    with pytest.raises(Refused, match="the store itself"):
        app.copy_store(loaded.path, "sqlite:///trimtab.db")


def test_row_that_reads_otherwise__ends_the_copy_with_nothing(anvil_chain: LocalChain, tmp_path: Path, url: str, server: Server) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, ROOMY)
    target = with_store_url(loaded, url)
    with wiring.open_store_offline(target) as (store, _), store.db.write("falsify") as db:
        db.exec_driver_sql(
            "CREATE FUNCTION falsify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.code_hash := '0x'; RETURN NEW; END $$"
        )
        db.exec_driver_sql("CREATE TRIGGER falsify BEFORE INSERT ON pins FOR EACH ROW EXECUTE FUNCTION falsify()")
        db.exec_driver_sql("DELETE FROM meta")
    secret_path(wiring.store_file(target)).unlink()
    with pytest.raises(OperatorNeeded, match="reads otherwise"):
        app.copy_store(loaded.path, url)
    with wiring.open_store_offline(target) as (store, _):
        assert store.trust.pins() == {}


def test_a_pause_reaches_the_database_or_at_least_this_machine(anvil_chain: LocalChain, tmp_path: Path, url: str, server: Server) -> None:
    """With the database away, or a config that cannot be read, the pause file counts on this machine."""
    loaded = trusted_config(anvil_chain, tmp_path, {**ROOMY, "store.url": url})
    other = tmp_path / "other"
    shutil.copytree(tmp_path, other)
    assert app.pause(loaded.path, "look")["reason"] == "look"
    with reopened_agent(anvil_chain, load_config(other / "trimtab.toml")) as agent:
        assert agent.context.kill_switch.is_paused() is True
    app.resume(loaded.path, lambda _: True)
    server.control("stop", "-m", "fast")
    try:
        with raises_code(PassingFault, "pause", "on this machine alone", str(tmp_path / "trimtab.store.paused")):
            app.pause(loaded.path, "look")
    finally:
        server.control("start")
    with reopened_agent(anvil_chain, load_config(loaded.path)) as agent:
        assert agent.context.kill_switch.is_paused() is True
    (tmp_path / "trimtab.store.paused").unlink()
    sound = loaded.path.read_text()
    loaded.path.write_text(sound.replace("[wallet]", "[wallet]\nnonsense = 1"))
    with raises_code(PassingFault, "pause", "on this machine alone", str(tmp_path / "trimtab.store.paused")):
        app.pause(loaded.path, "look")
    loaded.path.write_text(sound.replace("[wallet]", "[wallet"))
    with pytest.raises(ConfigError) as refused:
        app.pause(loaded.path, "look")
    assert f"touch {tmp_path / 'trimtab.store.paused'}" in refused.value.remedy


def test_controls_are_said_to_be_taken_wherever_the_run_is(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    loaded = trusted_config(anvil_chain, tmp_path, {**ROOMY, "store.url": url})
    assert not app.list_controls(loaded)["served"]
    with wiring.open_store_offline(loaded) as (store, _), store.db.serving():
        assert store.db.is_served()
        assert not list(tmp_path.glob("*.service.pid"))


@pytest.mark.slow
def test_the_dashboard_shows_a_look_that_no_file_tells_of(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    """Within seconds, as its store is read again and again."""
    loaded = trusted_config(
        anvil_chain, tmp_path, {**ROOMY, "store.url": url, "chain.rpc": [{"url": anvil_chain.url, "operator": "local"}]}
    )
    fund(anvil_chain, HELD)
    assert outcomes(anvil_chain, loaded.path) == [OutcomeKind.DONE]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("trimtab")), "serve", "--config", str(loaded.path), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            newest = ""
            for count in (1, 2):
                expected = app.history(loaded, 1)["steps"][0]["step"]
                deadline_s = time.monotonic() + 60
                while expected not in newest:
                    assert process.poll() is None
                    assert time.monotonic() < deadline_s, f"look {count} is not shown"
                    time.sleep(0.5)
                    with contextlib.suppress(OSError):
                        newest = requests.get(f"http://127.0.0.1:{port}/history", timeout=30).text
                outcomes(anvil_chain, loaded.path)
        finally:
            process.terminate()
