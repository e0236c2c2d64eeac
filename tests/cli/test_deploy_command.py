"""`trimtab deploy`: nothing leaves without --send and a confirmation; sent once, then named as deployed."""

from __future__ import annotations

from agent.venues.deployment import rebalancer_address
from tests.cli.tools import Desk


def test_it_is_shown_then_sent_once(desk: Desk) -> None:
    deploy_document = desk.ask("deploy")
    assert (deploy_document["address"], deploy_document["deployed"], deploy_document["outcome"], deploy_document["transactions"]) == (
        rebalancer_address(),
        False,
        "planned",
        [],
    )
    assert "confirmation" in desk.ask("deploy", "--send", want=2)["error"]["message"]
    result = desk.run("deploy", "--send", "--yes")
    assert result.code == 0, result.why
    assert "deploy final in block" in result.out
    assert "at most 0.00" in result.out
    again = desk.ask("deploy", "--send", "--yes")
    assert (again["deployed"], again["outcome"], again["transactions"]) == (True, "hold", [])
