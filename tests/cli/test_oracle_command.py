"""`trimtab oracle`: what pools remember, what more memory costs before it is sent, and that nothing leaves without --send and a yes."""

from __future__ import annotations

import pytest

from tests.cli.tools import Desk


def first(desk: Desk) -> str:
    listed = desk.ask("oracle")
    assert listed["window_s"] == 1_800
    assert all(pool["sufficient"] and pool["observations"] >= 1 for pool in listed["pools"])
    return str(listed["pools"][0]["pool"])


def test_it_lists_what_pools_remember_in_words_too(desk: Desk) -> None:
    pool = first(desk)
    result = desk.run("oracle")
    assert result.code == 0
    assert pool[:10] in result.out
    assert "1801" in result.out


def test_the_cost_is_shown_and_nothing_leaves_without_send(desk: Desk) -> None:
    pool = first(desk)
    oracle_document = desk.ask("oracle", pool, "--to", "80")
    assert (oracle_document["outcome"], oracle_document["increase"], oracle_document["transactions"]) == ("planned", 16, [])
    assert float(oracle_document["cost"]) > 0
    result = desk.run("oracle", pool, "--to", "80")
    assert "About 4" in result.out
    assert "was sent" in result.err
    assert desk.ask("oracle")["pools"][0]["observations_next"] == 64


def test_oracle__is_sent_once_with_a_yes_and_is_in_the_history(desk: Desk) -> None:
    pool = first(desk)
    done = desk.ask("oracle", pool, "--to", "80", "--send", "--yes")
    (sent,) = done["transactions"]
    assert (done["outcome"], sent["kind"], sent["status"]) == ("done", "oracle", "final")
    assert desk.ask("oracle")["pools"][0]["observations_next"] == 80
    again = desk.ask("oracle", pool, "--to", "80", "--send", "--yes")
    assert (again["outcome"], again["transactions"]) == ("hold", [])
    newest = desk.ask("history")["steps"][0]
    assert (newest["decision"], newest["outcome"]) == ("oracle", "done")
    explain_document = desk.ask("explain", newest["step"])
    assert any("80 price observations" in line for line in explain_document["sentences"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("0x1234", "--to", "80"), "not an address"),
        (("0x0000000000000000000000000000000000000001", "--to", "80"), "not a V3 pool of this portfolio"),
        (("0x0000000000000000000000000000000000000001",), "POOL and --to are used together"),
        (("--to", "80"), "POOL and --to are used together"),
        (("--send", "--yes"), "--send needs POOL and --to"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(desk: Desk, args: tuple[str, ...], words: str) -> None:
    error = desk.ask("oracle", *args, want=2)["error"]
    assert words in error["message"]
    assert error["remedy"]


def test_oracle_without_a_terminal__asks_and_sends_nothing(desk: Desk) -> None:
    assert "confirmation" in desk.ask("oracle", first(desk), "--to", "80", "--send", want=2)["error"]["message"]
