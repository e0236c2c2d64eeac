"""trigger = { kind = "zone" } and its table of risk: what is written reaches the model, and every mistake is named with its remedy."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.app.describe import binding_parameters
from agent.config.build import build_policy, build_portfolio
from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.model import Destination, NoTradeZone, TrackingRisk
from agent.policy import risk as risks
from tests.support.bands import with_bands
from tests.support.configs.samples import USDC_PRESET, WALLET, WETH_PRESET, config_text, tokens
from tests.support.configs.zones import RISK, TRIGGER, config_with_zone
from tests.support.text import mentions, raises_field

WBTC = next(token for token in ETHEREUM_PRESET.tokens if token.symbol == "WBTC")


def mistake(**written: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with_zone(**written))  # type: ignore[arg-type]  # keywords of zoned
    return str(caught.value)


def three(risk: str) -> str:
    """The same with WBTC as a third asset."""
    shares = (("WETH", WETH_PRESET, "40%"), ("WBTC", WBTC, "30%"), ("USDC", USDC_PRESET, "30%"))
    assets = [TemplateAsset(symbol, token.address, share, token.feed) for symbol, token, share in shares]
    changed_bands = with_bands(render_config(ETHEREUM_PRESET, WALLET, assets, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")]))
    changed_bands = changed_bands.replace('trigger = { kind = "threshold", relative = "10%" }', TRIGGER, 1).replace(
        '"target" ', '"zone" ', 1
    )
    return changed_bands.replace("\n[limits]", f"\n[policy.risk]\n{risk}\n[limits]", 1)


THREE = 'volatilities = { WETH = "80%", WBTC = "60%", USDC = "0.5%" }\n'


def test_a_zone_reaches_the_model_with_its_risk_by_address() -> None:
    policy = build_policy(parse_config(config_with_zone()))
    pair = (WETH_PRESET.address, USDC_PRESET.address, 0)
    expected = TrackingRisk(Fraction(1, 2), 30 * 86_400, ((WETH_PRESET.address, 8_000), (USDC_PRESET.address, 50)), (pair,))
    assert policy.trigger == NoTradeZone(expected)
    assert policy.destination is Destination.ZONE
    assert risks.aversion(expected) == 2 * Fraction(1, 2) * Fraction(30, 365), "lambda is twice what 1 % of tracking error costs in bps"


def test_named_correlations_go_before_the_one_for_all_others() -> None:
    config = parse_config(three(THREE + 'correlation = "-10%"\ncorrelations = { "WBTC/WETH" = "85%" }\n'))
    trigger = build_policy(config).trigger
    assert isinstance(trigger, NoTradeZone)
    order = (WETH_PRESET.address, WBTC.address, USDC_PRESET.address)
    assert risks.correlations_bps(trigger.risk, order) == [
        [10_000, 8_500, -1_000],
        [8_500, 10_000, -1_000],
        [-1_000, -1_000, 10_000],
    ]
    assert risks.covariance(trigger.risk, order)[0][1] == 8_000 * 6_000 * 8_500


def test_the_owner_confirms_the_risk_with_the_other_parameters() -> None:
    config = parse_config(config_with_zone())
    parameters = binding_parameters(config, build_portfolio(config, tokens()), "0x")
    assert mentions(parameters["trigger"], "zone", "0.5 bps", "1 %", "30 days")
    assert mentions(parameters["risk"], "WETH 80 %", "USDC 0.5 %", "0 %")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            TRIGGER.replace("0.5bps", "0bps"),
            "policy.trigger.tracking_error_cost: 0 bps is out of range: it must be above 0 and at most 100 bps a year",
        ),
        (TRIGGER.replace("0.5bps", "-1bps"), "policy.trigger.tracking_error_cost: -1 bps is out of range: it must be above 0"),
        (
            TRIGGER.replace("0.5bps", "5%"),
            "policy.trigger.tracking_error_cost: 500 bps is out of range: it must be above 0 and at most 100 bps a year",
        ),
        (TRIGGER.replace("0.5bps", "0.5"), "policy.trigger.tracking_error_cost: '0.5' is not a cost per year; write the cost of 1 %"),
        (TRIGGER.replace("0.5bps", "nanbps"), "policy.trigger.tracking_error_cost: 'nanbps' is not a cost per year"),
        (TRIGGER.replace("30d", "59m"), "policy.trigger.horizon: 3540 s is not between 1h and 365d; write the time until the next review"),
        (TRIGGER.replace("30d", "366d"), "policy.trigger.horizon: 31622400 s is not between 1h and 365d"),
        ('trigger = { kind = "zone", horizon = "30d" }', "policy.trigger.tracking_error_cost: missing"),
        ('trigger = { kind = "zone", tracking_error_cost = "1bps" }', "policy.trigger.horizon: missing"),
        (TRIGGER.replace(" }", ', relative = "5%" }'), "policy.trigger.relative: unknown key"),
    ],
)
def test_tracking_error_cost_and_horizon__make_sense(written: str, expected: str) -> None:
    assert expected in mistake(trigger=written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (RISK.replace("0.5%", "0%"), "policy.risk.volatilities: USDC = 0 % is not between 0.1 % and 1000 %; even a stable token moves"),
        (RISK.replace("80%", "1001%"), "policy.risk.volatilities: WETH = 1001 % is not between 0.1 % and 1000 %"),
        (RISK.replace("WETH", "WEHT"), "policy.risk.volatilities: 'WEHT' is not an asset; remove it or correct its spelling"),
        (
            RISK.replace('"0%"', '"100%"'),
            'policy.risk.correlations: WETH/USDC = 100 % is beyond 99 %; write "99%" for tokens that move as one',
        ),
        (RISK.replace('"0%"', '"120%"'), "policy.risk.correlation: '120%' is not a correlation; write a percentage from -99% to 99%"),
        (RISK.replace('"0%"', "0.5"), "policy.risk.correlation: 0.5 is not a correlation"),
        (
            RISK + 'correlations = { "WETH" = "5%" }',
            "policy.risk.correlations: 'WETH' is not a pair of assets; write for example \"WETH/USDC\"",
        ),
        (RISK + 'correlations = { "WETH/WETH" = "5%" }', "policy.risk.correlations: 'WETH/WETH' is not a pair of assets"),
        (RISK + 'correlations = { "WETH/USDC" = "5%", "USDC/WETH" = "5%" }', "WETH/USDC and USDC/WETH are the same pair; keep one"),
    ],
)
def test_volatilities_and_correlations_are_possible(written: str, expected: str) -> None:
    assert expected in mistake(risk=written)


@pytest.mark.parametrize(
    ("written", "volatilities", "correlations"),
    [
        ("", {}, []),
        ('volatilities = { WETH = "80%" }\ncorrelation = "0%"\n', {WETH_PRESET.address: 8_000}, [0]),
        ('volatilities = { WETH = "80%", USDC = "0.5%" }\n', {WETH_PRESET.address: 8_000, USDC_PRESET.address: 50}, []),
        ('correlations = { "USDC/WETH" = "7%" }\n', {}, [700]),
    ],
    ids=["no table", "one volatility", "no correlation", "one correlation"],
)
def test_risk_table__figures_missing__stay_missing_for_the_step(
    written: str, volatilities: dict[str, int], correlations: list[int]
) -> None:
    for trigger in (TRIGGER, 'trigger = { kind = "tracking" }'):
        policy = build_policy(parse_config(config_with_zone(risk=written, trigger=trigger)))
        assert isinstance(policy.trigger, NoTradeZone)
        assert dict(policy.trigger.risk.volatilities_bps) == volatilities
        assert [bps for *_, bps in policy.trigger.risk.correlations_bps] == correlations


@pytest.mark.parametrize(
    ("strictness", "cost_bps"),
    [("", Fraction(1, 2)), ("relaxed", Fraction(3, 20)), ("normal", Fraction(1, 2)), ("strict", Fraction(3, 2))],
)
def test_tracking__strictness__is_what_tracking_error_costs(strictness: str, cost_bps: Fraction) -> None:
    """λ is 0.3, 1 or 3: twice the cost of 1 % of tracking error."""
    key = f', strictness = "{strictness}"' if strictness else ""
    config = parse_config(config_with_zone(risk="", trigger=f'trigger = {{ kind = "tracking"{key} }}'))
    policy = build_policy(config)
    assert policy.trigger == NoTradeZone(TrackingRisk(cost_bps, None, (), ()))
    assert policy.destination is Destination.ZONE
    assert f"strictness {strictness or 'normal'}" in binding_parameters(config, build_portfolio(config, tokens()), "0x")["trigger"]


RATE = ('# rate = "25%"', 'rate = "25%"')
AFTER_TAX = 'trigger = { kind = "tracking", after_tax = true }'


@pytest.mark.parametrize(("after_tax", "expected"), [("true", True), ("false", False)])
def test_tracking__after_tax__reaches_the_model_and_the_owner(after_tax: str, expected: bool) -> None:
    config = parse_config(config_with_zone(risk="", trigger=AFTER_TAX.replace("true", after_tax), changes=(RATE,)))
    assert build_policy(config).trigger == NoTradeZone(TrackingRisk(Fraction(1, 2), None, (), (), after_tax=expected))
    trigger_text = binding_parameters(config, build_portfolio(config, tokens()), "0x")["trigger"]
    assert trigger_text == f"tracking: strictness normal{', after tax' if expected else ''}"


def test_tracking__after_tax_without_a_rate__is_refused() -> None:
    message = mistake(risk="", trigger=AFTER_TAX)
    assert mentions(message, "policy.trigger.after_tax", "tax.rate is missing", 'rate = "25%"', "remove after_tax")
    assert isinstance(
        build_policy(parse_config(config_with_zone(risk="", trigger=AFTER_TAX.replace("true", "false")))).trigger, NoTradeZone
    )


@pytest.mark.parametrize("trigger", [TRIGGER.replace(" }", ", after_tax = true }"), AFTER_TAX.replace("true", '"25%"')])
def test_after_tax__elsewhere_or_no_flag__is_refused(trigger: str) -> None:
    assert mentions(mistake(trigger=trigger, changes=(RATE,)), "after_tax")


@pytest.mark.parametrize(
    ("strictness", "remedy"),
    [("lax", "did you mean relaxed?"), ("Normal", "did you mean normal?"), ("1", "choose from relaxed, normal, strict")],
)
def test_tracking__unknown_strictness__is_refused_with_the_nearest(strictness: str, remedy: str) -> None:
    message = mistake(risk="", trigger=f'trigger = {{ kind = "tracking", strictness = "{strictness}" }}')
    assert mentions(message, "policy.trigger.strictness", strictness, remedy)


@pytest.mark.parametrize(
    ("trigger", "destination"),
    [
        ('trigger = { kind = "tracking" }', Destination.ZONE),
        (TRIGGER, Destination.ZONE),
        ('trigger = { kind = "threshold", relative = "10%" }', Destination.TARGET),
        ('trigger = { kind = "time", every = "1d" }', Destination.TARGET),
    ],
    ids=["tracking", "zone", "threshold", "time"],
)
def test_destination__not_written__is_that_of_the_trigger(trigger: str, destination: Destination) -> None:
    written = config_text(('trigger = { kind = "threshold", relative = "10%" }', trigger), ('destination = "target" ', ""))
    assert build_policy(parse_config(written)).destination is destination


@pytest.mark.parametrize(
    ("correlations", "guilty"),
    [
        ('{ "WETH/WBTC" = "90%", "WETH/USDC" = "90%", "WBTC/USDC" = "-50%" }', "USDC"),
        ('{ "WETH/WBTC" = "-60%", "WETH/USDC" = "-60%", "WBTC/USDC" = "-60%" }', "USDC"),
        ('{ "WETH/WBTC" = "60%", "WETH/USDC" = "80%", "WBTC/USDC" = "0%" }', "USDC"),
    ],
    ids=["contradict", "contradict below zero", "leave no risk"],
)
def test_correlations_that_contradict_each_other_are_refused(correlations: str, guilty: str) -> None:
    with pytest.raises(ConfigError, match=rf"{guilty} contradict.*, or leave a mix of tokens no risk \(.*not above 0\.1 %\)"):
        parse_config(three(f"{THREE}correlations = {correlations}\n"))


def test_zone__needs_a_cost_limit_and_its_own_destination() -> None:
    assert mentions(mistake(changes=(('plan_cost = "0.5%"', 'plan_cost = "off"'),)), "limits.plan_cost", "off", "zone")
    for destination in ("target", "band", "halfway"):
        expected = f'policy.destination: {destination}, but the trigger is a zone (write destination = "zone")'
        assert expected in mistake(destination=destination)
    with raises_field("policy.destination", "zone", "trigger"):
        parse_config(config_text(('destination = "target" ', 'destination = "zone" ')))
