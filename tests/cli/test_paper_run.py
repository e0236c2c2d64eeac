"""Paper trading that a page begins: pins for paper alone, a run in a process of the server, and the controls that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from agent import wiring
from agent.app.controls.queue import submit_for_user
from agent.app.controls.shown_plans import preview_control
from agent.app.records.kill_switch import shown_pause
from agent.app.records.run_report import newest_report
from agent.config.load import load_config
from agent.errors import ConfigError, Refused
from agent.fleet import paper_run
from agent.model import ControlKind, ControlOrigin, ControlSubmission
from agent.ports.paper import PaperConfig
from agent.store import Store
from agent.store.files.locks import service_lock
from agent.web.reading import AppProcess
from tests.cli.tools import Desk, blocks

PATIENCE_S = 90


def paper_store(desk: Desk) -> Iterator[Store]:
    """The open paper store."""
    with wiring.open_store_offline(load_config(PaperConfig(str(desk.config)))) as (store, _):
        yield store


def wait_until(is_reached: Callable[[], bool]) -> None:
    """Wait for what a run does."""
    end_s = time.monotonic() + PATIENCE_S
    while not is_reached():
        assert time.monotonic() < end_s
        time.sleep(0.1)


@pytest.fixture
def untrusted(desk: Desk) -> Desk:
    """A config without a live store, and so without pins."""
    for path in desk.config.parent.glob("trimtab.db*"):
        path.unlink()
    return desk


def test_begin_on_paper__pins_for_paper_alone_and_begins_once(untrusted: Desk) -> None:
    config = str(untrusted.config)
    with pytest.raises(ConfigError, match="no paper books"):
        paper_run.paper_books(config)
    paper_run.begin_on_paper(config)
    assert not untrusted.config.with_name("trimtab.db").exists()
    for store in paper_store(untrusted):
        pins = store.trust.pins()
        wallet = store.paper.wallet()
    assert pins
    assert wallet is not None
    assert [balance.raw for balance in wallet.balances if balance.raw] == [66_666 * 10**6], "two thirds of the config's ceiling, in USDC"
    untrusted.ask("history")
    with wiring.open_store_offline(load_config(config)) as (live_store, _):
        assert live_store.trust.pins() == {}, "real money still needs trimtab trust"
    paper_run.begin_on_paper(config)
    for store in paper_store(untrusted):
        assert (store.trust.pins(), store.paper.wallet()) == (pins, wallet)


def test_edit_of_a_config_on_paper_alone__is_planned_for_its_paper_wallet(untrusted: Desk) -> None:
    paper_run.begin_on_paper(str(untrusted.config))
    document = untrusted.ask("edit", "--target", "WETH=25%", "--target", "USDC=25%", "--yes")
    assert (document["state"], document["next"]) == ("written", []), "no contract waits to be pinned"
    turnover = float(document["transition"]["turnover"])
    assert turnover > 30_000, "of 66,666 USDC, with which the paper wallet begins; the real one is worth 10,200"
    assert not any("refuse" in warning for warning in document["warnings"])
    assert not untrusted.config.with_name("trimtab.db").exists()


def test_paper_run__takes_the_pages_controls_and_no_others(untrusted: Desk) -> None:
    paper = PaperConfig(str(untrusted.config))
    paper_run.begin_on_paper(paper.path)
    place = paper_run.paper_books(paper.path)[1]._replace(owner="ann")

    def ask(kind: ControlKind, plan_hash: str = "", *arguments: tuple[str, str]) -> str:
        submission = ControlSubmission(kind, arguments, "ann", ControlOrigin.DASHBOARD, plan_hash)
        return submit_for_user(paper, place, 1, submission, "::1")

    def state(control_id: str) -> str:
        for store in paper_store(untrusted):
            record = store.controls.find(control_id)
        assert record is not None
        return record.state.value

    purchase = preview_control(paper, ControlKind.REBALANCE)["plan_hash"]
    with pytest.raises(Refused, match="no paper run goes on"):
        ask(ControlKind.REBALANCE, purchase)
    with service_lock(wiring.wallet_locks(load_config(paper))):  # as if a run was there: this one takes it before its own cycle
        bought = ask(ControlKind.REBALANCE, purchase)
    pause = ControlSubmission(ControlKind.PAUSE, (), "ann", ControlOrigin.DASHBOARD, "")
    with pytest.raises(Refused, match="may not control"):
        submit_for_user(paper.path, place, 1, pause, "::1")  # of real money the set-up's user controls nothing
    process = AppProcess()
    try:
        with blocks(untrusted.about["url"]):
            run = process.submit(paper_run.run_on_paper, paper.path)
            wait_until(lambda: state(bought) == "done")
            wait_until(lambda: bool((report := newest_report(paper)) and report.cycles))
            ask(ControlKind.PAUSE)
            assert shown_pause(paper)["paused"] is True
            assert not untrusted.config.with_name("trimtab.db.paused").exists(), "the live agent is not paused"
            time.sleep(1.1)  # a request of the pause's second came before it
            resumed = ask(ControlKind.RESUME)
            wait_until(lambda: state(resumed) == "done")
            for kind, argument in ((ControlKind.EDIT, ("set", "policy.cooldown=1h")), (ControlKind.PAUSE, ("hard", "yes"))):
                with pytest.raises(ConfigError, match="not on paper"):
                    ask(kind, "", argument)
            with pytest.raises(ConfigError, match="not on paper"):
                preview_control(paper, ControlKind.EDIT, (("set", "policy.cooldown=1h"),))
            stop = ask(ControlKind.STOP)
            run.result(PATIENCE_S)
    finally:
        process.stop()
    assert state(stop) == "done"
    assert any(step["execution"] for step in untrusted.ask("history", "--paper")["steps"])
    report = newest_report(paper)
    assert report is not None
    assert report.ended_s is not None
    assert not untrusted.config.with_name("trimtab.db").exists()
