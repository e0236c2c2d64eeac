"""The minimum total that targets, bands, pools and gas work with: by hand, by the planner, and with the setting to change."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import DIRECTION_BITS, V4Pool
from agent.app.documents.status import current_minimum_total, minimum_total_document, minimum_totals_of_config
from agent.config.load import parse_config
from agent.config.networks import NETWORKS
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind
from agent.model import Threshold
from agent.model.rollups import scaled_fee_quote
from agent.planning import proposals
from agent.policy.minimum import (
    GWEI,
    AssetThreshold,
    MinimumTotalInputs,
    compute_minimum_total,
    format_minimum_total,
    lowest_fee_pips,
    minimum_total_inputs,
    suggested_settings,
)
from agent.reference import reference_prices
from tests.support.builders import NOW_S, address, step_input, v3_pool, with_history, with_limits, with_snapshot
from tests.support.configs.samples import config_text
from tests.support.planning_worlds import DEEP
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

USD = 10**6
HAND = MinimumTotalInputs(
    (AssetThreshold("WETH", 5_000, Fraction(5, 100)), AssetThreshold("WBTC", 3_000, Fraction(3, 100))),
    numeraire_bps=2_000,
    plan_cost_bps=50,
    min_trade=Fraction(10),
    fee_pips=3_000,
    gas_price_wei=GWEI,
    wei_value=Fraction(3_000, 10**18),
)


def test_minimum_total_by_hand() -> None:
    """Two swaps and an approval are 346,000 units: 1.038 dollars. 3 % of V at 50 - 30 bps pays that from 17,300 dollars on."""
    minimum = compute_minimum_total(HAND)
    assert minimum.gas_cost == Fraction(1_038, 1_000)
    assert minimum.total == 17_300
    assert "WBTC" in minimum.binding_limit
    assert (
        minimum.corrections_per_year
        == (Fraction(3, 10) * Fraction(7, 10) * Fraction(6, 10) / Fraction(3, 100)) ** 2
        == Fraction(1_764, 100)
    )
    correction_cost = Fraction(1_038, 1_000) + 519 * Fraction(3, 1_000)
    assert minimum.yearly_cost == minimum.corrections_per_year * correction_cost


def test_format_minimum_total_names_its_assumptions() -> None:
    sentence = format_minimum_total(replace(HAND, wei_value=Fraction(3_000 * 10**6, 10**18)), Fraction(0), 6, "USDC")
    assert "(pool fees 0.3 %, native coin at 3,000.00 USDC)" in sentence
    cheap = replace(HAND, wei_value=Fraction(2_500 * 10**6, 10**18), fee_pips=500)
    assert "(pool fees 0.05 %, native coin at 2,500.00 USDC)" in format_minimum_total(cheap, Fraction(0), 6, "USDC")


def test_minimum_total_counts_the_data_fee_of_each_swap() -> None:
    """0.0001 ether of data for each of two swaps are 0.6 dollars more."""
    minimum = compute_minimum_total(replace(HAND, data_fee_wei=10**14))
    assert minimum.gas_cost == Fraction(1_638, 1_000)
    assert minimum.total == 27_300


def test_minimum_totals_of_config_take_the_fees_of_the_network() -> None:
    """One swap and an approval are 196,000 units of gas and one data fee, in native coin at the network's price; no trade is below 10
    dollars, and a correction moves 5 % of 50 %."""
    config = parse_config(config_text())
    for network in NETWORKS:
        network_config = config.model_copy(update={"chain": config.chain.model_copy(update={"chain_id": network.chain_id})})
        for gas_price_wei, document in zip(network.fees.gas_prices_wei, minimum_totals_of_config(network_config, Fraction(1)), strict=True):
            dollars = (196_000 * gas_price_wei + network.fees.data_fee_wei) * network.fees.native_usd / 10**18
            of_gas = dollars / (Fraction(5, 100) * Fraction(2, 1000))
            of_trade = Fraction(10) / Fraction(5, 100)
            assert Fraction(document["total"] or 0) == pytest.approx(max(of_gas, of_trade), rel=1e-5)


@pytest.mark.parametrize("fee_pips", [3_000, 6_000], ids=["cheap pools", "dear pools"])
@pytest.mark.parametrize(
    "assets", [(), (replace(HAND.assets[0], target_bps=0, drift=Fraction(0)),)], ids=["no other asset", "all of it sold by a stop"]
)
def test_minimum_total__only_numeraire_has_a_target__advises_nothing(assets: tuple[AssetThreshold, ...], fee_pips: int) -> None:
    document = minimum_total_document(replace(HAND, assets=assets, numeraire_bps=10_000, fee_pips=fee_pips), Fraction(5_000), 0, "USDC")
    assert document["text"] == "No minimum total applies: no asset but the numeraire has a target."
    assert (document["total"], document["enough"], document["changes"]) == (None, None, [])


def test_format_minimum_total_omits_a_purchase_that_is_done() -> None:
    """Below the minimum total of corrections: before it the purchase pays, afterwards it is no subject."""
    first, done = (
        format_minimum_total(replace(HAND, is_first_purchase_done=bought), Fraction(10_000), 0, "USDC") for bought in (False, True)
    )
    assert mentions(first, "10,000 USDC", "first purchase")
    assert mentions(done, "10,000 USDC", "corrections")
    assert compute_minimum_total(replace(HAND, is_first_purchase_done=True)).purchase_total is None


@pytest.mark.parametrize(
    ("last_s", "warns"),
    [
        pytest.param(None, True, id="never"),
        pytest.param(NOW_S - 60, False, id="a minute ago"),
        pytest.param(NOW_S - 2 * 86_400, True, id="two days ago"),
    ],
)
def test_minimum_total_warns_not_within_a_day_of_a_rebalance(last_s: int | None, warns: bool) -> None:
    step = with_limits(step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 300, "USDC": 300}, depth=DEEP), plan_cost_bps=50)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=10 * GWEI))
    document = current_minimum_total(with_history(step, last_rebalance_s=last_s), Fraction(600 * USD))
    assert (document["enough"] is False) == ("is less" in document["text"]) == bool(document["changes"]) == warns


def test_schedule_bounds_the_corrections_of_a_year() -> None:
    assert compute_minimum_total(replace(HAND, interval_s=30 * 86_400)).corrections_per_year == Fraction(365, 30)


def test_min_trade_decides_without_gas() -> None:
    minimum = compute_minimum_total(replace(HAND, gas_price_wei=0))
    assert minimum.total == 334
    assert "min_trade" in minimum.binding_limit


@pytest.mark.parametrize(("gas_price_wei", "suggests_cheaper_gas"), [(GWEI, True), (0, False)], ids=["gas", "min_trade"])
def test_cheaper_gas__is_suggested_where_gas_decides(gas_price_wei: int, suggests_cheaper_gas: bool) -> None:
    """Whatever the asset is called."""
    inputs = replace(HAND, assets=(AssetThreshold("Vegas", 5_000, Fraction(5, 100)),), gas_price_wei=gas_price_wei)
    minimum_total = compute_minimum_total(inputs)
    assert "Vegas" in minimum_total.binding_limit
    assert any("gas below" in text for text in suggested_settings(inputs, minimum_total.total - 1)) is suggests_cheaper_gas


GAS_MULTIPLE_DECIDES = replace(HAND, assets=(AssetThreshold("WETH", 9_800, Fraction(2)),), numeraire_bps=200)
"""A swap's gas is 0.45 dollars: 20 times that for a target of 2 % need 450."""


def test_minimum_total_without_min_trade__counts_no_multiple_of_gas() -> None:
    assert "20 times" in compute_minimum_total(replace(GAS_MULTIPLE_DECIDES, min_trade=Fraction(1))).binding_limit
    minimum = compute_minimum_total(replace(GAS_MULTIPLE_DECIDES, min_trade=Fraction(0)))
    assert "20 times" not in minimum.binding_limit
    assert minimum.total is not None
    assert minimum.total < 450


@pytest.mark.parametrize(("total", "is_enough"), [(31, False), (32, True)])
def test_minimum_total_and_gate__take_the_same_fee_of_a_leg(total: int, is_enough: bool) -> None:
    """On a rollup whose swap of one leg pays 0.04 dollars for its data."""
    values = {"WETH": Fraction(60 * total, 100), "WBTC": Fraction(38 * total, 100), "USDC": Fraction(2 * total, 100)}
    step = step_input({"WETH": 4_900, "WBTC": 4_900, "USDC": 200}, values, depth=DEEP)
    step = with_limits(step, plan_cost_bps=500, min_trade=Fraction(USD, 10))
    head = replace(step.snapshot.head, base_fee_wei=GWEI // 100)
    step = with_snapshot(step, head=head, priority_fee_wei=0, data_fee=scaled_fee_quote(2 * 10**13))
    step = replace(step, policy=replace(step.policy, trigger=Threshold(900, None)), limits=replace(step.limits, max_live_value=None))
    step = with_history(step, last_rebalance_s=NOW_S - 5 * 86_400)
    outcome = evaluation.evaluate_input(step, proposals.propose_rebalance, None)
    document = current_minimum_total(step, Fraction(total * USD))
    assert document is not None
    assert (outcome.kind is OutcomeKind.PLANNED) == document["enough"] == is_enough, outcome.reason


@pytest.mark.parametrize(
    ("pips_of_token0", "pips_of_token1", "lowest"),
    [
        pytest.param(0, 0, 3_000, id="no protocol fee"),
        pytest.param(1_000, 0, 3_000, id="one side"),
        pytest.param(1_000, 500, 3_499, id="both sides"),
    ],
)
def test_lowest_fee_has_the_protocol_s_share(pips_of_token0: int, pips_of_token1: int, lowest: int) -> None:
    pool = v3_pool(WETH, USDC, 2_000, fee_pips=3_000)
    v3_fields = {field.name: getattr(pool, field.name) for field in fields(V3Pool)}
    v4_pool = V4Pool(**v3_fields, manager=address("manager"), protocol_fee=pips_of_token0 | pips_of_token1 << DIRECTION_BITS)
    assert lowest_fee_pips([v4_pool], WETH.address) == lowest
    assert lowest_fee_pips([v4_pool], address("another token")) is None


def test_fee_above_plan_cost_has_no_minimum_total() -> None:
    minimum = compute_minimum_total(replace(HAND, fee_pips=10_000))
    assert minimum.total is None
    assert "1 %" in minimum.binding_limit


def with_setting(inputs: MinimumTotalInputs, setting: str) -> MinimumTotalInputs:
    """The inputs with a suggested setting."""
    if setting.startswith("limits.plan_cost"):
        return replace(inputs, plan_cost_bps=int(setting.split('"')[1].removesuffix("bps")))
    if "with gas below" in setting:
        return replace(inputs, gas_price_wei=int(Fraction(setting.split()[-2]) * GWEI))
    band = Fraction(1, 2) if setting.startswith("tracking") else Fraction(int(setting.split()[3]), 100)
    return replace(inputs, assets=tuple(replace(asset, drift=band * asset.target_bps / 10_000) for asset in inputs.assets))


@given(
    total=st.integers(100, 500_000),
    gwei=st.fractions(Fraction(1, 100), 100),
    data_fee_wei=st.sampled_from([0, 10**13]),
    min_trade=st.sampled_from([0, 10, 500]),
    is_tracking=st.booleans(),
)
def test_suggested_settings_make_the_total_work(total: int, gwei: Fraction, data_fee_wei: int, min_trade: int, is_tracking: bool) -> None:
    terms = replace(HAND, gas_price_wei=int(gwei * GWEI), data_fee_wei=data_fee_wei, min_trade=Fraction(min_trade), is_tracking=is_tracking)
    settings = suggested_settings(terms, Fraction(total))
    minimum = compute_minimum_total(terms)
    assert minimum.total is not None
    assert not (settings and total >= minimum.total)
    for setting in settings:
        changed_total = compute_minimum_total(with_setting(terms, setting)).total
        assert changed_total is not None, setting
        assert changed_total <= total, setting


TRACKING = "tracking as trigger, which waits until a trade saves more than it costs"
WETH_ALONE = replace(HAND, assets=HAND.assets[:1], numeraire_bps=5_000, fee_pips=500, gas_price_wei=GWEI // 10)


@pytest.mark.parametrize(
    ("inputs", "total", "settings"),
    [
        pytest.param(
            replace(WETH_ALONE, assets=(AssetThreshold("WETH", 9_500, Fraction(5, 100)),), numeraire_bps=500, gas_price_wei=0),
            150,
            (),
            id="min_trade decides for the numeraire of 5 %",
        ),
        pytest.param(replace(WETH_ALONE, fee_pips=3_000), 100, (), id="min_trade needs 200 at any gas"),
        pytest.param(
            replace(WETH_ALONE, gas_price_wei=GWEI // 1_000, data_fee_wei=2 * 10**13, min_trade=Fraction(1)),
            150,
            ("a band of 18 % of the target", 'limits.plan_cost = "86bps", which costs more each time', TRACKING),
            id="data fee decides at any gas",
        ),
        pytest.param(
            replace(WETH_ALONE, data_fee_wei=10**13, min_trade=Fraction(1)),
            300,
            (
                "a band of 14 % of the target",
                'limits.plan_cost = "65bps", which costs more each time',
                TRACKING,
                "a chain, or an hour, with gas below 0.0636 gwei",
            ),
            id="gas beside a data fee",
        ),
    ],
)
def test_suggested_settings__are_those_that_suffice(inputs: MinimumTotalInputs, total: int, settings: tuple[str, ...]) -> None:
    assert suggested_settings(inputs, Fraction(total)) == settings


def test_planner_trades_above_the_minimum_and_holds_far_below() -> None:
    def outcome_kind(total: Fraction) -> OutcomeKind:
        value = {"WETH": total * Fraction(556, 1_000), "USDC": total * Fraction(444, 1_000)}
        step = step_input({"WETH": 5_000, "USDC": 5_000}, value, depth=DEEP)
        step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=10 * GWEI), priority_fee_wei=0)
        step = replace(step, policy=replace(step.policy, trigger=Threshold(500, None)), limits=replace(step.limits, max_live_value=None))
        return evaluation.evaluate_input(step, proposals.propose_rebalance, None).kind

    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 5_000, "USDC": 5_000}, depth=DEEP)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=10 * GWEI), priority_fee_wei=0)
    step = replace(step, policy=replace(step.policy, trigger=Threshold(500, None)))
    terms = minimum_total_inputs(step, reference_prices(step), 3_000)
    assert terms is not None
    total = compute_minimum_total(terms).total
    assert total is not None
    whole = Fraction(int(total / USD))
    assert outcome_kind(whole * Fraction(11, 10)) is OutcomeKind.PLANNED
    assert outcome_kind(whole / 4) is OutcomeKind.HOLD
