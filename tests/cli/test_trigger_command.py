"""`trimtab status` of triggers in words: bands of single assets, the side, and when they look next; and what every command refuses."""

from __future__ import annotations

from tests.cli.tools import Desk
from tests.support.text import mentions


def test_status__tells_the_trigger_its_bands_side_and_review(desk: Desk) -> None:
    plain = desk.ask("status")
    assert mentions(plain["trigger"]["text"], "threshold", "10 %")
    assert (plain["trigger"]["only"], plain["trigger"]["bands"], plain["trigger"]["next_s"]) == (None, "", None)
    line = next(line for line in desk.config.read_text().splitlines() if line.startswith("trigger = "))
    written = 'kind = "review", review_every = "7d", execute_every = "28d", absolute = "5%"'
    desk.edit((line, f'trigger = {{ {written} }}\nonly = "sell"'), ('symbol = "WETH"', 'symbol = "WETH"\nband = "20%rel"'))
    status_document = desk.ask("status")
    trigger = status_document["trigger"]
    assert mentions(trigger["text"], "7 days", "28 days", "5 %")
    assert mentions(trigger["bands"], "WETH 20 %")
    assert mentions(trigger["only_text"], "sells")
    weth = next(holding for holding in status_document["holdings"] if holding["symbol"] == "WETH")
    assert weth["band_bps"] == [round(weth["target_bps"] * 0.8), round(weth["target_bps"] * 1.2)]
    assert "first execution" in status_document["decision"]["reason"]
    assert trigger["next_s"] > 0
    result = desk.run("status")
    words = " ".join(result.out.split())
    assert mentions(words, "7 days", "28 days", "5 %", "target")
    assert mentions(words, "WETH 20 %", "only = sell")
    assert f"next {trigger['next']}" in words


def test_impossible_trigger__is_refused_by_every_command(desk: Desk) -> None:
    line = next(line for line in desk.config.read_text().splitlines() if line.startswith("trigger = "))
    for written, named in (
        ('{ kind = "time", every = "29m" }', "policy.trigger.every: 29min"),
        ('{ kind = "time", cron = "0 0 30 2 *", timezone = "UTC" }', "never comes"),
        ('{ kind = "time", cron = "0 9 * * *", timezone = "Europe/Atlantis" }', "policy.trigger.timezone: 'Europe/Atlantis' is unknown"),
    ):
        before = desk.config.read_text()
        desk.edit((line, f"trigger = {written}"))
        for command in ("status", "plan", "rebalance"):
            error = desk.ask(command, want=2)["error"]
            assert named in error["message"]
            assert error["remedy"]
        desk.config.write_text(before)
