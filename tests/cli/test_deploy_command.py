"""`trimtab deploy`: nothing leaves without --send and a confirmation; sent once, then named as deployed."""

from __future__ import annotations

from agent.venues.deployment import rebalancer_address
from tests.cli.tools import Desk


def test_it_is_shown_then_sent_once(desk: Desk) -> None:
    shown = desk.ask("deploy")
    assert (shown["address"], shown["deployed"], shown["outcome"], shown["transactions"]) == (rebalancer_address(), False, "planned", [])
    assert "confirmation" in desk.ask("deploy", "--send", want=2)["error"]["message"]
    said = desk.run("deploy", "--send", "--yes")
    assert said.code == 0, said.why
    assert "deploy final in block" in said.out
    assert "at most 0.00" in said.out
    again = desk.ask("deploy", "--send", "--yes")
    assert (again["deployed"], again["outcome"], again["transactions"]) == (True, "hold", [])
