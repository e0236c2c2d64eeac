"""[portfolio.weights]: which keys belong to which kind, what must fit the assets, and the file of supplies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.app.describe import binding_parameters
from agent.app.research.backtests import spec_from_config
from agent.config.load import load_config, parse_config
from agent.config.weights import allocator_sentences, build_allocator, supply_tokens, without_max_change
from agent.errors import ConfigError
from agent.model import AllocationMethod, AllocatorConfig, InitialWeights, TokenSupply, WeightLimit
from tests.support.configs.samples import USDC_PRESET, WETH_PRESET
from tests.support.configs.weights import CAPS, RETURNS, WBTC, allocator_config, changed, config_text, mistake, portfolio_of
from tests.support.constants import DAY_S
from tests.support.text import mentions


def test_allocator__reaches_the_model_by_address() -> None:
    assert allocator_config(RETURNS) == AllocatorConfig(
        method=AllocationMethod.HRP,
        every_s=7 * DAY_S,
        window_s=90 * DAY_S,
        step_s=DAY_S,
        min_returns=30,
        max_age_s=2 * DAY_S,
        max_overdue_s=14 * DAY_S,
        churn_bps=100,
        initial_weights=InitialWeights.TARGETS,
        fixed_tokens=(USDC_PRESET.address,),
        limits=(WeightLimit(WETH_PRESET.address, 1_000, 6_000), WeightLimit(WBTC.address, 0, 4_500)),
        max_change_bps=2_000,
    )


EQUAL = 'kind = "equal"\nevery = "7d"\nkeep = "7d"\nchurn = "1%"\nuntil_chosen = "wait"\n'


@pytest.mark.parametrize(
    ("weights", "limit_bps"),
    [
        (RETURNS, 2_000),
        (RETURNS.replace("hrp", "inverse_volatility"), 2_000),
        (RETURNS + 'max_change = "5%"\n', 500),
        (RETURNS + 'max_change = "off"\n', None),
        (RETURNS.replace("1%", "19%"), 2_000),
        (CAPS.replace('supplies = "supplies.csv"\n', ""), 2_000),
        (EQUAL, None),
        (EQUAL + 'max_change = "5%"\n', 500),
    ],
)
def test_a_jump_of_a_weight_is_limited_wherever_prices_decide_it(weights: str, limit_bps: int | None) -> None:
    assert allocator_config(weights).max_change_bps == limit_bps
    config = parse_config(config_text(weights))
    assert ("wait for the owner" in allocator_sentences(config.portfolio)) is (limit_bps is not None)
    simulated = without_max_change(config)
    assert build_allocator(simulated.portfolio.weights, portfolio_of(config), Path(), chain_id=1) == replace(
        allocator_config(weights), max_change_bps=None
    )


@pytest.mark.parametrize(
    ("weights", "key", "value"),
    [
        (RETURNS, "kind", '"inverse_volatility"'),
        (RETURNS, "every", '"8d"'),
        (RETURNS, "window", '"91d"'),
        (RETURNS, "step", '"12h"'),
        (RETURNS, "min_history", '"31d"'),
        (RETURNS, "max_age", '"3d"'),
        (RETURNS, "keep", '"15d"'),
        (RETURNS, "churn", '"2%"'),
        (RETURNS, "max_change", '"off"'),
        (RETURNS, "until_chosen", '"wait"'),
        (RETURNS, "cap", '"46%"'),
        (RETURNS, "limits", '{ WETH = { min = "10%", max = "59%" } }'),
        (CAPS, "max_age", '"3d"'),
        (CAPS, "supplies", None),
        (CAPS, "supplies", '"package"'),
        (CAPS, "supplies", '"others.csv"'),
        (CAPS, "supplies_max_age", '"91d"'),
        (CAPS, "supplies_max_age", '"off"'),
    ],
    ids=lambda value: None if value in (RETURNS, CAPS) else str(value),
)
def test_sentences_for_the_owner__differ_by_every_key(weights: str, key: str, value: str | None) -> None:
    edited_weights = changed(weights, (key, value))
    before, after = (allocator_sentences(parse_config(config_text(text)).portfolio) for text in (weights, edited_weights))
    assert before != after


def test_a_simulation_has_no_owner_to_wait_for(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text(config_text(RETURNS))
    path.chmod(0o600)
    spec = spec_from_config(load_config(path))
    allocator = spec.portfolio.allocator
    assert (allocator.method, allocator.max_change_bps) == (AllocationMethod.HRP, None)
    assert spec.max_change_bps == 2_000, "so that the result can say which choices wait live"


def test_a_simulation_finds_the_files_of_signals_beside_the_config(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text(config_text(RETURNS))
    path.chmod(0o600)
    assert spec_from_config(load_config(path)).signal_folder == tmp_path


def test_missing_table__leaves_targets_to_the_assets() -> None:
    config = parse_config(config_text('kind = "fixed"\n').replace('[portfolio.weights]\nkind = "fixed"\n', ""))
    assert build_allocator(config.portfolio.weights, portfolio_of(config), Path(), chain_id=config.chain.chain_id) is None
    assert allocator_config('kind = "fixed"\n').method is AllocationMethod.FIXED


@pytest.mark.parametrize("key", ["every", "window", "step", "min_history", "max_age", "keep", "churn", "until_chosen"])
def test_what_decides_money_has_no_default(key: str) -> None:
    assert mentions(mistake(RETURNS, (key, None)), f"{key}", "missing", "'hrp'")


@pytest.mark.parametrize(
    ("weights", "changes", "reason"),
    [
        pytest.param(CAPS, [("window", '"90d"')], "window: not a key of kind market_cap", id="window of market caps"),
        pytest.param(CAPS, [("supplies_max_age", '"0s"')], "supplies_max_age: 0s; write a time above 0s", id="no age of supplies"),
        pytest.param(RETURNS, [("supplies", '"a.csv"')], "supplies: not a key of kind hrp", id="supplies of returns"),
        pytest.param('kind = "fixed"\n', [("every", '"7d"')], "every: not a key of kind fixed", id="interval of fixed weights"),
        pytest.param(RETURNS, [("kind", '"markowitz"')], "portfolio.weights.kind", id="unknown kind"),
        pytest.param(RETURNS, [("every", '"30m"')], "every: 30 min is shorter than an hour", id="interval too short"),
        pytest.param(RETURNS, [("step", '"30m"')], "step: 30 min is shorter than an hour", id="step too short"),
        pytest.param(RETURNS, [("window", '"800d"')], "window: more than 730 days", id="window too long"),
        pytest.param(RETURNS, [("step", '"1h"'), ("window", '"42d"')], "window: more than 730 days or 1000 steps", id="too many steps"),
        pytest.param(
            RETURNS, [("min_history", '"91d"')], "min_history: not between two steps and the window", id="history above the window"
        ),
        pytest.param(RETURNS, [("min_history", '"1d"')], "min_history: not between two steps and the window", id="history of one step"),
        pytest.param(
            RETURNS, [("min_history", '"2d"')], "2 assets need at least 3 steps for a non-singular covariance", id="singular covariance"
        ),
        pytest.param(RETURNS, [("max_age", '"12h"')], "max_age: shorter than a step", id="age below a step"),
        pytest.param(RETURNS, [("fixed", "[]"), ("limits", "{}")], "USDC is the numeraire, whose price is always 1", id="free numeraire"),
        pytest.param(RETURNS, [("fixed", '["USDC", "LINK"]')], "weights.fixed: 'LINK' is not an asset", id="unknown fixed asset"),
        pytest.param(RETURNS, [("fixed", '["USDC", "WBTC"]')], "leaves 1 assets to choose weights for", id="one free asset"),
        pytest.param(
            RETURNS, [("limits", '{ LINK = { max = "10%" } }')], "weights.limits: 'LINK' is not an asset", id="limit of an unknown asset"
        ),
        pytest.param(
            RETURNS, [("limits", '{ USDC = { max = "10%" } }')], "weights.limits: USDC is fixed at its target", id="limit of the numeraire"
        ),
        pytest.param(RETURNS, [("churn", '"20%"')], "max_change: 20 % is not above churn", id="change at the churn"),
        pytest.param(
            RETURNS, [("churn", '"5%"'), ("max_change", '"5%"')], "max_change: 5 % is not above churn", id="change equal to the churn"
        ),
        pytest.param(RETURNS, [("cap", '"30%"'), ("limits", "{}")], "they allow 0 % to 60 % in total, but 80 %", id="caps below a whole"),
        pytest.param(RETURNS, [("limits", '{ WETH = { min = "90%" } }')], "they allow 90 %", id="least above a whole"),
        pytest.param(
            RETURNS,
            [("limits", '{ WETH = { min = "40.01%", max = "40%" } }')],
            "weights.limits.WETH: min 40.01 % is above max 40 %; lower min, or raise max",
            id="bounds that exclude each other",
        ),
        pytest.param(
            RETURNS,
            [("cap", '"50%"'), ("limits", '{ WETH = { min = "60%" } }')],
            "weights.limits.WETH: min 60 % is above cap 50 %; lower min, or raise cap",
            id="least above the cap of all",
        ),
        pytest.param(
            CAPS,
            [("cap", '"50%"'), ("limits", '{ WBTC = { max = "70%" }, WETH = { min = "60%" } }')],
            "weights.limits.WETH: min 60 % is above cap 50 %",
            id="least above the cap beside a larger most",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(weights: str, changes: list[tuple[str, str | None]], reason: str) -> None:
    assert reason in mistake(weights, *changes)


def test_numeraire__may_be_free_where_no_volatility_is_needed() -> None:
    allocator = allocator_config('kind = "equal"\nevery = "7d"\nkeep = "7d"\nchurn = "0%"\nuntil_chosen = "wait"\n')
    assert allocator.fixed_tokens == ()
    assert [(limit.low_bps, limit.high_bps) for limit in allocator.limits] == [(0, 10_000)] * 3


@pytest.mark.parametrize(
    ("changes", "bounds"),
    [
        ([("limits", '{ WETH = { min = "40%", max = "40%" } }')], (4_000, 4_000)),
        ([("cap", '"40%"'), ("limits", '{ WETH = { min = "40%" } }')], (4_000, 4_000)),
        ([("cap", '"40%"'), ("limits", '{ WETH = { min = "60%", max = "70%" } }')], (6_000, 7_000)),
    ],
    ids=["one weight", "least at the cap", "most of its own above the cap"],
)
def test_bounds__may_meet_and_a_most_of_its_own_replaces_the_cap(changes: list[tuple[str, str | None]], bounds: tuple[int, int]) -> None:
    limits = {limit.token: (limit.low_bps, limit.high_bps) for limit in allocator_config(changed(RETURNS, *changes)).limits}
    assert limits[WETH_PRESET.address] == bounds


def test_supplies__come_from_a_file_and_others_from_the_chain(tmp_path: Path) -> None:
    (tmp_path / "supplies.csv").write_text("symbol,supply,as_of\nWBTC,19850000.5,2026-11-01\n")
    allocator = allocator_config(CAPS, tmp_path)
    assert allocator.supplies == (
        TokenSupply(WBTC.address, 1_985_000_050_000_000, "supplies.csv of 2026-11-01", 1_793_491_200, 1_793_491_200 + 90 * 86_400),
    )
    config = parse_config(config_text(CAPS))
    portfolio = portfolio_of(config)
    assert supply_tokens(replace(portfolio, allocator=allocator)) == (WETH_PRESET.address,)
    assert supply_tokens(replace(portfolio, allocator=allocator_config(RETURNS))) == ()
    assert supply_tokens(portfolio) == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("symbol,supply\nBTC,1\n", "line 2: 'BTC' is not an asset"),
        ("symbol,supply\n\nWETH,1\n\nWBTC,1x\n", "line 5: '1x' is not a number of coins"),
        ("symbol,supply\nWBTC,1\nWBTC,2\n", "line 3: WBTC is given twice"),
        ("symbol,supply\nWBTC,-1\n", "line 2: '-1' is not a number of coins"),
        ("symbol,supply\nWBTC,nan\n", "line 2: 'nan' is not a number of coins"),
        ("symbol,supply\nWBTC,1e9\n", "line 2: '1e9' is not a number of coins"),
        ("symbol,supply\nWETH,1\nWBTC,19,850,000\n", "line 3: has more cells than the header"),
        ("symbol,supply,supply\nWBTC,1,2\n", "has two columns 'supply'"),
        ('symbol,supply,note\nWBTC,1,"a note\nWETH,1,\n', "cannot be read"),
        ("symbol,supply\n", "no supplies"),
        (None, "cannot be read"),
    ],
)
def test_unusable_supplies_file__is_refused_by_line(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "supplies.csv").write_text(content)
    with pytest.raises(ConfigError) as caught:
        allocator_config(CAPS, tmp_path)
    assert reason in str(caught.value)


def test_empty_cells_beside_the_columns__are_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "supplies.csv").write_text("symbol,supply,,\nWBTC,2,,,,\n")
    assert [supply.raw for supply in allocator_config(CAPS, tmp_path).supplies] == [2 * 10**8]


def test_owner__confirms_the_allocator_with_other_parameters() -> None:
    config = parse_config(config_text(RETURNS))
    weights = binding_parameters(config, portfolio_of(config), "0xrouter")["weights"]
    assert mentions(weights, "hrp", "7 days", "1 day", "90 days")
    assert "USDC fixed" in weights
    assert "WETH 10 % to 60 %" in weights
    assert "WBTC 0 % to 45 %" in weights
    plain = parse_config(config_text('kind = "fixed"\n'))
    assert mentions(binding_parameters(plain, portfolio_of(plain), "0xrouter")["weights"], "fixed")


def test_the_page_lists_every_kind() -> None:
    page = (Path(__file__).parents[3] / "docs" / "weights.md").read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert listed == [method.value for method in AllocationMethod]
