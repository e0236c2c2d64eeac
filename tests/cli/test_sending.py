"""What moves money: only --send, only after a yes, only as the guards allow, only by one process and the right key."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from eth_account import Account

from agent.config.tables.limits import LimitsTable
from tests.cli.conftest import AT_ONCE
from tests.cli.tools import STORE_ENDINGS, Desk, at_terminal
from tests.support.commands.sending import PASSWORD, WALLET_KEY, nonce, process_with_lock
from tests.support.text import mentions


def test_rebalance__sends_approvals_then_one_transaction(desk: Desk) -> None:
    """By the config as `trimtab localchain` writes it."""
    desk.edit(AT_ONCE[::-1])
    before = nonce(desk)
    done = desk.ask("rebalance", "--send", "--yes")
    assert done["outcome"] == "done"
    kinds = [sent["kind"] for sent in done["transactions"]]
    assert (kinds[0], kinds.count("swap"), set(kinds)) == ("approve", 1, {"approve", "swap"}), (
        "what stays approved is taken back at the end"
    )
    assert [sent["nonce"] for sent in done["transactions"]] == list(range(before, before + len(kinds)))
    assert {sent["status"] for sent in done["transactions"]} == {"final"}
    assert all(item["planned_raw"] == item["realised_raw"] for item in done["realised"])
    status = desk.ask("status")
    assert {item["symbol"]: item["weight_bps"] for item in status["holdings"]} == done["weights_after_bps"]
    assert status["decision"]["kind"] == "hold"
    for item in status["holdings"]:
        low, high = item["band_bps"]
        assert low <= item["weight_bps"] <= high
    again = desk.ask("rebalance", "--send", "--yes")
    assert (again["outcome"], again["transactions"]) == ("hold", [])


@pytest.mark.slow
def test_the_words_of_a_rebalance_tell_what_was_sent(desk: Desk) -> None:
    result = desk.run("rebalance", "--send", "--yes")
    assert result.code == 0
    for word in ("Transactions", "approve", "swap", "final", "Planned against realised", "done:"):
        assert word in result.out


def test_hints_of_another_config__act_on_it_when_typed_as_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = desk.config.parent
    own_config = folder / "my own" / "trimtab.toml"
    own_config.parent.mkdir()
    for name in ("trimtab.toml", *(f"trimtab.db{ending}" for ending in STORE_ENDINGS)):
        if (folder / name).exists():
            shutil.copy(folder / name, own_config.parent)
    monkeypatch.chdir(folder)
    plan = desk.run("plan", "--config", "my own/trimtab.toml")
    hint = re.findall("To send it: (trimtab .*)", plan.out + plan.err)[0]
    assert hint == "trimtab rebalance --config 'my own/trimtab.toml' --send"
    assert "--config" not in desk.run("plan", "--config", "my own/trimtab.toml", "--json").out
    assert desk.run(*shlex.split(hint)[1:], "--yes").code == 0
    assert desk.run("history", "--config", "my own/trimtab.toml", "--json").json["steps"]
    assert desk.ask("history")["steps"] == []


def test_a_swap_by_hand_sells_exactly_its_amount(desk: Desk) -> None:
    before = desk.holdings()
    done = desk.ask("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.25", "--send", "--yes")
    after = desk.holdings()
    assert int(before["WETH"]) - int(after["WETH"]) == 25 * 10**16
    assert int(after["USDC"]) - int(before["USDC"]) == int(next(r for r in done["realised"] if r["symbol"] == "USDC")["realised_raw"])
    assert {s: r for s, r in before.items() if s not in ("WETH", "USDC")} == {s: r for s, r in after.items() if s not in ("WETH", "USDC")}


def test_run_once_sends_like_rebalance(desk: Desk) -> None:
    done = desk.ask("run", "--once", "--send", "--yes")
    assert done["outcome"] == "done"


@pytest.mark.parametrize(
    "command", [("rebalance",), ("run", "--once"), pytest.param(("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.25"), id="swap")]
)
def test_sending_needs_a_yes_or_somebody_to_ask(desk: Desk, command: tuple[str, ...]) -> None:
    before = nonce(desk)
    error = desk.ask(*command, "--send", want=2)["error"]
    assert "confirmation" in error["message"]
    assert "--yes" in error["remedy"]
    assert nonce(desk) == before
    assert desk.ask("history")["steps"] == []


def test_while_paused_nothing_is_sent_and_everything_says_so(desk: Desk) -> None:
    paused = desk.ask("pause", "--reason", "holiday")
    assert paused["paused"] is True
    before = nonce(desk)
    for command in (("rebalance",), ("rebalance", "--send", "--yes"), ("run", "--once", "--send", "--yes")):
        result = desk.run(*command, "--json")
        assert result.code == 10
        failed = [verdict["guard"] for verdict in result.json["verdicts"] if not verdict["passed"]]
        assert failed == ["kill_switch"]
        assert "holiday" in result.out
    assert nonce(desk) == before
    assert desk.ask("status")["paused"] is True
    assert "holiday" in desk.run("status").out
    assert any(row["check"] == "kill switch" and row["state"] == "warn" for row in desk.ask("doctor")["checks"])
    assert desk.ask("resume")["paused"] is False
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"


def test_a_file_beside_the_store_pauses_too(desk: Desk) -> None:
    (desk.config.parent / "trimtab.db.paused").touch()
    assert desk.run("rebalance", "--send", "--yes").code == 10
    assert desk.run("resume").code == 0
    assert desk.run("rebalance", "--send", "--yes").code == 0


def test_a_refused_plan_carries_every_verdict(desk: Desk) -> None:
    desk.edit(('turnover = "30%"', 'turnover = "off"'), ('max_live_value = "100000"', 'max_live_value = "100"'))
    refused = desk.ask("rebalance", "--send", "--yes", want=10)
    assert refused["outcome"] == "refused"
    assert refused["transactions"] == []
    failed = [verdict for verdict in refused["verdicts"] if not verdict["passed"]]
    assert [verdict["guard"] for verdict in failed] == ["max_live_value"]
    row = next(row for row in desk.run("doctor", "--json").json["checks"] if row["check"] == "max_live_value")
    assert row["state"] == "warn"
    assert mentions(row["finding"], "USDC held", "portfolio.max_live_value is 100 USDC")
    words = desk.run("rebalance", "--send", "--yes")
    assert words.code == 10
    assert "refused" in words.out
    assert "max_live_value" in words.out


def test_a_refusal_says_so_once_and_names_no_pool_by_its_address(desk: Desk) -> None:
    desk.edit(('max_live_value = "100000"', 'max_live_value = "100"'))
    output = desk.run("plan").out
    assert "refused: nothing was exchanged: max_live_value measured" in output
    text = desk.config.read_text().replace('max_live_value = "100"', 'max_live_value = "off"')
    desk.config.write_text(text.replace('pool_min_value = "50000"', 'pool_min_value = "100000000"'))
    refused = desk.run("withdraw", "2500", "--in", "USDC")
    assert refused.code == 10
    assert "0x" not in refused.out
    assert re.findall(r"each of \d+ pools: holds less than limits.pool_min_value", refused.out)
    assert refused.out.count("holds less than limits.pool_min_value") == 1
    assert refused.out.rstrip().endswith("refused, for the reason above")


def test_a_withdrawal_names_the_reason_of_its_sale_once(desk: Desk) -> None:
    result = desk.run("withdraw", "2500", "--in", "USDC")
    assert result.code == 0
    assert result.out.count("raise USDC for a withdrawal") == 1


def test_a_refusal_of_the_planner_carries_its_verdicts_too(desk: Desk) -> None:
    desk.edit(('min_trade = "10"', 'min_trade = "900"'), ('turnover = "30%"', 'turnover = "1%"'))
    refused = desk.ask("plan", want=10)
    assert refused["legs"] == []
    assert any(not verdict["passed"] for verdict in refused["verdicts"]), refused["reason"]


def test_what_is_not_worth_its_cost_is_held_with_exit_0(desk: Desk) -> None:
    desk.edit(('plan_cost = "0.5%"', 'plan_cost = "0.01%"'))
    plan_document = desk.ask("plan", want=0)
    assert plan_document["outcome"] == plan_document["decision"]["kind"] == "hold"
    assert "cost" in plan_document["reason"]
    assert "limits.plan_cost" in plan_document["reason"]
    assert not plan_document["verdicts"]


def test_too_little_gas_money_refuses_before_anything_is_sent(desk: Desk) -> None:
    for wei in (0, 4 * 10**16):
        desk.node.set_native(desk.about["wallet"], wei)
        before = nonce(desk)
        refused = desk.ask("rebalance", "--send", "--yes", want=10)
        failed = [verdict["guard"] for verdict in refused["verdicts"] if not verdict["passed"]]
        assert "native_floor" in failed
        assert nonce(desk) == before
    rows = desk.ask("doctor", want=10)["checks"]
    assert [row["check"] for row in rows if row["state"] == "fail"] == ["gas money"]


def test_an_empty_wallet_halts(desk: Desk) -> None:
    desk.edit(("test_account = 0", "test_account = 5"))
    desk.edit((desk.about["wallet"], Account.from_key(bytes(31) + b"\x07").address))
    desk.edit(("sqlite:///trimtab.db", "sqlite:///other.db"))
    status = desk.ask("status")
    assert status["decision"]["kind"] == "halt"
    assert "holds none" in status["decision"]["reason"]
    assert desk.ask("rebalance", want=10)["outcome"] == "halt"
    assert any(mentions(row["finding"], "empty") for row in desk.ask("doctor", want=10)["checks"])


def test_a_second_process_may_look_and_may_not_send(desk: Desk) -> None:
    desk.edit(("[store]", '[service]\nwallet_wait = "1s"\n\n[store]'))
    with process_with_lock(desk) as pid:
        assert desk.run("rebalance", "--json").code == 0
        error = desk.ask("rebalance", "--send", "--yes", want=12)["error"]
        assert str(pid) in error["message"]
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"


def test_wallet_used_elsewhere__needs_a_person_who_adopts_it(desk: Desk) -> None:
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"
    wallet = desk.about["wallet"]
    foreign_hash = desk.node.rpc("eth_sendTransaction", {"from": wallet, "to": wallet})
    desk.node.w3.eth.wait_for_transaction_receipt(foreign_hash, poll_latency=0.01)
    order = ("swap", "--in", "WETH", "--out", "USDC", "--amount", "0.2", "--send", "--yes")
    error = desk.ask(*order, want=12)["error"]
    assert "trimtab adopt" in error["remedy"]
    assert desk.ask("adopt", want=2)["error"]["remedy"].startswith("add --yes")
    code, screen = at_terminal(desk, "n\n", "adopt")
    assert (code, "was adopted" in screen) == (10, True)
    assert desk.run(*order).code == 12
    adopted = desk.ask("adopt", "--yes")
    (transaction,) = adopted["transactions"]
    assert (adopted["nonce"], adopted["released"]) == (nonce(desk), [])
    assert (transaction["nonce"], transaction["hash"], transaction["transfers"]) == (nonce(desk) - 1, foreign_hash, [])
    assert desk.ask(*order)["outcome"] == "done"


def keystore(desk: Desk, key: str, mode: int = 0o600) -> Path:
    """The config gets a keystore with a cheap work factor in place of the test account."""
    path = desk.config.parent / "wallet.json"
    path.write_text(json.dumps(Account.encrypt(key, PASSWORD, kdf="pbkdf2", iterations=1000)))
    path.chmod(mode)
    desk.edit(("test_account = 0", 'keystore = "wallet.json"'))
    return path


def test_a_keystore_opens_with_its_password_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    keystore(desk, WALLET_KEY)
    locked = desk.run("rebalance", "--send", "--yes", "--json")
    assert locked.code == 2
    assert "locked" in locked.error["message"]
    assert "TRIMTAB_KEYSTORE_PASSWORD" in locked.error["remedy"]
    monkeypatch.setenv("TRIMTAB_KEYSTORE_PASSWORD", "wrong-canary")
    wrong = desk.run("rebalance", "--send", "--yes", "--json")
    assert wrong.code == 2
    assert "wrong password" in wrong.error["message"]
    monkeypatch.setenv("TRIMTAB_KEYSTORE_PASSWORD", PASSWORD)
    opened = desk.run("rebalance", "--send", "--yes", "--json")
    assert opened.code == 0
    for result in (locked, wrong, opened):
        for secret in ("canary", WALLET_KEY[2:]):
            assert secret not in result.out + result.err


def test_a_keystore_that_others_can_read_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keystore(desk, WALLET_KEY, 0o644)
    monkeypatch.setenv("TRIMTAB_KEYSTORE_PASSWORD", PASSWORD)
    error = desk.ask("rebalance", "--send", "--yes", want=2)["error"]
    assert "0644" in error["message"]
    assert error["remedy"] == f"run: chmod 600 {path}"
    row = next(row for row in desk.ask("doctor", want=10)["checks"] if row["check"] == "key")
    assert (row["state"], row["remedy"]) == ("fail", f"chmod 600 {path}")


def test_the_key_of_another_wallet_signs_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    keystore(desk, "0x" + "77" * 32)
    monkeypatch.setenv("TRIMTAB_KEYSTORE_PASSWORD", PASSWORD)
    error = desk.ask("rebalance", "--send", "--yes", want=2)["error"]
    assert "the key" in error["message"]
    assert next(row for row in desk.ask("doctor", want=2)["checks"] if row["check"] == "key")["state"] == "fail"


def test_without_a_key_everything_works_but_sending(desk: Desk) -> None:
    desk.edit(("test_account = 0\n", ""))
    for command in (("status",), ("plan",), ("rebalance",), ("doctor",)):
        assert desk.run(*command).code == 0
    assert "key source" in desk.ask("rebalance", "--send", "--yes", want=2)["error"]["message"]


def test_question__shows_plan_and_parameters_and_no_is_no(desk: Desk) -> None:
    before = nonce(desk)
    code, screen = at_terminal(desk, "n\n", "rebalance", "--send", "--verbose")
    assert code == 10
    assert screen.count("Sign") == 1
    question = screen.split("Sign and send this?")[0]
    for name in LimitsTable.model_fields:
        assert name in question, name
    for words in (
        "31337", desk.about["wallet"], "swap_router_02", "WETH 30 %", "test account 0", "threshold: 10 % of the target", "target", "10 s",
        "feed, then twap", "1 min 30 s", "public mempool", "100,000 USDC", "Swaps", "Guards", "Cost", "local; 1 must agree",
    ):  # fmt: skip
        assert words in question, words
    assert nonce(desk) == before
    assert desk.ask("history")["steps"][0]["outcome"] == "declined"


@pytest.mark.parametrize("answer", ["yep\n", *(pytest.param(answer, marks=pytest.mark.slow) for answer in ("\n", "\x04"))])
def test_only_a_plain_yes_is_a_yes(desk: Desk, answer: str) -> None:
    before = nonce(desk)
    assert at_terminal(desk, answer, "rebalance", "--send")[0] == 10
    assert nonce(desk) == before


def test_a_yes_at_the_terminal_sends(desk: Desk) -> None:
    code, screen = at_terminal(desk, "y\n", "rebalance", "--send")
    assert code == 0
    assert "done:" in screen
    assert desk.ask("status")["decision"]["kind"] == "hold"


def test_trust_asks_at_the_terminal_and_pins_what_it_showed(desk: Desk) -> None:
    desk.edit(("sqlite:///trimtab.db", "sqlite:///fresh.db"))
    assert desk.ask("trust", want=2)["pinned"] is False
    assert desk.run("rebalance", "--send", "--yes").code == 10
    code, screen = at_terminal(desk, "n\n", "trust")
    assert (code, screen.count("Pin these?")) == (10, 1)
    assert desk.ask("trust", want=2)["pinned"] is False
    code, screen = at_terminal(desk, "y\n", "trust")
    assert code == 0, screen
    for address in (*desk.about["tokens"].values(), *desk.about["pools"].values()):
        assert address in screen
    assert desk.ask("trust")["pinned"] is True
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] == "done"
