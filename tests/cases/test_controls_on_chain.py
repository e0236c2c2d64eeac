"""Controls on a chain: each kind carried out by the run as its command would, once, and only as it was shown."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import update

from agent import wiring
from agent.app.controls import queue
from agent.app.controls.runner import MAX_CONTROLS_PER_CYCLE, ControlRunner
from agent.app.start.doctor.checks import doctor
from agent.config.load import load_config
from agent.errors import ConfigError, PassingFault, Refused, Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import ControlKind, ControlOrigin, ControlState, ControlSubmission, IntentKind
from agent.observe.push import PushSender
from agent.store.controls import ControlStore
from agent.store.files.locks import service_lock
from agent.store.tables import ControlRow
from tests.faults.probe import heard
from tests.faults.rig import in_child
from tests.support.agents import explain_balances, fund, purse, reopened_agent, trusted_config
from tests.support.fakes.clock import chain_clock
from tests.support.fakes.transport import RecordingTransport
from tests.support.on_chain.controls import CHANGES, DRIFTED, TARGETS, ControlledRun, controlled_run, die_in_cycle, result
from tests.support.on_chain.withdrawing import HOME
from tests.support.text import raises_code

LEVEL = {"WETH": 5_000, "WBTC": 2_000, "USDC": 3_000}


# --- Each kind.


def test_device__is_added_and_removed_unless_of_no_push_service(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSH", f"webpush://me:{'5eed' * 16}@example.org")
    point = PushSender.from_url(os.environ["PUSH"], "PUSH").public_key
    parts = (("key", point), ("auth", "s" * 22), ("page", "/alerts"))
    with controlled_run(anvil_chain, tmp_path, alerts={"targets": [{"name": "phone", "url_env": "PUSH"}]}) as run:
        inside = run.ask("device", ("endpoint", "https://127.0.0.1/a"), *parts)
        assert run.ended(run.ask("device", ("endpoint", "https://web.push.apple.com/a"), *parts)).state is ControlState.DONE
        refused = run.store.controls.find(inside.id)
        assert refused is not None
        assert (refused.state, refused.reason[:19]) == (ControlState.REFUSED, "endpoint: 127.0.0.1")
        (device,) = run.store.alerts.devices()
        assert (device.endpoint, device.user) == ("https://web.push.apple.com/a", "owner")
        assert run.ended(run.ask("device", ("remove", device.id))).state is ControlState.DONE
        assert run.store.alerts.devices() == ()


def test_a_rebalance_is_sent_as_shown_and_once(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, offers=True) as run:
        before = purse(chain)
        shown_plan_document = run.shown("rebalance")
        assert (shown_plan_document["state"], shown_plan_document["document"]["outcome"]) == ("planned", "planned")
        assert any("WETH" in move for move in shown_plan_document["moves"])
        rebalance_document = run.ask("rebalance", plan=shown_plan_document["plan_hash"])
        assert purse(chain) == before, "the requester sends nothing"
        record = run.ended(rebalance_document)
        assert (record.state, record.code) == (ControlState.DONE, ""), record
        assert result(record, "outcome") == ["done"]
        sent = [intent.tx_hash for intent in reversed(run.store.journal.intents())]
        assert result(record, "transaction") == sent
        assert purse(chain).nonce == before.nonce + len(sent)
        assert run.look().kind is OutcomeKind.HOLD
        assert purse(chain).nonce == before.nonce + len(sent)
        assert [event.state for event in run.store.controls.events()] == ["queued", "taken", "done"]


def test_a_plan_that_is_not_the_shown_one_is_refused(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, offers=True) as run:
        rebalance_document = run.ask("rebalance")
        fund(chain, {"WETH": 7_500, "WBTC": 1_500, "USDC": 1_000})
        before = purse(chain)
        record = run.ended(rebalance_document)
        assert (record.state, record.code) == (ControlState.REFUSED, "plan_changed"), record
        assert purse(chain) == before
        assert result(record, "transaction") == []


def test_an_offered_plan_waits_and_is_sent_once_confirmed(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, offers=True) as run:
        with raises_code(Refused, "not_waiting"):
            run.shown("confirm")
        before = purse(chain)
        offered = run.look()
        assert offered.kind is OutcomeKind.DECLINED
        assert purse(chain) == before
        assert "band" in offered.reason, offered.reason
        assert offered.reason.endswith("; not confirmed; nothing was sent"), offered.reason
        assert run.store.steps.newest(1)[0].outcome == "waiting", "nobody declined it"
        shown_plan_document = run.shown("confirm")
        assert queue.list_controls(run.loaded.path)["waiting"] == shown_plan_document
        assert shown_plan_document["document"]["legs"]
        assert run.look().kind is OutcomeKind.DECLINED
        assert run.shown("confirm") == shown_plan_document, "the same plan keeps its hash"
        first_request, two = (run.ask("confirm", plan=shown_plan_document["plan_hash"]) for _ in range(2))
        run.look()
        records = [run.store.controls.find(control.id) for control in (first_request, two)]
        assert [(record.state, record.code) for record in records if record] == [
            (ControlState.DONE, ""), (ControlState.REFUSED, "not_waiting"),
        ]  # fmt: skip
        assert purse(chain).nonce > before.nonce
        assert run.store.controls.offered_plan() is None


@pytest.mark.slow
def test_changed_waiting_plan__is_offered_anew_and_ended_not(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, offers=True) as run:
        run.look()
        first = run.shown("confirm")
        confirm_document = run.ask("confirm", plan=first["plan_hash"])
        fund(chain, {"WETH": 7_500, "WBTC": 1_500, "USDC": 1_000})
        explain_balances(run.agent)
        before = purse(chain)
        record = run.ended(confirm_document)
        assert (record.state, record.code) == (ControlState.REFUSED, "plan_changed")
        assert purse(chain) == before
        assert run.shown("confirm")["plan_hash"] not in ("", first["plan_hash"])
        fund(chain, LEVEL)
        explain_balances(run.agent)
        run.look()
        assert run.store.controls.offered_plan() is None


def test_pause_holds_at_once_and_resume_ends_it(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path) as run:
        run.ask("pause", ("reason", "smoke"))
        assert run.agent.context.kill_switch.is_paused()
        assert run.look().kind is OutcomeKind.REFUSED
        before = purse(chain)
        chain.warp(1)
        resumed = run.ended(run.ask("resume"))
        assert resumed.state is ControlState.DONE
        assert not run.agent.context.kill_switch.is_paused()
        assert purse(chain).nonce > before.nonce, "the cycle after it trades again"


def test_a_resume_lifts_no_pause_and_no_stop_that_came_after_it(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path) as run:
        before = purse(chain)
        switch = run.agent.context.kill_switch
        run.ask("pause")
        early = run.ask("resume")
        run.ask("pause", ("reason", "smoke"))
        record = run.ended(early)
        assert (record.state, record.code) == (ControlState.REFUSED, "paused_since"), record
        assert switch.is_paused()
        assert purse(chain) == before
        chain.warp(1)
        early = run.ask("resume")
        switch.pause("at the terminal", chain.now_s())
        chain.warp(5)
        assert run.ended(early).code == "paused_since"
        assert switch.is_paused()
        assert run.ended(run.ask("resume")).state is ControlState.DONE
        assert not switch.is_paused()
        early = run.ask("resume")
        switch.file.touch()  # the way to pause that needs neither trimtab nor disk space
        os.utime(switch.file, (chain.now_s() + 1,) * 2)
        assert run.ended(early).code == "paused_since"
        assert switch.is_paused()


def test_a_control_is_refused_by_the_guards_of_its_command(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, offers=True) as run:
        rebalance_document = run.ask("rebalance")
        run.ask("pause")
        before = purse(chain)
        record = run.ended(rebalance_document)
        assert (record.state, record.code) == (ControlState.REFUSED, "kill_switch")
        assert purse(chain) == before


def test_a_deposit_is_invested_as_shown(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        run.look()
        chain.set_balance("USDC", chain.balance("USDC") + 2_000 * 10**6)
        shown_plan_document = run.shown("invest")
        assert shown_plan_document["state"] == "planned", shown_plan_document["reason"]
        changed = run.ask("invest", plan=shown_plan_document["plan_hash"])
        chain.set_balance("USDC", chain.balance("USDC") + 500 * 10**6)
        assert run.ended(changed).code == "plan_changed"
        record = run.ended(run.ask("invest"))
        assert record.state is ControlState.DONE, record
        assert result(record, "transaction"), record


def test_a_withdrawal_is_paid_as_shown_to_the_configured_address(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        withdraw_document = run.ask("withdraw", ("amount", "500"), ("to", HOME))
        record = run.ended(withdraw_document)
        assert (record.state, chain.balance("USDC", HOME)) == (ControlState.DONE, 500 * 10**6), record
        (number,) = result(record, "request")
        assert run.store.requests.newest()[-1].id == int(number)
        run.look()
        assert chain.balance("USDC", HOME) == 500 * 10**6


@pytest.mark.slow
def test_a_withdrawal_that_needs_a_sale_shows_it(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL, limits__payout_per_day="off") as run:
        shown_plan_document = run.shown("withdraw", ("amount", "3500"), ("to", HOME))
        assert any(move.startswith("-") and "WETH" in move for move in shown_plan_document["moves"]), shown_plan_document["moves"]
        record = run.ended(run.ask("withdraw", ("amount", "3500"), ("to", HOME), plan=shown_plan_document["plan_hash"]))
        assert (record.state, chain.balance("USDC", HOME)) == (ControlState.DONE, 3_500 * 10**6), record


def test_an_edit_is_written_and_taken_up_by_the_run(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL, offers=True) as run:
        shown_plan_document = run.shown("edit", ("target", "WETH=40%"), ("target", "USDC=40%"))
        assert shown_plan_document["document"]["changes"]
        edit_document = run.ask("edit", ("target", "WETH=40%"), ("target", "USDC=40%"), plan=shown_plan_document["plan_hash"])
        record = run.ended(edit_document)
        assert record.state is ControlState.DONE, record
        assert {a.symbol: a.target for a in load_config(run.loaded.path).config.portfolio.assets}["WETH"] == 4_000


def test_alert_targets__are_edited_and_the_run_goes_on(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_PHONE", "json://127.0.0.1:9/hook")
    with controlled_run(anvil_chain, tmp_path, LEVEL, offers=True) as run:
        with pytest.raises(ConfigError, match="TRIMTAB_MAIL is not set"):
            run.shown("edit", ("set", "alerts.targets.mail.url_env=TRIMTAB_MAIL"))
        new_target = (("set", 'alerts.targets.phone.url_env="TRIMTAB_PHONE"'), ("set", 'alerts.targets.phone.events="error, halt"'))
        preview = run.shown("edit", *new_target)
        assert (preview["document"]["transition"], preview["moves"]) == (None, [])
        assert run.ended(run.ask("edit", *new_target, plan=preview["plan_hash"])).state is ControlState.DONE
        assert [target.name for target in run.agent.context.config.alerts.targets] == ["phone"], "taken up"
        assert run.ended(run.ask("edit", ("set", "alerts.targets.phone=off"))).state is ControlState.DONE
        assert load_config(run.loaded.path).config.alerts.targets == []


def test_edit_without_a_change__confirms_none_made_by_hand(chain: LocalChain, tmp_path: Path) -> None:
    """Who can write the config, and may ask for controls, has no key and no terminal."""
    with controlled_run(chain, tmp_path, LEVEL, offers=True, limits__payout_per_day="1000") as run:
        confirmed = run.store.configs.confirmed_digest()
        stolen = run.loaded.path.read_text().replace('payout_per_day = "1000"', 'payout_per_day = "off"')
        assert stolen != run.loaded.path.read_text()
        run.loaded.path.write_text(stolen)
        for same in (("target", "WETH=50%"), ("target", "WETH=50.0%"), ("target", "WETH=0.5"), ("set", "policy.cooldown=0m")):
            with raises_code(Refused, "unchanged"):
                run.shown("edit", same)
        assert run.store.configs.confirmed_digest() == confirmed


def test_edit_that_permits_more__is_refused_when_shown_and_done(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL, offers=True, limits__slippage="0.3%") as run:
        text = run.loaded.path.read_text()
        with raises_code(Refused, "widens"):
            run.shown("edit", ("set", "limits.slippage=1%"))
        with pytest.raises(Refused, match="would halt"):  # it would sell at once, and its transition does not show that
            run.shown("edit", ("set", "portfolio.assets.WETH.stop_loss=9999999"))
        with pytest.raises(Refused, match=r"stop_loss of WETH: at 20\.0000 USDC, 99\.\d+ % below the present price.*20%"):
            run.shown("edit", ("set", "portfolio.assets.WETH.stop_loss=20"))
        edit_document = run.ask("edit", ("set", "limits.turnover=25%"))
        loose = text.replace('turnover = "off"', 'turnover = "20%"', 1)
        assert loose != text
        run.loaded.path.write_text(loose)
        record = run.ended(edit_document)
        assert (record.state, record.code) == (ControlState.REFUSED, "widens"), record


def test_stop_loss__fires_whatever_a_control_has_tightened(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL, portfolio__assets__0__stop_loss="10%") as run:
        run.look()
        for change in ("limits.gas_price=1 wei", "limits.slippage=0%", "limits.native_floor=9", "portfolio.assets.WETH.reserve=1000",
                       "portfolio.assets.WETH.stop_loss=90%"):  # fmt: skip
            with raises_code(Refused, "widens"):
                run.shown("edit", ("set", change))
        tighter = [("set", f"limits.{key}") for key in ("turnover=1%", "daily_turnover=1%", "balance_jump=1bps", "payout_per_day=1")]
        record = run.ended(run.ask("edit", *tighter))
        assert record.state is ControlState.DONE, record.reason
        again_looser = run.ended(run.ask("edit", ("set", "limits.turnover=100%"), ("set", "limits.payout_per_day=900")))
        assert again_looser.state is ControlState.DONE, "what a control did, a control undoes"
        with raises_code(Refused, "widens"):
            run.shown("edit", ("set", "limits.payout_per_day=999999"))
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(8, 10)})
        chain.mine(3)
        outcome = run.look()
        assert isinstance(outcome, StepOutcome), outcome
        assert outcome.kind is OutcomeKind.DONE, outcome
        assert purse(chain).raw["WETH"] < 1_000


def test_a_stop_ends_the_run(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(anvil_chain, tmp_path, LEVEL) as run:
        stop_document = run.ask("stop")
        assert run.look() is None
        record = run.store.controls.find(stop_document.id)
        assert record is not None, record
        assert record.state is ControlState.DONE, record
        assert run.store.requests.active_stop() is not None


def test_stop_that_could_not_be_taken__is_done_by_the_next_look(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """The store is locked for a moment: a stop that was never begun is no repetition."""

    def is_locked(*_: object) -> bool:
        raise PassingFault("store: cannot take a control: database is locked")

    with controlled_run(anvil_chain, tmp_path, LEVEL) as run:
        stop_document = run.ask("stop")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ControlStore, "take", is_locked)
            with pytest.raises(PassingFault, match="locked"):
                run.look()
        assert run.look() is None
        record = run.store.controls.find(stop_document.id)
        assert record is not None
        assert record.state is ControlState.DONE, record
        assert run.store.requests.active_stop() is not None


@pytest.mark.parametrize("why", ["its sales differ from those shown", "the chain cannot be read"])
def test_stop_that_differs_from_its_plan__stops_all_the_same(chain: LocalChain, tmp_path: Path, why: str) -> None:
    """The owner wants no more trades, so the run neither sells another set of tokens nor trades on."""
    is_down = False

    def answer(method: str, params: list[object], preview: object) -> object:
        if is_down:
            raise Retryable("the endpoint is down")
        return preview

    fund(chain, LEVEL)
    loaded = trusted_config(chain, tmp_path, CHANGES, TARGETS)
    with reopened_agent(chain, loaded, [RecordingTransport(chain.transport, "local", answer)]) as agent:
        run = ControlledRun(chain, loaded, agent)
        stop_document = run.ask("stop", ("to-stable", "yes"))
        if why == "the chain cannot be read":
            is_down = True
        else:
            fund(chain, {**LEVEL, "WBTC": 0})
        run.look()
        is_down = False
        fund(chain, DRIFTED)
        before = purse(chain)
        record = run.store.controls.find(stop_document.id)
        assert record is not None, record
        assert record.state in (ControlState.REFUSED, ControlState.FAILED), record
        assert run.store.requests.active_stop() is not None or agent.context.kill_switch.is_paused()
        assert "stopped" in record.reason or "paused" in record.reason, record.reason
        run.look()
        assert purse(chain).raw == before.raw


@pytest.mark.slow
def test_a_stop_sells_and_pays_everything_as_shown(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL, limits__payout_per_day="off") as run:
        document = run.shown("stop", ("to-stable", "yes"), ("send-to", HOME))["document"]
        total = document["sales_total"]
        sales = document["sales"]
        assert len(sales) > 1
        for key, parts in (("cost", [sale["cost"]["total"] for sale in sales]), ("worst_case", [sale["worst_case"] for sale in sales])):
            assert abs(Fraction(total[key]) - sum(map(Fraction, parts))) < Fraction(len(sales), 10**6), "each is rounded"
        assert total["weights_after_bps"]["USDC"] > 9_990, "of all sales, not of the first"
        stop_document = run.ask("stop", ("to-stable", "yes"), ("send-to", HOME))
        assert run.look() is None
        record = run.store.controls.find(stop_document.id)
        assert record is not None, record
        assert record.state is ControlState.DONE, record
        assert chain.balance("USDC", HOME) > 9_800 * 10**6
        assert chain.balance("WETH") == 0


@pytest.mark.slow
def test_exits_are_offered_and_confirmed_one_by_one(chain: LocalChain, tmp_path: Path) -> None:
    stops = {"portfolio__assets__0__stop_loss": "10%", "portfolio__assets__1__stop_loss": "10%", "limits__price_impact": "2%"}
    with controlled_run(chain, tmp_path, LEVEL, offers=True, **stops) as run:
        run.look()
        prices = chain.deployed_world.prices_usd
        chain.move_market({"WETH": prices["WETH"] * 8 / 10, "WBTC": prices["WBTC"] * 8 / 10})
        offered = []
        for symbol in ("WETH", "WBTC"):
            run.look()
            shown_plan_document = run.shown("confirm")
            run.look()
            assert run.shown("confirm") == shown_plan_document, "what follows an exit does not take its place"
            offered.append(shown_plan_document)
            record = run.ended(run.ask("confirm", plan=shown_plan_document["plan_hash"]))
            assert record.state is ControlState.DONE, record
            assert chain.balance(symbol) == 0
        assert chain.balance("WETH") == chain.balance("WBTC") == 0


# --- What is not carried out.


ALTERED = (
    {"arguments_json": f'[["amount", "900"], ["to", "{HOME}"]]'}, {"expires_s": 2**40}, {"asked_by": "another"}, {"seal": "0" * 64},
    {"kind": "stop"}, {"plan_hash": "1" * 64}, {"kind": "dance"}, {"arguments_json": "{"}, {"origin": "cli"},
)  # fmt: skip


def test_an_altered_entry_is_refused(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        for number, changes in enumerate(ALTERED):
            withdraw_document = run.ask("withdraw", ("amount", f"{500 + number}"), ("to", HOME))
            with run.store.db.write("alter") as db:
                db.execute(update(ControlRow).where(ControlRow.id == withdraw_document.id).values(**changes))
        before = purse(chain)
        run.look()
        ends = [event for event in run.store.controls.events() if event.state == "refused"]
        assert [event.code for event in ends] == ["seal"] * len(ALTERED)
        assert not run.store.controls.has_queued()
        assert purse(chain) == before
        assert chain.balance("USDC", HOME) == 0


def test_an_entry_of_another_installation_is_refused(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(anvil_chain, tmp_path, LEVEL) as run:
        resume_document = run.ask("resume")
        (tmp_path / "trimtab.db.secret").unlink()
        assert run.ended(resume_document).code == "seal"


def test_expired_and_wrongly_dated_entries_are_not_carried_out(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(anvil_chain, tmp_path, LEVEL) as run:
        run.look()
        now_s = run.chain.now_s()
        for asked_s, state, code in (
            (now_s - 301, ControlState.EXPIRED, "expired"),
            (now_s + 3_600, ControlState.REFUSED, "clock"),
        ):
            request = ControlSubmission(ControlKind.RESUME, (), "owner", ControlOrigin.API)
            control = queue.submit_control(run.loaded.path, request, now=lambda at=asked_s: at)  # type: ignore[misc]
            record = run.ended(control)
            assert (record.state, record.code) == (state, code)


def test_a_clock_that_was_set_back_carries_out_nothing(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        run.look()
        resume_document = run.ask("resume")

        run.agent.context = replace(run.agent.context, clock=chain_clock(chain, -100))
        record = run.ended(resume_document)
        assert (record.state, record.code) == (ControlState.REFUSED, "clock"), record


def test_rows_from_the_future__block_no_control(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(anvil_chain, tmp_path, LEVEL) as run:
        run.look()
        with closing(sqlite3.connect(tmp_path / "trimtab.db", isolation_level=None)) as file:
            file.execute(
                "INSERT INTO control_log (control_id, kind, origin, asked_by, state, code, reason, at_s)"
                " VALUES ('x', 'resume', 'api', 'x', 'done', '', '', 4102444800)"
            )
            file.execute("INSERT INTO steps (id, now_s, input_z) VALUES ('future', 4102444800, x'')")
        assert run.ended(run.ask("resume")).state is ControlState.DONE
        checks = {row["check"]: row for row in doctor(run.loaded, [run.chain.transport], run.chain.clock.now_s)["checks"]}
        assert "1 of 4 rows are not sealed" in checks["control_log"]["finding"]
        assert "transitions" not in checks


def test_a_replayed_entry_is_refused(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        withdraw_document = run.ask("withdraw", ("amount", "100"), ("to", HOME))
        assert run.ended(withdraw_document).state is ControlState.DONE
        for runner in (run.runner, ControlRunner(run.agent, transports=[chain.transport])):
            run.runner = runner
            with run.store.db.write("replay") as db:
                db.execute(update(ControlRow).values(state="queued"))
            assert run.ended(withdraw_document).code == "replayed"
        with run.store.db.write("replay without a log") as db:  # as whoever may write the file could; this run remembers
            db.exec_driver_sql("DROP TRIGGER control_log_no_delete")
            db.exec_driver_sql("DELETE FROM control_log")
            db.execute(update(ControlRow).values(state="queued"))
        assert run.ended(withdraw_document).code == "replayed"
        assert chain.balance("USDC", HOME) == 100 * 10**6


@pytest.mark.slow
def test_flood_of_forged_entries__hides_no_genuine_one(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        rows = [
            {
                "id": f"{number:032x}", "kind": "withdraw", "arguments_json": "[]", "plan_hash": "", "asked_by": "x", "origin": "api",
                "asked_s": 0, "expires_s": 2**40, "seal": "", "state": "queued", "code": "", "reason": "", "result_json": "[]",
                "changed_s": 0,
            }
            for number in range(10_000)
        ]  # fmt: skip
        with run.store.db.write("flood") as db:
            db.execute(ControlRow.__table__.insert(), rows)  # type: ignore[attr-defined]  # a table
        with raises_code(Refused, "queue_full"):
            run.ask("resume")
        run.ask("pause")
        assert run.agent.context.kill_switch.is_paused(), "a pause needs no queue"
        run.look()
        assert not run.store.controls.has_queued()
        assert len(run.store.controls.events(limit=20_000)) == 10_001
        chain.warp(1)  # a pause of the same second would refuse the resume
        assert run.ended(run.ask("resume")).state is ControlState.DONE


@pytest.mark.slow
def test_many_controls_leave_room_for_cycles(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(anvil_chain, tmp_path, LEVEL) as run:
        for _ in range(MAX_CONTROLS_PER_CYCLE + 1):
            run.ask("resume")
        run.look()
        assert len(run.store.controls.queued_controls()) == 1
        run.look()
        assert not run.store.controls.has_queued()


# --- A process that ends in the middle.


@pytest.mark.parametrize(
    ("moment", "state", "code"),
    [
        pytest.param("before:take a control", ControlState.DONE, "", marks=pytest.mark.slow, id="before it is taken"),
        pytest.param("inside:take a control", ControlState.DONE, "", marks=pytest.mark.slow, id="while it is taken"),
        pytest.param("after:take a control", ControlState.FAILED, "interrupted", id="taken"),
        pytest.param("before:send", ControlState.FAILED, "interrupted", marks=pytest.mark.slow, id="before the send"),
        pytest.param("after:send", ControlState.FAILED, "interrupted", id="sent"),
        pytest.param("before:finish a control", ControlState.FAILED, "interrupted", marks=pytest.mark.slow, id="before it is finished"),
        pytest.param("inside:finish a control", ControlState.FAILED, "interrupted", marks=pytest.mark.slow, id="while it is finished"),
        pytest.param("after:finish a control", ControlState.DONE, "", marks=pytest.mark.slow, id="finished"),
    ],
)  # fmt: skip
def test_a_killed_run_neither_loses_nor_repeats_a_control(
    chain: LocalChain, tmp_path: Path, moment: str, state: ControlState, code: str
) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        withdraw_document = run.ask("withdraw", ("amount", "100"), ("to", HOME))
        loaded = run.loaded
    assert in_child(lambda: die_in_cycle(chain, loaded, moment)) == -signal.SIGKILL
    with reopened_agent(chain, loaded) as agent:
        run = ControlledRun(chain, loaded, agent)
        record = run.ended(withdraw_document)
        assert (record.state, record.code) == (state, code), record
        begun = [str(request.id) for request in run.store.requests.newest() if request.payments]
        assert result(record, "request") == begun, "an interrupted withdrawal is named, to be resumed"
        run.look()
        payouts = [intent for intent in run.store.journal.intents(limit=100) if intent.kind is IntentKind.PAYOUT and intent.succeeded]
        paid = chain.balance("USDC", HOME)
        assert paid == 100 * 10**6 * len(payouts)
        assert len(payouts) <= 1
        assert paid or code == "interrupted"


# --- Several runs, and an unreadable secret.


def test_a_single_cycle_takes_controls_unless_a_run_serves(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        resume_document = run.ask("resume")
        with service_lock(wiring.wallet_locks(run.loaded)):
            run.look(once=True)
            assert run.store.controls.has_queued()
            assert queue.is_served(run.loaded)
        run.look(once=True)
        record = run.store.controls.find(resume_document.id)
        assert record is not None
        assert record.state is ControlState.DONE


def test_run_without_its_secret__goes_on_and_refuses_controls(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(anvil_chain, tmp_path, LEVEL) as run:
        resume_document = run.ask("resume")
        (tmp_path / "trimtab.db.secret").chmod(0o644)
        assert run.ended(resume_document).code == "seal"
        assert run.look().kind is OutcomeKind.HOLD


def test_control_that_waits_too_long__confirms_nothing(chain: LocalChain, tmp_path: Path) -> None:
    with controlled_run(chain, tmp_path, LEVEL) as run:
        shown_plan_document = run.shown("withdraw", ("amount", "100"), ("to", HOME))
        request = ControlSubmission(
            ControlKind.WITHDRAW,
            (("amount", "100"), ("to", HOME)),
            "owner",
            ControlOrigin.API,
            shown_plan_document["plan_hash"],
            lifetime_s=20,
        )
        control = queue.submit_control(run.loaded.path, request, now=chain.now_s)
        clock = chain_clock(chain)
        run.agent.context = replace(run.agent.context, clock=clock)
        with heard(lambda moment: clock.advance(30) if moment.startswith("after:take a control") else None):
            record = run.ended(control)
        assert (record.state, record.code) == (ControlState.EXPIRED, "expired"), record
        assert chain.balance("USDC", HOME) == 0
