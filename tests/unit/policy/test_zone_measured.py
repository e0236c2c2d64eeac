"""A zone whose risk recorded prices tell: as allocators measure it, as its owner told it where he did, and a hold where they are few."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from agent import codec
from agent.config.build import build_policy
from agent.config.load import parse_config
from agent.errors import ConfigError
from agent.execution.step_memory import read_memory
from agent.layers.inputs import apply_effective_targets, assemble_input
from agent.model import Destination, NoTradeZone, PricePoint, Rebalance, RiskEstimationWindow, StepInput, TrackingRisk
from agent.planning.proposals import propose_rebalance
from agent.policy import risk as risks
from agent.policy import risk_estimates
from agent.policy.decide import decide
from agent.store import open_store
from agent.units import Token
from agent.weights.returns import Floats
from tests.support.builders import MONTH_S, NOW_S, history, step_input, token
from tests.support.configs.zones import config_with_zone
from tests.support.planning_worlds import DAY_S, moves, recorded
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, WALLET

WETH, WBTC, LINK, USDC = (token(symbol) for symbol in ("WETH", "WBTC", "LINK", "USDC"))
THREE = ("WETH", "WBTC", "LINK")
WINDOW = RiskEstimationWindow(90 * DAY_S, DAY_S, 30, 2 * DAY_S)
ESTIMATE = 'estimate = { window = "90d", step = "1d", min_history = "30d", max_age = "2d" }\n'
BARE = TrackingRisk(Fraction(1, 2), MONTH_S, (), (), WINDOW)


def step_with_returns(
    returns: Floats, risk: TrackingRisk = BARE, symbols: Sequence[str] = THREE, past: Sequence[PricePoint] | None = None
) -> StepInput:
    """WETH far above its target; daily prices that moved by these returns."""
    prices = recorded(returns, symbols) if past is None else past
    targets = dict.fromkeys(symbols, 2_000) | {"USDC": 10_000 - 2_000 * len(symbols)}
    values = targets | {"WETH": 5_000, "USDC": targets["USDC"] - 3_000}
    base_step = step_input(
        targets,
        values,
        depth=50_000_000,
        trigger=NoTradeZone(risk),
        destination=Destination.ZONE,
        past=history(prices=tuple(prices)),
        cooldown_s=0,
    )
    return apply_effective_targets(base_step)


def risk_of(step: StepInput) -> TrackingRisk:
    assert isinstance(step.policy.trigger, NoTradeZone)
    return step.policy.trigger.risk


def test_measured_risk_equals_ledoit_wolf_to_the_basis_point() -> None:
    from sklearn.covariance import ledoit_wolf  # type: ignore[import-untyped]  # scikit-learn has no types; slow to import

    returns = moves(THREE, 90)
    risk = risk_of(step_with_returns(returns))
    spread = returns.std(axis=0, ddof=1) * np.sqrt(365)
    scores = (returns - returns.mean(axis=0)) / returns.std(axis=0)
    shrunk = ledoit_wolf(scores)[0]
    volatility_by_token = dict(risk.volatilities_bps)
    pairs = {frozenset(pair): bps for *pair, bps in risk.correlations_bps}
    for i, asset in enumerate((WETH, WBTC, LINK)):
        assert abs(volatility_by_token[asset.address] - spread[i] * 10_000) <= 1
        assert pairs[frozenset((asset.address, USDC.address))] == 0
        for j, other in enumerate((WETH, WBTC, LINK)[:i]):
            assert abs(pairs[frozenset((asset.address, other.address))] - shrunk[i, j] * 10_000) <= 1
    assert volatility_by_token[USDC.address] == risks.MIN_VOLATILITY_BPS, "what never moves counts with the least that there is"
    assert mentions(risk.sample_text, "volatilities", "90 returns")
    assert "usual" not in risk.sample_text
    assert list(risks.faults(risk, {asset.token.address: asset.token.label for asset in step_with_returns(returns).portfolio.assets})) == []


def test_measured_risk_plans_like_the_same_risk_in_the_config() -> None:
    measured_step = step_with_returns(moves(THREE, 90))
    told_risk = replace(risk_of(measured_step), estimation_window=None, sample_text="")
    same = replace(measured_step, policy=replace(measured_step.policy, trigger=NoTradeZone(told_risk)))
    first = propose_rebalance(measured_step)
    second = propose_rebalance(same)
    assert isinstance(first.decision_result.decision, Rebalance)
    assert (first.plan.legs, first.plan.zone_tradeoff) == (second.plan.legs, second.plan.zone_tradeoff)
    assert first.decision_result.zone.sample_text == risk_of(measured_step).sample_text


def test_zone_narrows_where_prices_moved_more() -> None:
    calm, wild = (decide(step_with_returns(moves(THREE, 90) * part)).zone for part in (0.3, 1.5))
    assert all(
        a.high - a.low > b.high - b.low
        for a, b in zip(calm.intervals, wild.intervals, strict=True)
        if a.token in (WETH.address, WBTC.address)
    )


@pytest.mark.parametrize(
    ("past", "measured", "why"),
    [
        ((), (), "no prices of WETH, WBTC, LINK within 90 days"),
        (recorded(moves(THREE, 20), THREE), (), "20 returns of 1 day"),
        (recorded(moves(THREE, 90), THREE, until_s=NOW_S - 5 * DAY_S), (), "the newest common prices are 5 days old, max_age is 2 days"),
        (recorded(moves(("WETH", "WBTC"), 90), ("WETH", "WBTC")), (WETH, WBTC), "no prices of LINK within 90 days"),
        (recorded(moves(THREE, 90) * [1, 1, 0], THREE), (WETH, WBTC), "the price of LINK does not move"),
        (recorded(moves(THREE, 90)[:, [0, 0, 2]], THREE), (), "the covariance is singular"),
    ],
    ids=["none", "few", "old", "one lacks", "still", "the same"],
)
def test_too_little_history_takes_the_class_of_the_token(past: tuple[PricePoint, ...], measured: tuple[Token, ...], why: str) -> None:
    """Never a hold: what is measured counts, and the rest is usual for a coin of its kind."""
    completed = step_with_returns(moves(THREE, 90), past=past)
    risk = risk_of(completed)
    volatilities = dict(risk.volatilities_bps)
    classes = {WETH: 6_500, WBTC: 5_000, LINK: 9_000, USDC: risks.MIN_VOLATILITY_BPS}
    unmeasured = [asset for asset in (WETH, WBTC, LINK) if asset not in measured]
    for asset in (*unmeasured, USDC):
        assert volatilities[asset.address] == classes[asset]
    for asset in measured:
        assert volatilities[asset.address] != classes[asset]
    assert f"usual volatilities of their classes ({why}" in risk.sample_text
    assert all(f"{asset.label} {classes[asset] / 100:g} %" in risk.sample_text for asset in unmeasured)
    proposal = propose_rebalance(completed)
    assert isinstance(proposal.decision_result.decision, Rebalance)
    assert proposal.plan is not None


def test_risk_of_the_config_goes_before_prices() -> None:
    pair = (WETH.address, WBTC.address, -2_000)
    told_risk = replace(BARE, volatilities_bps=((LINK.address, 12_345), (USDC.address, 50)), correlations_bps=(pair,))
    risk = risk_of(step_with_returns(moves(THREE, 90) * [1, 1, 0], told_risk))
    volatility_by_token = dict(risk.volatilities_bps)
    pairs = {frozenset(pair_tokens): bps for *pair_tokens, bps in risk.correlations_bps}
    assert (volatility_by_token[LINK.address], volatility_by_token[USDC.address]) == (12_345, 50), "also of one whose price does not move"
    assert pairs[frozenset(pair[:2])] == -2_000
    assert 0 < pairs[frozenset((LINK.address, WETH.address))] <= 6_700, "the usual, as far as it agrees with what was told"
    assert "usual" not in risk.sample_text


def test_contradicting_correlations_are_drawn_together() -> None:
    """Two coins that move as one, and the owner says that a third goes with one of them and against the other."""
    told_risk = replace(
        BARE,
        correlations_bps=((WETH.address, WBTC.address, 9_900), (WETH.address, LINK.address, 9_900), (WBTC.address, LINK.address, -9_900)),
    )
    risk = risk_of(step_with_returns(moves(THREE, 90), told_risk))
    tokens = [token(symbol).address for symbol in (*THREE, "USDC")]
    assert risks.first_contradicting_row(risks.correlations_bps(risk, tokens)) is None
    assert {bps for _, _, bps in risk.correlations_bps} != {9_900, -9_900, 0}


def test_step_with_measured_risk_survives_its_codec() -> None:
    measured_step = step_with_returns(moves(THREE, 90))
    again = codec.loads(StepInput, codec.dumps(measured_step))
    assert again == measured_step
    assert decide(again).decision == decide(measured_step).decision
    old = codec.to_jsonable(
        replace(measured_step, policy=replace(measured_step.policy, trigger=NoTradeZone(replace(BARE, estimation_window=None))))
    )
    for field in ("estimation_window", "sample_text"):
        del old["policy"]["trigger"]["risk"][field]
    assert risk_of(codec.from_jsonable(StepInput, old)) == replace(BARE, estimation_window=None), "steps of before load"


def test_step_carries_the_recorded_prices_of_its_window(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    store.prices.record(USDC.address, recorded(moves(THREE, 200), THREE))
    base_step = step_input(
        {"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 2_000}, trigger=NoTradeZone(BARE), destination=Destination.ZONE
    )
    measured_step = assemble_input(base_step, read_memory(base_step, store))
    assert {point.token for point in measured_step.history.prices} == {WETH.address, WBTC.address, LINK.address}
    assert 89 * 3 <= len(measured_step.history.prices) <= 92 * 3
    assert "90 returns" in risk_of(measured_step).sample_text
    unmeasured = replace(base_step, policy=replace(base_step.policy, trigger=NoTradeZone(replace(BARE, estimation_window=None))))
    plain = assemble_input(unmeasured, read_memory(unmeasured, store))
    assert plain.history.prices == ()
    assert risk_estimates.price_history_and_step_s(plain.policy) == (0, 0)
    store.close()


def test_config_takes_estimates_beside_values_of_its_own() -> None:
    trigger = build_policy(parse_config(config_with_zone(ESTIMATE))).trigger
    assert isinstance(trigger, NoTradeZone)
    assert trigger.risk.estimation_window == WINDOW
    assert trigger.risk.volatilities_bps == ()
    mixed_trigger = build_policy(
        parse_config(config_with_zone(ESTIMATE + 'volatilities = { USDC = "0.5%" }\ncorrelations = { "WETH/USDC" = "10%" }\n'))
    ).trigger
    assert isinstance(mixed_trigger, NoTradeZone)
    assert [bps for _, bps in mixed_trigger.risk.volatilities_bps] == [50]
    assert [bps for *_, bps in mixed_trigger.risk.correlations_bps] == [1_000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(ESTIMATE.replace("90d", "800d"), "window: more than 730 days", id="window too long"),
        pytest.param(ESTIMATE.replace('step = "1d"', 'step = "10m"'), "step: 10 min is shorter than an hour", id="step too short"),
        pytest.param(
            ESTIMATE.replace('min_history = "30d"', 'min_history = "2d"'), "2 assets need at least 3 steps", id="history too short"
        ),
        pytest.param(ESTIMATE.replace('max_age = "2d"', 'max_age = "1h"'), "max_age: shorter than a step", id="age below a step"),
        pytest.param(ESTIMATE + 'correlation = "0%"\n', "policy.risk.correlation: estimate takes", id="correlation beside an estimate"),
        pytest.param(ESTIMATE + 'correlations = { "WETH/USDC" = "100%" }\n', "WETH/USDC = 100 % is beyond 99 %", id="correlation of one"),
        pytest.param(ESTIMATE + 'volatilities = { USDC = "0%" }\n', "USDC = 0 % is not between 0.1 % and 1000 %", id="no volatility"),
        pytest.param(ESTIMATE + 'volatilities = { DOGE = "50%" }\n', "'DOGE' is not an asset", id="foreign asset"),
    ],
)
def test_config_of_estimates_names_contradictions(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_config(config_with_zone(text))


def test_single_coin_has_a_volatility_and_no_pair() -> None:
    returns = moves(("WETH", "WBTC"), 90)[:, :1]
    risk = risk_of(step_with_returns(returns, symbols=("WETH",)))
    assert abs(dict(risk.volatilities_bps)[WETH.address] - float(returns.std(ddof=1) * np.sqrt(365)) * 10_000) <= 1
    assert [bps for *_, bps in risk.correlations_bps] == [0]
