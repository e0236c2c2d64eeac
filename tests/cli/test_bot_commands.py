"""invest, withdraw, edit, stop, revoke and rehearse as a user gives them: dry unless told, one document, exit codes, questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.app.money import revocation
from agent.chain.rpc import Transport
from agent.cli.display.tables import cost_text
from agent.wiring import transactor
from tests.cli.tools import Desk, at_terminal, attach
from tests.support.agents import OTHER, allow
from tests.support.constants import HOME
from tests.support.on_chain.refusing_tokens import refusing_token
from tests.support.text import mentions


@pytest.fixture
def home(desk: Desk) -> Desk:
    """A desk whose owner has confirmed where money may go."""
    desk.edit(("payout_addresses = []", f'payout_addresses = ["{HOME}"]'))
    return desk


def test_withdrawal__is_dry_then_paid_to_a_confirmed_address(home: Desk) -> None:
    chain = attach(home)
    before = home.holdings()
    refused = home.ask("withdraw", "250.5", "--to", HOME, want=10)
    assert [v["guard"] for v in refused["verdicts"] if not v["passed"]] == ["payout_address"]
    assert mentions(home.run("withdraw", "250.5", "--to", HOME).out, "wallet.payout_addresses", "trimtab edit", "trimtab trust")
    text = " ".join(home.run("withdraw", "250.5", "--to", HOME, "--send", "--yes").err.split())
    assert f"Refused: payout_address: {HOME} is not a confirmed payout address" in text
    trusted = home.ask("trust", "--yes")
    trusted_text = home.run("trust", "--yes").err
    assert f"{len(trusted['contracts']) - 1} contracts are pinned; payout addresses confirmed: 1." in trusted_text
    assert [(row["role"], row["address"]) for row in trusted["contracts"] if row["role"] == "payout address"] == [("payout address", HOME)]
    planned = home.ask("withdraw", "250.5", "--to", HOME)
    assert (planned["state"], planned["sale"], home.holdings()) == ("planned", None, before)
    assert "Dry run: nothing was sent. Add --send to pay." in home.run("withdraw", "250.5", "--to", HOME).out
    assert "--send to" in home.run("withdraw", "250.5").out
    done = home.ask("withdraw", "250.5", "--to", HOME, "--send", "--yes")
    assert (done["state"], [transaction["kind"] for transaction in done["transactions"]]) == ("paid", ["payout"])
    assert chain.balance("USDC", HOME) == 250_500_000 == int(before["USDC"]) - int(home.holdings()["USDC"])
    listed = home.ask("withdraw")["withdrawals"]
    assert [(row["state"], row["to"], row["payments"][0]["amount"]) for row in listed] == [("done", HOME, "250.5")]
    explained = home.ask("explain", home.ask("history")["steps"][0]["step"])
    assert any("pay 250.5 USDC" in line for line in explained["sentences"])


def test_bad_withdrawals_are_refused_by_name_and_a_no_is_a_no(home: Desk) -> None:
    home.run("trust", "--yes")
    more = home.ask("withdraw", "100000000", "--to", HOME, want=10)["error"]
    assert more["verdicts"][0]["guard"] == "holdings"
    assert "99989800 USDC" in more["message"]
    for args, why in (
        (("0",), "AMOUNT must be above 0"),
        (("ten",), "AMOUNT"),
        (("1", "--in", "DOGE"), "not a configured token"),
        (("1", "--in", "USDC", "--pro-rata"), "cannot be combined"),
        (("1", "--resume", "7"), "cannot be combined"),
        (("--send", "--yes"), "AMOUNT is missing"),
        (("--to", HOME, "--send", "--yes"), "AMOUNT is missing"),
        (("--release", "7", "--to", HOME), "AMOUNT is missing"),
        (("--in", "WETH", "--send", "--yes"), "need an AMOUNT"),
        (("--resume", "7", "--pro-rata"), "need an AMOUNT"),
        (("--resume", "7", "--again"), "need an AMOUNT"),
    ):
        assert why in home.ask("withdraw", *args, want=2)["error"]["message"], args
    assert "confirmation" in home.ask("withdraw", "1", "--to", HOME, "--send", want=2)["error"]["message"]
    code, screen = at_terminal(home, "n\n", "withdraw", "25", "--to", HOME, "--send")
    assert code == 10
    assert "Withdraw this?" in screen
    assert HOME in screen
    assert "declined" in screen
    assert home.ask("withdraw")["withdrawals"] == []


def test_payment_awaiting_confirmations__is_a_success(home: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that repeats a command until its exit code is 0 pays once. No command waits for blocks that do not come."""
    settings = transactor.submission_settings
    monkeypatch.setattr(transactor, "submission_settings", lambda *args: replace(settings(*args), final_timeout_s=0))
    chain = attach(home)
    home.edit(("confirmations = 1", "confirmations = 64"))
    home.run("trust", "--yes")
    command = ("withdraw", "250", "--to", HOME, "--send")
    assert home.ask(*command, "--yes", want=0)["state"] == "waiting"
    refused = home.ask(*command, "--yes", want=10)["error"]
    assert (refused["code"], "--resume 1" in refused["remedy"], "--again" in refused["remedy"]) == ("repeated_payment", True, True)
    assert home.ask(*command[:-1])["repeats"].startswith("withdrawal 1 is open and pays the same, already paid in 0x")
    code, screen = at_terminal(home, "n\n", *command)
    assert code == 10
    assert "Withdraw this a second time?" in screen
    assert chain.balance("USDC", HOME) == 250_000_000
    assert home.ask(*command, "--yes", "--again", want=0)["state"] == "waiting"
    assert chain.balance("USDC", HOME) == 500_000_000


def test_what_is_set_aside_is_listed_and_released(desk: Desk) -> None:
    withdraw_document = desk.ask("withdraw", "100", "--send", "--yes")
    assert (withdraw_document["state"], withdraw_document["to"]) == ("reserved", None)
    assert desk.ask("withdraw", "--release", str(withdraw_document["request"]))["withdrawals"][0]["state"] == "released"


def test_a_deposit_is_shown_then_invested(desk: Desk) -> None:
    chain = attach(desk)
    nothing = desk.ask("invest")
    assert (nothing["deposits"], nothing["outcome"]) == ([], "nothing came")
    chain.set_balance("USDC", chain.balance("USDC") + 5_000_000_000)
    planned = desk.ask("invest")
    assert (planned["outcome"], planned["recorded"], planned["deposits"][0]["delta_raw"]) == ("planned", False, "5000000000")
    done = desk.ask("invest", "--send", "--yes")
    assert (done["outcome"], done["recorded"]) == ("done", True)
    assert desk.ask("flows")["halts"] == ""


def test_edit__is_shown_unasked_written_on_a_yes_and_listed(desk: Desk) -> None:
    text_before = desk.config.read_text()
    edit_document = desk.ask("edit", "--set", "policy.cooldown=2h", want=2)
    assert (edit_document["state"], edit_document["changes"]) == ("planned", ['- policy.cooldown = "10s"', '+ policy.cooldown = "2h"'])
    assert desk.config.read_text() == text_before
    code, screen = at_terminal(desk, "y\n", "edit", "--set", "policy.cooldown=2h")
    assert code == 0
    assert "Write this?" in screen
    assert "Written" in screen
    assert 'cooldown = "2h"' in desk.config.read_text()
    listed = desk.ask("history", "--configs")
    assert [config["how"] for config in listed["configs"]] == ["edit", "first"]
    assert listed["confirmed"] == listed["present"]
    assert "from its next cycle" in " ".join(screen.split())
    assert edit_document["restart"] == []
    history_document = desk.ask("history", "--config-version", str(listed["configs"][0]["number"]))
    assert history_document["changes"] == edit_document["changes"]
    assert "(secret " in history_document["text"]
    assert "sum to" in desk.ask("edit", "--target", "WETH=99%", "--yes", want=2)["error"]["message"]
    assert "no change" in desk.ask("edit", want=2)["error"]["message"]
    assert "secret" in desk.ask("edit", "--set", "chain.rpc.0.url=https://x.example/canary7f3a", want=2)["error"]["message"]


@pytest.mark.slow
def test_an_edit_tells_that_a_run_must_be_started_again(desk: Desk) -> None:
    """`tests/cases/test_editing.py` has the run that ends."""
    payee = f'wallet.payout_addresses=["{OTHER}"]'
    assert desk.ask("edit", "--set", payee, want=2)["restart"] == ["[wallet]"]
    code, text = at_terminal(desk, "y\n", "edit", "--set", payee)
    text = " ".join(text.split())
    assert code == 0
    assert "next cycle" not in text
    assert mentions(text, "Written", f"start a running trimtab run --config {desk.config} again", "[wallet]")
    desk.edit(('deadline = "90s"', 'deadline = "80s"'))
    assert desk.ask("edit", "--confirm", want=2)["restart"] == ["[execution]"]
    assert "next cycle" not in " ".join(at_terminal(desk, "y\n", "edit", "--confirm")[1].split())


@pytest.mark.slow
def test_asset__leaves_by_one_command_and_returns_at_a_question(desk: Desk) -> None:
    """What a yes to --add would price and pin stands above its question."""
    link = desk.about["tokens"]["LINK"]
    out = ("edit", "--remove", "LINK", "--target", "WETH=40%")
    back = ("edit", "--add", f"LINK={link}:10%", "--target", "WETH=30%")
    assert desk.ask(*out, want=2)["state"] == "planned"
    assert float(desk.holdings()["LINK"]) > 0
    assert mentions(desk.ask("edit", "--set", "policy.cooldown=2h", "--send", want=2)["error"]["message"], "--send", "--remove")
    done = desk.ask(*out, "--send", "--yes")
    assert (done["state"], done["reason"], float(desk.holdings().get("LINK", "0"))) == ("removed", "", 0)
    assert {"swap"} <= {transaction["kind"] for transaction in done["transactions"]}
    assert link not in desk.config.read_text()
    before = desk.config.read_text()
    code, screen = at_terminal(desk, "n\n", *back)
    text = " ".join(screen.split())
    assert code == 10
    assert desk.config.read_text() == before
    above = text[: text.index("Write this?")]
    assert "Contracts of" in above
    assert mentions(above, "LINK", "priced")
    assert "LINK was" in above
    assert link in above
    code, screen = at_terminal(desk, "y\n", *back)
    assert code == 0
    assert "Written" in screen
    assert link in desk.config.read_text()


def test_a_level_is_set_by_a_number_and_its_meaning_is_told(desk: Desk) -> None:
    edit_document = desk.ask("edit", "--set", "portfolio.assets.WETH.stop_loss=25", want=2)
    assert edit_document["state"] == "planned"
    assert mentions(edit_document["warnings"], "WETH stop_loss", "25", "USDC", '"25%"')
    assert desk.ask("edit", "--set", "portfolio.assets.WETH.stop_loss=25%", "--yes")["state"] == "written"
    later = desk.ask("edit", "--set", "portfolio.assets.WETH.take_profit=50%", want=2)
    assert not any("stop_loss" in line for line in later["warnings"])


@pytest.mark.slow
def test_mistaken_editor__changes_nothing_and_a_hand_edit_asks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/cooldown/cooldwon/")
    code, screen = at_terminal(desk, "y\n", "edit")
    assert code == 2
    assert "unknown key" in screen
    assert "cooldwon" not in desk.config.read_text()
    assert desk.ask("edit", "--set", "limits.min_trade=11", "--yes")["state"] == "written"
    desk.edit(('slippage = "0.3%"', 'slippage = "0.2%"'))
    confirmed = desk.ask("edit", "--confirm", "--yes")
    assert (confirmed["state"], confirmed["backup"]) == ("written", None)
    assert confirmed["changes"] == ['- limits.slippage = "0.3%"', '+ limits.slippage = "0.2%"']
    assert [config["how"] for config in desk.ask("history", "--configs")["configs"]] == ["confirmed", "edit", "first"]


@pytest.mark.slow
def test_editor__has_the_terminal_to_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = desk.config.parent / "editor"
    editor.write_text("#!/bin/sh\necho opened\nsleep 1\necho closed\n")
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))
    code, screen = at_terminal(desk, "", "edit")
    assert code == 0, screen
    assert screen.split("opened")[1].split("closed")[0].strip() == ""
    assert "Nothing changes." in screen


def test_profit_knows_a_withdrawal_as_soon_as_it_is_paid(home: Desk) -> None:
    home.run("trust", "--yes")
    assert home.ask("rebalance", "--send", "--yes")["outcome"] == "done"
    assert home.ask("withdraw", "50", "--to", HOME, "--send", "--yes")["state"] == "paid"
    profit = home.ask("pnl")
    assert profit["periods"][-1]["withdrawals"] == "50"
    assert profit["not_final"] == 0
    assert profit["reserved"] == "0"


@pytest.mark.slow
def test_resume_after_a_full_sale__asks_nobody_unattended(home: Desk) -> None:
    home.run("trust", "--yes")
    home.edit(('max_live_value = "100000"', 'max_live_value = "off"'))
    assert home.ask("stop", "--to-stable", "--send", "--yes")["state"] == "stopped"
    assert "a confirmation is needed" in home.ask("resume", want=2)["error"]["message"]
    assert home.ask("status")["decision"]["kind"] == "halt"


def test_a_bot_is_stopped_sold_paid_out_and_resumed(home: Desk) -> None:
    chain = attach(home)
    home.run("trust", "--yes")
    home.edit(('max_live_value = "100000"', 'max_live_value = "off"'))
    looked = home.ask("stop", "--to-stable", "--send-to", HOME, want=0)
    assert looked["state"] == "planned"
    assert looked["sale"]["legs"]
    assert [payment["symbol"] for payment in looked["payments"]] == ["USDC"]
    shown = home.run("stop", "--to-stable", "--send-to", HOME).out
    assert f"All {len(looked['sales'])} sales: cost {cost_text(looked['sales_total']['cost'])} USDC, worst case " in shown
    assert len(looked["sales"]) > 1
    shown_words = " ".join(shown.split())
    assert "weights after them: WETH 0.00 %, WBTC 0.00 %, USDC 100.00 %" in shown_words
    assert "Weights after:" not in shown_words, "each sale is planned as if the others were not made"
    assert "Add --send to stop the bot." in shown
    done = home.ask("stop", "--to-stable", "--send-to", HOME, "--send", "--yes")
    assert done["state"] == "stopped", done["reason"]
    again = " ".join(home.run("stop").out.split())
    assert "It is stopped, and nothing is left to do. trimtab resume" in again
    assert "Add --send" not in again
    assert done["transactions"][-1]["kind"] == "payout", done["reason"]
    assert chain.balance("USDC", HOME) > 10**9
    assert chain.balance("USDC") < 10**6
    for command in (("rebalance", "--send", "--yes"), ("run", "--once", "--send", "--yes")):
        assert home.run(*command, "--json").code == 10, command
    code, screen = at_terminal(home, "n\n", "resume")
    assert code == 10
    assert "buys back towards the targets" in screen
    assert home.run("run", "--once", "--send", "--yes").code == 10
    assert home.run("resume", "--yes").code == 0
    assert home.ask("status")["decision"]["reason"].find("stopped") == -1


def test_stop_that_leaves_an_asset__says_so_by_its_exit_code(desk: Desk) -> None:
    desk.run("trust", "--yes")
    (plan_cost,) = [line for line in desk.config.read_text().splitlines() if line.startswith("plan_cost =")]
    desk.edit(('max_live_value = "100000"', 'max_live_value = "off"'), (plan_cost, 'plan_cost = "1bps"'))
    stopped = desk.ask("stop", "--to-stable", "--send", "--yes", want=10)
    assert (stopped["state"], stopped["unrevoked"]) == ("stopped", "")
    assert mentions(stopped["unsold"], "WETH stays", "plan_cost")


def test_stop_that_leaves_an_allowance__says_so_by_its_exit_code(desk: Desk) -> None:
    chain = attach(desk)
    call_weth = refusing_token(chain, "WETH")
    allow(chain, "WETH", raw=5)
    desk.run("trust", "--yes")
    desk.run("adopt", "--yes")
    call_weth("refuseApprovals", 1, 0)
    stopped = desk.ask("stop", "--send", "--yes", want=10)
    assert (stopped["state"], stopped["unsold"]) == ("stopped", "")
    assert mentions(stopped["unrevoked"], "WETH")


def test_what_may_be_taken_is_listed_and_taken_back(desk: Desk) -> None:
    assert desk.ask("revoke")["state"] == "clear"
    chain = attach(desk)
    chain.send(chain.token_contract("WETH").functions.approve(chain.addresses.swap_router_02, 5), chain.wallet.address, gas=100_000)
    desk.run("adopt", "--yes")
    revoke_document = desk.ask("revoke", "WETH")
    assert (revoke_document["state"], [(allowance["symbol"], allowance["raw"]) for allowance in revoke_document["allowances"]]) == (
        "planned",
        [("WETH", "5")],
    )
    assert desk.ask("revoke", "DOGE", want=2)["error"]["kind"] == "ConfigError"
    assert desk.ask("revoke", "--send", "--yes")["state"] == "revoked"


def test_revoke__allowances_that_cannot_be_read__are_not_clear(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_allowances(_transport: object, _owner: str, token_spenders: Sequence[tuple[str, str]]) -> tuple[int | None, ...]:
        return (None, *[0] * (len(token_spenders) - 1))

    monkeypatch.setattr(revocation, "read_allowances", read_allowances)
    document = desk.ask("revoke", "USDC", "--send", "--yes", want=11)
    assert (document["state"], document["reason"], document["transactions"]) == ("unknown", "cannot be read: USDC for the Permit2", [])
    assert "No open allowances" not in desk.run("revoke", "USDC").out


def test_revoke__allowance_unread_after_sending__is_a_failure(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = attach(desk)
    chain.send(chain.token_contract("WETH").functions.approve(chain.addresses.swap_router_02, 5), chain.wallet.address, gas=100_000)
    desk.run("adopt", "--yes")
    read_real = revocation.read_allowances
    readings = []

    def read_allowances(transport: Transport, owner: str, token_spenders: Sequence[tuple[str, str]]) -> tuple[int | None, ...]:
        readings.append(read_real(transport, owner, token_spenders))
        is_after_sending = len(readings) == 3
        open_before = readings[0]
        return tuple(None if is_after_sending and raw else readings[-1][index] for index, raw in enumerate(open_before))

    monkeypatch.setattr(revocation, "read_allowances", read_allowances)
    document = desk.ask("revoke", "WETH", "--send", "--yes", want=11)
    assert (document["state"], len(document["transactions"])) == ("failed", 1)
    assert document["reason"] == "the router may still spend WETH: the allowance cannot be read"
    assert desk.ask("history")["steps"][0]["outcome"] == "failed"


def test_a_rehearsal_trades_there_and_back(desk: Desk) -> None:
    done = desk.ask("rehearse", "--send", "--yes")
    assert (done["state"], len(done["legs"])) == ("done", 2), done["verdict"]
    assert all(leg["predicted_raw"] == leg["realised_raw"] for leg in done["legs"])
