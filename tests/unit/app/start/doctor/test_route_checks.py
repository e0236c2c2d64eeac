"""What the doctor finds about routes between assets: their cost against limits.plan_cost, and pairs without one."""

from __future__ import annotations

import pytest

from agent.app.documents.owner import OK, WARN
from agent.app.start.capital import draft_config
from agent.app.start.doctor.route_checks import plan_cost_remedy, route_checks, usual_route_pips, usual_route_warnings
from agent.app.start.guide import InitAnswers
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.config.schema import Config
from agent.model import Every, StepInput, Threshold
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.builders import price_of, step_input, token, v2_pool, with_limits, with_snapshot, without_feed
from tests.support.text import mentions

TARGETS = {"WBTC": 4_000, "WETH": 3_000, "LINK": 1_000, "USDC": 2_000}
DEPTH = 10**8


def step_with(fee_pips: int, plan_cost_bps: int | None, symbols: tuple[str, ...] = ("WBTC", "WETH", "LINK")) -> StepInput:
    """A pool of each of these with the numeraire."""
    pools = [v2_pool(token(symbol), token("USDC"), price_of(symbol), DEPTH, fee_pips=fee_pips) for symbol in symbols]
    return with_limits(step_input(TARGETS, pools=pools), plan_cost_bps=plan_cost_bps)


@pytest.mark.parametrize(
    ("fee_pips", "plan_cost_bps", "pairs"),
    [
        pytest.param(3_000, 50, 3, id="two legs above the limit"),
        pytest.param(3_000, 59, 3, id="a basis point above"),
        pytest.param(10_000, 99, 6, id="each pair above"),
    ],
)
def test_route_dearer_than_plan_cost__warns_of_each_pair(fee_pips: int, plan_cost_bps: int, pairs: int) -> None:
    """Two coins are exchanged through the numeraire, for the fees of two pools."""
    lines = list(route_checks(step_with(fee_pips, plan_cost_bps)))
    warnings = [line for line in lines if line[1] == WARN]
    assert len(warnings) == pairs
    assert lines[-1][1] != OK
    assert mentions(warnings[0][2], "WBTC and WETH", f"limits.plan_cost allows {plan_cost_bps}", "not corrected")
    assert warnings[0][3].startswith("take tracking as trigger, or widen the bands")


@pytest.mark.parametrize(
    ("fee_pips", "plan_cost_bps"),
    [
        pytest.param(3_000, 60, id="two legs at the limit"),
        pytest.param(500, 50, id="cheap pools"),
        pytest.param(10_000, None, id="limit off"),
    ],
)
def test_route_up_to_plan_cost__warns_of_nothing(fee_pips: int, plan_cost_bps: int | None) -> None:
    lines = list(route_checks(step_with(fee_pips, plan_cost_bps)))
    assert WARN not in [line[1] for line in lines]
    assert lines[-1][1] == OK


def test_route__cost_is_that_of_the_cheapest() -> None:
    step = step_with(3_000, 50)
    direct = v2_pool(token("WBTC"), token("WETH"), price_of("WBTC") / price_of("WETH"), DEPTH // 1_000, fee_pips=500)
    lines = list(route_checks(with_snapshot(step, pools=(*step.snapshot.pools, direct))))
    named = " ".join(finding for _, state, finding, _ in lines if state == WARN)
    assert "WBTC and WETH" not in named
    assert mentions(named, "WBTC and LINK", "WETH and LINK", "59.9 bps")


@pytest.mark.parametrize("missing", ["WBTC", "WETH", "LINK"])
def test_asset_without_a_pool__warns_of_its_pairs(missing: str) -> None:
    others = tuple(symbol for symbol in ("WBTC", "WETH", "LINK") if symbol != missing)
    findings = [finding for _, state, finding, _ in route_checks(step_with(500, 50, others)) if state == WARN]
    assert len(findings) == 3
    assert all(mentions(finding, "no usable pool connects", missing) for finding in findings)


def test_asset_without_a_price__is_left_to_its_own_row() -> None:
    lines = list(route_checks(without_feed(step_with(500, 50, ("WBTC", "WETH")), "LINK")))
    assert [state for _, state, _, _ in lines] == [OK]


ALTCOINS = (("WETH", "40%"), ("LINK", "20%"), ("AAVE", "20%"), ("USDC", "20%"))


def config_of(targets: tuple[tuple[str, str], ...] = ALTCOINS, plan_cost_bps: int | None = 50) -> Config:
    config = draft_config(None, ETHEREUM_PRESET, targets)
    return config.model_copy(update={"limits": config.limits.model_copy(update={"plan_cost": plan_cost_bps})})


def test_usual_routes__two_legs_above_plan_cost__name_the_pair() -> None:
    """30 + 30 > 50. LINK and WETH have a pool of their own, at 30."""
    assert usual_route_warnings(config_of()) == [
        "LINK and AAVE: the cheapest route usually costs 60 bps, limits.plan_cost allows 50 bps: a drift between the two is not corrected;"
        " raise limits.plan_cost above it; this trigger trades only what saves more than it costs"
    ]


@pytest.mark.parametrize(
    ("plan_cost_bps", "more"),
    [(60, None), (59, ""), (30, ""), (29, ", and of other pairs (4), is not"), (None, None)],
)
def test_usual_routes__one_line_whatever_the_number_of_pairs(plan_cost_bps: int | None, more: str | None) -> None:
    lines = usual_route_warnings(config_of(plan_cost_bps=plan_cost_bps))
    assert len(lines) == (0 if more is None else 1)
    assert all(line.startswith("LINK and AAVE: ") and ("other pairs" in line) is bool(more) and str(more) in line for line in lines)


def test_usual_routes__an_asset_without_a_target_needs_none() -> None:
    assert usual_route_warnings(config_of((("WETH", "40%"), ("LINK", "60%"), ("AAVE", "0%"), ("USDC", "0%")))) == []


@pytest.mark.parametrize(
    ("pair", "pips"),
    [(("WETH", "USDC"), 500), (("WETH", "WBTC"), 500), (("WETH", "WSTETH"), 100), (("WETH", "LINK"), 3_000), (("LINK", "AAVE"), 6_000)],
)
def test_usual_route__costs_what_the_cheapest_does(pair: tuple[str, str], pips: int) -> None:
    assert usual_route_pips(1, *pair, "USDC") == usual_route_pips(1, *reversed(pair), "USDC") == pips


def test_remedy__of_a_cost_weighing_rule_is_the_limit() -> None:
    assert plan_cost_remedy(build_tracking("normal")).startswith("raise limits.plan_cost")
    for trigger in (Threshold(None, 1_000), Every(86_400)):
        assert plan_cost_remedy(trigger).startswith("take tracking as trigger, or widen the bands")


def test_guide_says_which_pairs_plan_cost_leaves_off_target() -> None:
    answers = InitAnswers(targets=ALTCOINS, use_cash="50000")
    assert usual_route_warnings(config_of())[0] in answers.year_costs()
