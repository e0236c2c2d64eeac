"""policy.trigger, bands of assets and policy.only as they are written, and every mistake named with its remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from agent.app.describe import binding_parameters
from agent.config.build import build_policy, build_portfolio
from agent.config.load import parse_config
from agent.config.networks.presets import ETHEREUM_PRESET, TemplateAsset
from agent.config.writing.template import render_config
from agent.errors import ConfigError
from agent.model import AnyOf, Cron, Drawdown, Every, HybridTrigger, StagedTrigger, Threshold, TradeSide, Trigger, VolatilityJump
from agent.policy.triggers.rules import NOTATIONS, RULES
from agent.units import Token
from tests.support.bands import with_bands
from tests.support.constants import WALLET
from tests.support.text import mentions

WETH = ETHEREUM_PRESET.tokens[0]
USDC = ETHEREUM_PRESET.tokens[2]
TEMPLATE = 'trigger = { kind = "threshold", relative = "10%" }'
ONLY = '# only = "sell" '
BAND = '# band = "5%abs" '
MONTHLY = Cron("0 9 1 * *", "Europe/Berlin")
QUARTERLY = Cron("0 9 1 1,4,7,10 *", "Europe/Berlin")
REVIEW = 'kind = "review", review_cron = "0 9 1 * *", execute_cron = "0 9 1 1,4,7,10 *", timezone = "Europe/Berlin"'


def text(trigger: str, *changes: tuple[str, str]) -> str:
    assets = [TemplateAsset("WETH", WETH.address, "50%", WETH.feed), TemplateAsset("USDC", USDC.address, "50%", USDC.feed)]
    changed_bands = with_bands(render_config(ETHEREUM_PRESET, WALLET, assets, [], "USDC", [("RPC_A", "one"), ("RPC_B", "two")]))
    for old, new in ((TEMPLATE, f"trigger = {trigger}"), *changes):
        assert old in changed_bands, old
        changed_bands = changed_bands.replace(old, new, 1)
    return changed_bands


@pytest.mark.parametrize(
    ("written", "expected", "words"),
    [
        pytest.param(
            '{ kind = "threshold", absolute = "1%" }', Threshold(100, None), "threshold: 1 % of the portfolio", id="absolute threshold"
        ),
        pytest.param('{ kind = "time", every = "30m" }', Every(1_800), "time: every 30 min", id="half an hour"),
        pytest.param('{ kind = "time", every = "28d" }', Every(2_419_200), "time: every 28 days", id="four weeks"),
        pytest.param(
            '{ kind = "hybrid", relative = "10%", every = "1d" }',
            HybridTrigger(Threshold(None, 1_000), Every(86_400)),
            "hybrid: 10 % of the target, every 1 day",
            id="hybrid",
        ),
        pytest.param(
            '{ kind = "either", absolute = "5%", cron = "0 9 1 * *", timezone = "Europe/Berlin" }',
            AnyOf((Threshold(500, None), MONTHLY)),
            "any of: threshold: 5 % of the portfolio; time: 0 9 1 * * in Europe/Berlin",
            id="either",
        ),
        pytest.param(
            f"{{ {REVIEW} }}",
            StagedTrigger(MONTHLY, QUARTERLY),
            "review: 0 9 1 * * in Europe/Berlin, executed 0 9 1 1,4,7,10 * in Europe/Berlin",
            id="review by cron",
        ),
        pytest.param(
            '{ kind = "review", review_every = "7d", execute_cron = "0 9 1 * *", timezone = "Europe/Berlin" }',
            StagedTrigger(Every(604_800), MONTHLY),
            "review: every 7 days, executed 0 9 1 * * in Europe/Berlin",
            id="execution alone by cron",
        ),
        pytest.param(
            '{ kind = "review", review_cron = "0 9 1 * *", execute_every = "28d", timezone = "Europe/Berlin" }',
            StagedTrigger(MONTHLY, Every(2_419_200)),
            "review: 0 9 1 * * in Europe/Berlin, executed every 28 days",
            id="review alone by cron",
        ),
        pytest.param(
            '{ kind = "review", review_every = "7d", execute_every = "28d", relative = "10%", absolute = "5%" }',
            StagedTrigger(Every(604_800), Every(2_419_200), Threshold(500, 1_000)),
            "review: every 7 days, executed every 28 days, beyond 10 % of the target, 5 % of the portfolio",
            id="review by intervals",
        ),
        pytest.param(
            '{ kind = "drawdown", fall = "20%", within = "6h" }',
            Drawdown(2_000, 21_600, (WETH.address,)),
            "drawdown: 20 % within 6 h of WETH",
            id="drawdown",
        ),
        pytest.param(
            '{ kind = "volatility_jump", short = "1d", long = "14d", jump = "200%", assets = ["WETH"] }',
            VolatilityJump(86_400, 1_209_600, 20_000, (WETH.address,)),
            "volatility_jump: 1 day above 200 % of the 14 days before, of WETH",
            id="volatility jump",
        ),
        pytest.param(
            '[{ kind = "threshold", relative = "10%" }, { kind = "drawdown", fall = "15%", within = "1d" }]',
            AnyOf((Threshold(None, 1_000), Drawdown(1_500, 86_400, (WETH.address,)))),
            "any of: threshold: 10 % of the target; drawdown: 15 % within 1 day of WETH",
            id="list",
        ),
    ],
)
def test_a_trigger_is_read_and_told_in_words(written: str, expected: Trigger, words: str) -> None:
    config = parse_config(text(written))
    assert build_policy(config).trigger == expected
    tokens = {WETH.address: Token(WETH.address, "weth", 18), USDC.address: Token(USDC.address, "usdc", 6)}
    parameters = binding_parameters(config, build_portfolio(config, tokens), "0x")
    assert (parameters["trigger"], parameters["only"], parameters["bands of single assets"]) == (words, "both sides", "none")


def test_asset_s_own_band__is_confirmed_by_the_owner() -> None:
    config = parse_config(text('{ kind = "threshold", relative = "10%" }', (BAND, 'band = "2.5%abs" '), (BAND, 'band = "20% rel" ')))
    tokens = {WETH.address: Token(WETH.address, "weth", 18), USDC.address: Token(USDC.address, "usdc", 6)}
    portfolio = build_portfolio(config, tokens)
    assert [asset.band for asset in portfolio.assets] == [Threshold(250, None), Threshold(None, 2_000)]
    assert mentions(binding_parameters(config, portfolio, "0x")["bands of single assets"], "WETH 2.5 %", "USDC 20 %")


@pytest.mark.parametrize("side", TradeSide)
def test_one_side_alone_is_read_and_confirmed(side: TradeSide) -> None:
    config = parse_config(text('{ kind = "threshold", relative = "10%" }', (ONLY, f'only = "{side.value}" ')))
    assert build_policy(config).trade_side is side


SCHEDULE = '{{ kind = "time", {} }}'


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (SCHEDULE.format('every = "29m"'), "policy.trigger.every: 29min"),
        (SCHEDULE.format('every = "29d"'), "policy.trigger.every: 29d"),
        (SCHEDULE.format('cron = "0 9 * * *"'), "policy.trigger.timezone: missing; a cron trigger needs a time zone"),
        (SCHEDULE.format('cron = "0 9 * * *", timezone = "Mars/Olympus"'), "policy.trigger.timezone: 'Mars/Olympus' is unknown"),
        (SCHEDULE.format('cron = "0 0 30 2 *", timezone = "UTC"'), "policy.trigger.cron: '0 0 30 2 *' in UTC never comes"),
        (SCHEDULE.format('every = "1d", timezone = "Mars/Olympus"'), "policy.trigger.timezone: has no effect without a cron time"),
        (
            '{ kind = "review", review_every = "1d", execute_every = "2d", timezone = "UTC" }',
            "policy.trigger.timezone: has no effect without a cron time",
        ),
        (SCHEDULE.format('cron = "0 9 * * *", every = "1d"'), "policy.trigger: give exactly one of every and cron"),
        ('{ kind = "review", review_every = "29m", execute_every = "1d" }', "policy.trigger.review_every: 29min"),
        ('{ kind = "review", review_every = "1d", execute_every = "29d" }', "policy.trigger.execute_every: 29d"),
        ('{ kind = "review", review_every = "2d", execute_every = "1d" }', "policy.trigger.execute_every: 86400 s is less"),
        ('{ kind = "review", review_every = "1d" }', "policy.trigger: give exactly one of execute_every and execute_cron"),
        (
            f"{{ {REVIEW.replace('0 9 1 1,4,7,10 *', '0 9 31 2 *')} }}",
            "policy.trigger.execute_cron: '0 9 31 2 *' in Europe/Berlin never comes",
        ),
        ('{ kind = "drawdown", fall = "0%", within = "1d" }', "policy.trigger.fall: 0 bps is not between 0 and 100 %"),
        ('{ kind = "drawdown", fall = "100%", within = "1d" }', "policy.trigger.fall: 10000 bps"),
        ('{ kind = "drawdown", fall = "20%", within = "59m" }', "policy.trigger.within: 59min"),
        ('{ kind = "drawdown", fall = "20%", within = "29d" }', "policy.trigger.within: 29d"),
        ('{ kind = "drawdown", fall = "20%" }', "policy.trigger.within: missing"),
        ('{ kind = "drawdown", fall = "20%", within = "1d", assets = ["USDC"] }', "'USDC' is not an asset other than the numeraire"),
        ('{ kind = "volatility_jump", short = "5h", long = "7d", jump = "200%" }', "policy.trigger: short 18000 s against long 604800 s"),
        ('{ kind = "volatility_jump", short = "5d", long = "7d", jump = "200%" }', "a long one of at least twice that"),
        ('{ kind = "volatility_jump", short = "1d", long = "7d", jump = "100%" }', "policy.trigger.jump: 10000 bps is not above 100 %"),
        (
            '{ kind = "volatility_jump", short = "1d", long = "7d", jump = "10000.01%" }',
            "policy.trigger.jump: 1000001 bps is not above 100 % and at most 10,000 %",
        ),
        ("[]", "policy.trigger: a list of 0"),
        ('[{ kind = "threshold", relative = "10%" }]', "policy.trigger: a list of 1"),
        ('[{ kind = "threshold", relative = "10%" }, { kind = "time", every = "1m" }]', "policy.trigger.every: 1min"),
        ('[{ kind = "threshold", relative = "10%" }, { kind = "time", evry = "1m" }]', "policy.trigger.1.evry: unknown key"),
        (
            '[{ kind = "threshold", relative = "10%" }, { kind = "either", absolute = "5%", every = "1d" }]',
            'contain a trigger of kind "either"',
        ),
        ('[{ kind = "threshold", relative = "10%" }, { kind = "moon" }]', "policy.trigger.1: "),
        ('{ kind = "moon" }', "policy.trigger: "),
        ('"weekly"', "policy.trigger: "),
        ("7", "policy.trigger: "),
    ],
)
def test_a_trigger_that_cannot_work_is_named_with_its_remedy(written: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text(written))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("written", "changes", "named"),
    [
        pytest.param(
            '{ kind = "time", every = "1d" }',
            [(BAND, 'band = "5%abs" ')],
            "portfolio.assets.WETH.band: the trigger has no bands",
            id="band beside a schedule",
        ),
        pytest.param(
            '{ kind = "drawdown", fall = "9%", within = "1d" }',
            [(BAND, 'band = "5%abs" ')],
            "the trigger has no bands",
            id="band beside a drawdown",
        ),
        pytest.param(
            TEMPLATE[10:], [(BAND, 'band = "5%" ')], "portfolio.assets.WETH.band: '5%' is not a band; write 10%rel", id="band without kind"
        ),
        pytest.param(TEMPLATE[10:], [(BAND, 'band = "0%abs" ')], "portfolio.assets.WETH.band.absolute: 0 bps", id="band of nothing"),
        pytest.param(
            TEMPLATE[10:], [(BAND, 'band = "101%rel" ')], "portfolio.assets.WETH.band.relative: 10100 bps", id="band above a whole"
        ),
        pytest.param(TEMPLATE[10:], [(BAND, "band = 5 ")], "portfolio.assets.WETH.band: 5 is not a band", id="band as a number"),
        pytest.param(TEMPLATE[10:], [(ONLY, 'only = "some" ')], "policy.only", id="unknown side"),
        pytest.param(
            '{ kind = "time", every = "1d" }',
            [(ONLY, 'only = "winners" ')],
            "policy.only: winners needs bands, but the trigger has none",
            id="side without bands",
        ),
        pytest.param(
            '{ kind = "drawdown", fall = "9%", within = "1d" }',
            [('destination = "target"', 'destination = "band"')],
            "policy.destination: band, but the trigger has no band",
            id="destination without bands",
        ),
    ],
)
def test_what_does_not_go_together_is_named_with_its_remedy(written: str, changes: list[tuple[str, str]], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text(written, *changes))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "trigger",
    [
        '{ kind = "threshold", relative = "10%" }',
        '{ kind = "time", every = "7d" }',
        '[{ kind = "threshold", relative = "10%" }, { kind = "time", every = "7d" }]',
    ],
)
def test_risk_without_a_zone__is_named(trigger: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.risk: has no effect without a trigger of kind zone or tracking"):
        parse_config(text(trigger, ("cooldown =", 'risk = { volatilities = { WTEH = "80%" } }\ncooldown =')))


def test_a_zone_goes_with_no_list_no_side_and_no_band() -> None:
    zone = '{ kind = "zone", tracking_error_cost = "0.5bps", horizon = "30d" }'
    risk = ("cooldown =", 'risk = { volatilities = { WETH = "80%", USDC = "0.5%" }, correlation = "0%" }\ncooldown =')
    there = ('destination = "target"', 'destination = "zone"')
    parse_config(text(zone, risk, there))
    for trigger, change, named in (
        (zone, (ONLY, 'only = "sell" '), "policy.only: sell, but a zone with a horizon trades both sides"),
        (zone, (BAND, 'band = "5%abs" '), "the trigger has no bands"),
        (f'[{zone}, {{ kind = "time", every = "1d" }}]', (ONLY, ONLY), "a list cannot contain a zone"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_config(text(trigger, risk, there, change))
        assert named in str(caught.value)


def test_the_page_lists_every_kind_with_its_keys() -> None:
    page = (Path(__file__).parents[3] / "docs" / "triggers.md").read_text(encoding="utf-8")
    lines = [line.split("|")[1:3] for line in page.split("## Kinds")[1].split("```toml")[0].splitlines() if line.startswith("| `")]
    listed = {kind.strip(" `"): set(re.findall(r"`(\w+)`", keys)) for kind, keys in lines}
    assert listed == {kind: {*notation.keys} for kind, notation in NOTATIONS.items()}


def test_every_class_of_triggers_has_its_rules() -> None:
    assert {*RULES} == {*get_args(Trigger)} - {AnyOf}
