"""Tests of agent/app/documents/status.py: the range that the rule brings a holding back to, and the warning of a small ceiling."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.app.documents.status import PortfolioStatus, ceiling_warnings, status_document
from agent.config.load import parse_config
from agent.model import Destination, EffectiveTargets, ScreenedToken, StepInput, Threshold, TokenFinding, UnreadableItem
from agent.policy.decide import decide
from tests.support.builders import step_input, token
from tests.support.configs.samples import config_text
from tests.support.decisions.tracking import DEPTH, TARGETS, balance_changes, interval, tracking_step, zone_of


def shown(step: StepInput) -> dict[str, list[int] | None]:
    document = status_document(PortfolioStatus(step, decide(step), False, "", ()))
    return {holding["symbol"]: holding["back_to_bps"] for holding in document["holdings"]}


def test_notes_are_what_the_command_says_beside_holdings_and_decision() -> None:
    step = step_input(TARGETS, balance_changes(), depth=DEPTH)
    assert PortfolioStatus(step, decide(step), False, "", ()).notes == ()
    unread = UnreadableItem("pool", "0xA", "no answer")
    screened = ScreenedToken(token("WETH").address, TokenFinding.FEE_ON_TRANSFER)
    step = replace(
        step,
        snapshot=replace(step.snapshot, unreadable_items=(unread,)),
        targets=EffectiveTargets(reasons=("a choice waits",), quarantined_tokens=(screened,)),
    )
    status = PortfolioStatus(step, decide(step), True, "a look", ("a warning",))
    *notes, quarantine = status.notes
    assert notes == ["paused: a look", "targets: a choice waits", "a warning", "not readable: pool 0xA: no answer"]
    assert quarantine.startswith("in quarantine: WETH ")
    assert repr(status).endswith(", paused, 5 notes)")


@pytest.mark.parametrize(
    ("destination", "back_to_bps"),
    [(Destination.TARGET, [2_500, 2_500]), (Destination.BAND, [2_250, 2_750]), (Destination.HALFWAY, None)],
)
def test_band_names_what_its_destination_brings_back_to(destination: Destination, back_to_bps: list[int] | None) -> None:
    step = step_input(TARGETS, balance_changes(WETH=3_000), depth=DEPTH, trigger=Threshold(None, 1_000), destination=destination)
    assert shown(step)["WETH"] == back_to_bps


def test_rule_without_an_interval_names_no_range() -> None:
    step = tracking_step(balance_changes(WETH=3_000))
    decision_result = decide(step)
    others = tuple(row for row in zone_of(step).intervals if row.token != token("WETH").address)
    decision_result = replace(decision_result, zone=replace(zone_of(step), intervals=others))
    document = status_document(PortfolioStatus(step, decision_result, False, "", ()))
    assert [holding["symbol"] for holding in document["holdings"] if holding["back_to_bps"] is None] == ["WETH"]


def test_rule_names_its_edges_and_none_for_the_numeraire() -> None:
    step = tracking_step(balance_changes(WETH=3_000))
    weth = interval(step, "WETH")
    assert shown(step)["WETH"] == [round(weth.low * 10_000), round(weth.high * 10_000)]
    assert shown(step)["USDC"] == [0, 10_000]


@pytest.mark.parametrize(("total", "end"), [(None, "Raise max_live_value."), (Fraction(10), "More money needs a higher max_live_value.")])
def test_ceiling_below_the_minimum__without_a_setting_that_helps__names_none(
    monkeypatch: pytest.MonkeyPatch, total: Fraction | None, end: str
) -> None:
    monkeypatch.setattr("agent.app.documents.status.suggested_settings", lambda *_: ())
    config = parse_config(config_text())
    config = config.model_copy(update={"portfolio": config.portfolio.model_copy(update={"max_live_value": "30"})})
    (warning,) = ceiling_warnings(config, Fraction(1), total)
    assert warning.endswith(f"the cap prevents a larger portfolio. {end}")
