"""`trimtab orders`: levels set in the config, shown beside the price, armed and disarmed; a level that contradicts the price is named."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tests.cli.tools import Desk
from tests.support.text import mentions


def move(desk: Desk, change: str) -> None:
    """Moves the market of the served chain, and all feeds."""
    assert desk.run("localchain", "--port", desk.about["url"].rpartition(":")[2], "--move", change, "--json").code == 0


def test_levels_are_set_shown_disarmed_and_armed(desk: Desk) -> None:
    assert mentions(desk.run("orders").out, "no orders")
    done = desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "2000", "--trailing-stop", "10%")
    assert done["changes"] == {"stop_loss": [None, "2000"], "trailing_stop": [None, "10%"]}
    desk.ask("orders", "set", "--yes", "portfolio", "--stop-loss", "20%")
    desk.ask("rebalance")  # a look writes down how orders stand
    listed = desk.ask("orders")
    row_by_level = {(row["subject"], row["kind"]): row for row in listed["orders"]}
    assert {row["stage"] for row in row_by_level.values()} == {"armed"}
    stop = row_by_level["WETH", "stop_loss"]
    trail = row_by_level["WETH", "trailing_stop"]
    assert (stop["terms"], stop["level"]) == ("2000", "2000")
    assert stop["distance_bps"] < 0
    assert abs(float(trail["level"]) - 0.9 * float(trail["highest"])) < 0.01
    assert (row_by_level["portfolio", "stop_loss"]["level"], listed["unit_worth"]) == ("0.8", "1")
    output = desk.run("orders").out
    assert "Orders" in output
    assert "trailing_stop" in output
    assert "portfolio" in output
    off = desk.ask("orders", "disarm", "WETH", "--only", "stop_loss", "--yes")
    assert off["disarmed"] == [{"subject": "WETH", "kind": "stop_loss", "stage": "off"}]
    assert off["reenabled"] == []
    armed = desk.ask("orders", "arm", "WETH", "--yes")
    assert {row["kind"] for row in armed["armed"]} == {"stop_loss", "trailing_stop"}
    desk.ask("rebalance")
    assert {row["stage"] for row in desk.ask("orders")["orders"]} == {"armed"}


def test_paper_orders__are_listed_with_their_own_stages(desk: Desk) -> None:
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "12%")
    desk.ask("paper", "--once", "--value", "5000")
    live = desk.ask("orders")
    paper = desk.ask("orders", "--paper")
    assert [document["orders"][0]["stage"] for document in (live, paper)] == ["waiting", "armed"]
    assert (live.get("book_kind"), paper["book_kind"]) == (None, "paper")
    printed = desk.run("orders", "--paper").out
    assert mentions(printed, "12 % from")
    assert mentions(printed, "not from what was paid")
    before = desk.config.read_bytes()
    result = desk.run("orders", "--paper", "set", "WETH", "--stop-loss", "off", "--json")
    assert result.code == 2
    assert "levels are those of the config" in result.error["remedy"]
    assert desk.config.read_bytes() == before


def test_paper_orders__are_disarmed_and_armed_by_themselves(desk: Desk) -> None:
    """Else the hint of a paper portfolio's order would arm that of real money."""
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "12%")
    desk.ask("paper", "--once", "--value", "5000")
    desk.ask("plan")
    desk.ask("orders", "disarm", "WETH", "--paper", "--yes")
    assert [desk.ask("orders", *paper)["orders"][0]["stage"] for paper in ((), ("--paper",))] == ["waiting", "off"]
    desk.ask("orders", "arm", "WETH", "--paper", "--yes")
    assert [desk.ask("orders", *paper)["orders"][0]["stage"] for paper in ((), ("--paper",))] == ["waiting", "waiting"]
    assert desk.run("orders", "arm", "WETH", "--yes").err.startswith("LIVE: this is the wallet on the chain.")


@pytest.mark.slow
def test_order__is_shown_as_armed_once_a_cycle_stored_it(desk: Desk) -> None:
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "12%", "--take-profit", "9000")
    price = Fraction(desk.ask("orders")["orders"][0]["price"])
    desk.ask("plan")
    stop, profit = desk.ask("orders")["orders"]
    assert (stop["stage"], stop["next_stage"], stop["level"], stop["since"]) == ("waiting", "armed", None, None)
    assert Fraction(stop["level_now"]) == price * Fraction(88, 100)
    assert (profit["stage"], profit["level"], profit["level_now"]) == ("waiting", "9000", None)
    output = desk.run("orders").out
    assert "armed" not in output.split("A waiting order")[0]
    assert mentions(output, "first cycle", "watches no price", "trimtab rebalance")
    desk.ask("rebalance")
    armed = desk.ask("orders")["orders"][0]
    assert (armed["stage"], armed["next_stage"], armed["level_now"]) == ("armed", None, None)
    assert armed["since"]
    move(desk, "WETH=-8%")
    fallen = desk.ask("orders")["orders"][0]
    assert (fallen["level"], fallen["since"]) == (armed["level"], armed["since"]), "the level of an armed stop stays"
    move(desk, "WETH=-12%")
    crossed = desk.ask("orders")["orders"][0]
    assert (crossed["stage"], crossed["next_stage"], crossed["level"]) == ("armed", "fired", armed["level"])


def test_stop_above_the_price__halts_and_is_named(desk: Desk) -> None:
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "9000")
    refused = desk.ask("orders", "arm", "WETH", "--yes", want=10)
    assert mentions(refused["error"]["message"], "stop_loss", "WETH", "armed")
    assert "not below" in refused["error"]["message"]
    assert mentions(refused["error"]["remedy"], "lower", "sell manually")
    listed = desk.ask("orders")
    assert mentions(listed["contradictions"][0], "stop_loss", "WETH", "contradicts")
    halted = desk.ask("plan", want=10)
    assert halted["outcome"] == "halt"
    assert mentions(halted["reason"], "stop_loss", "WETH", "contradicts")


def test_level_without_a_unit__is_a_price_and_asked_about_if_far(desk: Desk) -> None:
    before = desk.config.read_text()
    for args in (
        ("WETH", "--stop-loss", "12"),
        ("WETH", "--entry", "5"),
        ("WETH", "--take-profit", "90000"),
        ("WETH", "--stop-loss", "95%"),
    ):
        error = desk.ask("orders", "set", *args, want=10)["error"]
        assert mentions(error["message"], args[1][2:].replace("-", "_"), "price")
        assert mentions(error["remedy"], "nearer level", "%", "--yes")
    assert desk.config.read_text() == before
    assert mentions(desk.run("orders", "set", "WETH", "--stop-loss", "12").err, "99.6 % below the present price of 3,000.00 USDC", "--yes")
    result = desk.run("orders", "set", "--yes", "WETH", "--stop-loss", "2400")
    assert mentions(result.err, "note: WETH stop_loss: 2400 is a price in USDC", "20 % below the present price")
    assert mentions(result.err, "armed by its next cycle", "trimtab rebalance")
    before = desk.config.read_text()
    for args in (("WETH", "--stop-loss", "9000"), ("portfolio", "--trailing-stop", "10%"), ("WETH", "--alert-above", "5%")):
        unasked = desk.ask("orders", "set", *args, want=2)["error"]
        assert mentions(unasked["message"], "a confirmation is needed"), args
        assert "--yes" in unasked["remedy"]
    assert desk.config.read_text() == before, "nothing is written unasked"
    assert desk.ask("orders", "set", "WETH", "--stop-loss", "2400")["changes"] == {}, "what changes nothing asks nothing"
    done = desk.ask("orders", "set", "WETH", "--stop-loss", "12", "--yes")
    assert done["changes"] == {"stop_loss": ["2400", "12"]}
    assert len(done["notes"]) == 2
    for option, level in (("--stop-loss", "9000"), ("--take-profit", "2900"), ("--trailing-stop", "3000")):
        (level_note,) = [note for note in desk.ask("orders", "set", "WETH", option, level, "--yes")["notes"] if "contradicts" in note]
        assert mentions(level_note, option[2:].replace("-", "_"), "nothing but exits is traded until it is changed"), level_note
        desk.ask("orders", "set", "WETH", option, "off", "--yes")
    assert desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "12%")["notes"] == [], "a share needs no note, and no chain"


def test_exit_beside_a_pending_entry__waits_and_contradicts_nothing(desk: Desk) -> None:
    def contradictions(*levels: str) -> list[str]:
        return [note for note in desk.ask("orders", "set", "WETH", *levels, "--yes")["notes"] if "nothing but exits is traded" in note]

    assert contradictions("--stop-loss", "2500", "--entry", "2800", "--take-profit", "2900") == []
    assert contradictions("--take-profit", "2950") == [], "the entry is in the file already"
    assert desk.ask("orders")["contradictions"] == []
    (without_entry,) = contradictions("--entry", "off")
    assert mentions(without_entry, "take_profit of WETH at 2,950.00 USDC", "nothing but exits is traded until it is changed")
    assert desk.ask("orders")["contradictions"] == [without_entry]


def test_price_without_a_chain__is_written_at_unknown_distance(desk: Desk) -> None:
    desk.edit((desk.about["url"], "http://127.0.0.1:1"))
    done = desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "2400")
    assert mentions(" ".join(done["notes"]), "a price in USDC", "distance is unknown", "could not be read")
    far_share = desk.ask("orders", "set", "WETH", "--stop-loss", "95%", "--take-profit", "9000", want=10)["error"]
    assert far_share["message"] == "WETH stop_loss: 95 % below the price"


def test_mistakes_are_named_with_what_to_do(desk: Desk) -> None:
    before = desk.config.read_text()
    for args, reason in (
        (("set", "USDC", "--stop-loss", "10%"), "USDC is the numeraire"),
        (("set", "WETH", "--entry", "0"), "zero can never trigger"),
        (("set", "WETH"), "no level given"),
        (("set", "DOGE", "--entry", "5%"), "'DOGE' is not an asset"),
        (("arm", "DOGE", "--yes"), "'DOGE' is not an asset"),
        (("arm", "WETH", "--yes"), "none configured for WETH"),
        (("disarm", "WETH", "--yes"), "none of this kind for WETH"),
        (("disarm", "WETH", "--only", "stops", "--yes"), "'stops' is not a kind of order"),
        (("arm", "WETH"), "confirmation"),
    ):
        error = desk.ask("orders", *args, want=2)["error"]
        assert reason in error["message"], error
    assert desk.config.read_text() == before


def test_level_set_by_command__is_a_version_unless_hand_edited(desk: Desk) -> None:
    assert desk.ask("edit", "--set", "policy.cooldown=2h", "--yes")["state"] == "written"
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "2000")
    listed = desk.ask("history", "--configs")
    assert [config["how"] for config in listed["configs"]][:2] == ["edit", "edit"]
    assert listed["confirmed"] == listed["present"]
    desk.edit(('slippage = "0.3%"', 'slippage = "0.2%"'))
    desk.ask("orders", "set", "--yes", "WETH", "--stop-loss", "1900")
    listed = desk.ask("history", "--configs")
    assert listed["confirmed"] != listed["present"], "nobody has confirmed what was changed by hand"
