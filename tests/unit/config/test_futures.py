"""[futures]: contracts, markets and limits become a policy, and every mistake is named with its remedy."""

from __future__ import annotations

import pytest

from agent import codec
from agent.config.build import build_portfolio, contract_names
from agent.config.futures import build_futures, require_hedge_market
from agent.config.load import parse_config
from agent.errors import ConfigError
from agent.model import Cron, Every, Schedule
from agent.model.futures import FuturesLimits, FuturesPolicy, FuturesTarget, HedgePolicy, PerpOrderKind
from agent.wiring.futures import perp_addresses, perp_scope
from tests.support.builders import token
from tests.support.configs.futures import FUTURES, HYPERLIQUID, KEYS, address, with_futures
from tests.support.configs.samples import USDC_PRESET, WALLET, WETH_PRESET, config_text, tokens
from tests.support.constants import DAY_S
from tests.support.perpetuals.plans import HALVES, ROUGH


def futures_error(*changes: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(with_futures(*changes))
    return str(caught.value)


def refusal(config: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(config)
    return str(caught.value)


def test_a_numeraire_other_than_the_margin_is_refused() -> None:
    """A coin of the numeraire counts as one coin of margin: 1 WETH of spot would count as 1 USDC, in limits and costs too."""
    in_weth = 'numeraire = "WETH"'
    for venue in (FUTURES, HYPERLIQUID):
        config_error = refusal(config_text(('numeraire = "USDC"', in_weth)) + venue)
        assert "futures.collateral: 'USDC' is not portfolio.numeraire 'WETH'" in config_error
        assert 'write portfolio.numeraire = "USDC", or remove [futures]' in config_error
    assert parse_config(config_text(('numeraire = "USDC"', in_weth))).futures is None


def test_hyperliquid_is_refused_with_another_margin_than_its_own() -> None:
    config_error = refusal(
        (config_text(('numeraire = "USDC"', 'numeraire = "WETH"')) + HYPERLIQUID).replace('collateral = "USDC"', 'collateral = "WETH"')
    )
    assert "futures.collateral: 'WETH' is not the USDC that the venue settles in" in config_error


def test_futures_become_a_policy_and_a_scope() -> None:
    config = parse_config(with_futures())
    portfolio = build_portfolio(config, tokens())
    by_symbol = {asset.token.symbol: asset.token for asset in portfolio.assets}
    assert build_futures(config, by_symbol) == FuturesPolicy(
        (FuturesTarget(address(20), 6_000), FuturesTarget(address(22), -4_000)),
        20_000,
        500,
        FuturesLimits(40_000, 6_000, 7_000, 25_000, 2_000, 50, 500, 500, 300, 200, 3_600, 20_000, 1_000, emergency_cooldown_s=86_400),
        USDC_PRESET.address,
        WALLET,
        vault=address(2),
        margin_in_weights=False,
    )
    scope = perp_scope(config, portfolio)
    contracts = perp_addresses(config)
    assert (scope.trader, scope.collateral, scope.vault) == (WALLET, by_symbol["USDC"], address(2))
    assert [(market.base, market.symbol, market.asset, market.aggregator) for market in scope.markets] == [
        (address(20), "WETH", WETH_PRESET.address, address(21)),
        (address(22), "WBTC", "", address(23)),
    ]
    assert (contracts.clearing_house, contracts.delegate_approval, contracts.trader) == (address(1), address(7), WALLET)


def test_another_account_may_be_the_trader() -> None:
    config = parse_config(with_futures(("collateral =", f'account = "{address(9)}"\ncollateral =')))
    scope = perp_scope(config, build_portfolio(config, tokens()))
    contracts = perp_addresses(config)
    assert (scope.trader, contracts.trader) == (address(9), address(9))


def test_every_contract_of_the_venue_is_pinned() -> None:
    plain = parse_config(config_text())
    config = parse_config(with_futures())
    named = {address: name for address, name in contract_names(config).items() if address not in contract_names(plain)}
    assert named == {
        **{address(1 + number): f"futures {key.replace('_', ' ')}" for number, key in enumerate(KEYS)},
        address(20): "futures market WETH",
        address(21): "futures index WETH",
        address(22): "futures market WBTC",
        address(23): "futures index WBTC",
    }


def test_without_futures_there_is_no_policy() -> None:
    config = parse_config(config_text())
    assert build_futures(config, {}) is None
    assert perp_scope(config, build_portfolio(config, tokens())) is None
    assert perp_addresses(config) is None


def test_limits_that_may_be_off_are_zero() -> None:
    changes = (
        ('band = "5%"', 'band = "off"'),
        ('spot_multiple = "2.5x"', 'spot_multiple = "off"'),
        ('stress_move = "20%"', 'stress_move = "off"'),
        ('emergency_distance = "5%"', 'emergency_distance = "off"'),
    )
    config = parse_config(with_futures(*changes))
    policy = build_futures(config, {asset.token.symbol: asset.token for asset in build_portfolio(config, tokens()).assets})
    limits = policy.limits
    assert (policy.band_bps, limits.spot_multiple_bps, limits.stress_move_bps, limits.emergency_distance_bps) == (0, 0, 0, 0)


HEDGE = 'index_age = "1h"\n[futures.hedge]\nratio = "50%"\nhorizon = "30d"\nmin_saving = "0.5%"\ntax_rate = "25%"\ncapital_cost = "400bps"'


def test_terms_of_hedges_are_read_and_need_a_market() -> None:
    config = parse_config(with_futures(('index_age = "1h"', HEDGE)))
    policy = build_futures(config, {asset.token.symbol: asset.token for asset in build_portfolio(config, tokens()).assets})
    assert policy.hedge_policy == HedgePolicy(5_000, 30 * 86_400, 50, 2_500, 400)
    assert "futures.hedge: no market has an asset; add asset" in futures_error(('index_age = "1h"', HEDGE), ('asset = "WETH"\n', ""))
    require_hedge_market(config, "WETH")
    with pytest.raises(ConfigError, match="hedge: USDC has no futures market"):
        require_hedge_market(config, "USDC")


def test_an_account_that_only_hedges_has_no_weights() -> None:
    changes = (('leverage = "2x"', 'leverage = "0x"'), ('weight = "60%"', 'weight = "0%"'), ('weight = "-4000bps"', 'weight = "0%"'))
    assert parse_config(with_futures(*changes)).futures is not None
    assert "absolute weights sum to 0 %" in futures_error(*changes[1:])


def test_a_funding_horizon_counts_only_where_it_is_given() -> None:
    for line, seconds in (
        ('band = "5%"', 0),
        ('band = "5%"\nfunding_horizon = "7d"', 604_800),
        ('band = "5%"\nfunding_horizon = "off"', 0),
    ):
        config = parse_config(with_futures(('band = "5%"', line)))
        policy = build_futures(config, {asset.token.symbol: asset.token for asset in build_portfolio(config, tokens()).assets})
        assert policy.funding_horizon_s == seconds


DECIDING = (
    *('leverage = "2x"', 'band = "5%"', 'weight = "60%"', 'max_leverage = "4x"', 'max_utilisation = "60%"', 'max_position = "70%"'),
    *('spot_multiple = "2.5x"', 'stress_move = "20%"', '\nslippage = "0.5%"', 'hysteresis = "5%"', 'emergency_distance = "5%"'),
    *('emergency_slippage = "3%"', 'max_basis = "2%"', 'index_age = "1h"', 'collateral = "USDC"', f'vault = "{address(2)}"'),
)


@pytest.mark.parametrize("line", DECIDING)
def test_nothing_that_decides_money_has_a_default(line: str) -> None:
    key = line.strip().split(" = ")[0]
    assert f"{key}: missing" in futures_error((line, "\n"))


SHARES = tuple(line.strip() for line in DECIDING if line.strip().split(" = ")[0] not in ("index_age", "collateral", "vault"))


@pytest.mark.parametrize("line", SHARES)
def test_a_share_without_its_unit_is_refused(line: str) -> None:
    key = line.split(" = ", maxsplit=1)[0]
    assert f'{key}: "0.5" has no unit' in futures_error((f"\n{line}", f'\n{key} = "0.5"')).replace("'", '"')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            ('venue = "perpetual_protocol_v2"', 'venue = "moon"'),
            "futures: 'moon' is not a kind; choose from 'perpetual_protocol_v2', 'hyperliquid'",
        ),
        (('collateral = "USDC"', 'collateral = "DAI"'), "futures.collateral: 'DAI' is not an asset; choose from WETH, USDC"),
        (('asset = "WETH"', 'asset = "WBTC"'), "futures.markets.WETH.asset: 'WBTC' is not an asset; choose from WETH, USDC"),
        (('weight = "-4000bps"', 'weight = "-30%"'), "futures.markets: absolute weights sum to 90 %, not 100 %; add 10 %"),
        (('weight = "-4000bps"', 'weight = "50%"'), "futures.markets: absolute weights sum to 110 %, not 100 %; take away 10 %"),
        (('weight = "60%"', 'weight = "75%"'), "futures.markets.WETH.weight: 75 % is beyond futures.limits.max_position of 70 %"),
        (('symbol = "WBTC"', 'symbol = "WETH"'), "futures.markets.WETH: given twice; list each market once"),
        ((address(22), address(20)), "futures.markets.WBTC.base: " + address(20) + " is given twice"),
        (('leverage = "2x"', 'leverage = "5x"'), "futures.leverage: 5x is above futures.limits.max_leverage of 4x; lower it"),
        (('max_leverage = "4x"', 'max_leverage = "0x"'), "max_leverage: 0x; write above 0x and at most 10x"),
        (('max_leverage = "4x"', 'max_leverage = "20x"'), "max_leverage: 20x; write above 0x and at most 10x"),
        (('max_utilisation = "60%"', 'max_utilisation = "120%"'), "max_utilisation: 120 %; write above 0 % and at most 100 %"),
        (('\nslippage = "0.5%"', '\nslippage = "50%"'), "slippage: 50 %; write above 0 % and at most 5 %"),
        (('emergency_slippage = "3%"', 'emergency_slippage = "0.1%"'), "emergency_slippage: 0.1 % is below slippage of 0.5 %"),
        (('hysteresis = "5%"', 'hysteresis = "100%"'), "hysteresis: is not below 100 %; write for example 20%"),
        (('band = "5%"', 'band = "5%"\nfunding_horizon = "400d"'), "futures.funding_horizon: 34560000s; write above 0s and at most 365d"),
        (('index_age = "1h"', HEDGE.replace("50%", "120%")), "ratio: 120 %; write above 0 % and at most 100 %"),
        (('index_age = "1h"', HEDGE.replace("50%", "0%")), "ratio: 0 %; write above 0 % and at most 100 %"),
        (('index_age = "1h"', HEDGE.replace("30d", "400d")), "horizon: 34560000s; write above 0s and at most 365d"),
        (('index_age = "1h"', HEDGE.replace("25%", "101%")), "tax_rate: 101 %; write at most 100 %"),
        (('index_age = "1h"', HEDGE.replace('min_saving = "0.5%"\n', "")), "futures.hedge.min_saving: missing"),
        (
            ('index_age = "1h"', 'index_age = "1h"\nmax_reduction_per_day = "0%"'),
            "max_reduction_per_day: is zero; write a value above zero",
        ),
        (('index_age = "1h"', 'index_age = "1h"\nmax_reduction_per_day = "0x"'), 'or "off" for no bound'),
        (('index_age = "1h"', 'index_age = "1h"\nemergency_gas_price = "0 gwei"'), "emergency_gas_price: is zero"),
        (('index_age = "1h"', 'index_age = "1h"\nemergency_gas_per_day = "0.0"'), "emergency_gas_per_day: is zero"),
        (('index_age = "1h"', 'index_age = "2d"'), "index_age: 172800s; write above 0s and at most 1d"),
        (('index_age = "1h"', 'indexage = "1h"'), "futures.limits.indexage: unknown key; did you mean index_age?"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(change: tuple[str, str], reason: str) -> None:
    assert reason in futures_error(change)


def test_hyperliquid_becomes_a_policy_without_contracts() -> None:
    config = parse_config(config_text() + HYPERLIQUID)
    portfolio = build_portfolio(config, tokens())
    policy = build_futures(config, {asset.token.symbol: asset.token for asset in portfolio.assets})
    assert policy.targets == (FuturesTarget("ETH", 6_000), FuturesTarget("BTC", -4_000))
    assert (policy.trader, policy.collateral) == (WALLET, USDC_PRESET.address)
    assert perp_scope(config, portfolio) is None
    assert perp_addresses(config) is None
    assert contract_names(config) == contract_names(parse_config(config_text()))


@pytest.mark.parametrize(
    ("order_type", "kind"), [("ioc", PerpOrderKind.MARKET), ("gtc", PerpOrderKind.LIMIT), ("post_only", PerpOrderKind.POST_ONLY)]
)
def test_hyperliquid_order_type__becomes_the_kind_of_openings(order_type: str, kind: PerpOrderKind) -> None:
    keys = f'band = "5%"\norder_type = "{order_type}"\norder_time = "1h"\n'
    config = parse_config(config_text() + HYPERLIQUID.replace('band = "5%"\n', keys))
    portfolio = build_portfolio(config, tokens())
    policy = build_futures(config, {asset.token.symbol: asset.token for asset in portfolio.assets})
    assert (policy.order_kind, policy.order_time_s) == (kind, 3_600)


def test_order_type_without_resting_or_a_time__is_refused() -> None:
    key = 'band = "5%"\norder_type = "gtc"\n'
    assert 'futures.order_type: "gtc"; only Hyperliquid has resting orders: write "ioc"' in futures_error(('band = "5%"\n', key))
    missing = refusal(config_text() + HYPERLIQUID.replace('band = "5%"\n', key))
    assert "futures.order_time: missing" in missing
    assert "for example 1h" in missing
    for time, duration in (("30s", "30s"), ("31d", "2678400s")):
        timed = HYPERLIQUID.replace('band = "5%"\n', f'{key}order_time = "{time}"\n')
        assert f"futures.order_time: {duration}; write 1m to 30d" in refusal(config_text() + timed)
    assert "order_type" in refusal(config_text() + HYPERLIQUID.replace('band = "5%"\n', 'band = "5%"\norder_type = "fok"\n'))


def test_hyperliquid_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.config.tables.futures.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'trimtab\[hyperliquid\]'"):
        parse_config(config_text() + HYPERLIQUID)
    assert parse_config(with_futures()).futures is not None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param('url = "http://127.0.0.1:1"\n', "", "futures: give exactly one of url and url_env", id="no address"),
        pytest.param(
            'agent_keystore = "agent.json"',
            'agent_keystore = "a"\nagent_key_env = "B"',
            "more than one source of the agent key",
            id="two key sources",
        ),
        pytest.param(
            'network = "testnet"', 'network = "both"', "futures.network: choose from 'mainnet' or 'testnet'", id="unknown network"
        ),
        pytest.param('agent_name = "trimtab"\n', "", "futures.agent_name: missing", id="no agent name"),
        pytest.param('symbol = "BTC"', 'symbol = "ETH"', "futures.markets.ETH: given twice", id="repeated market"),
        pytest.param('network = "testnet"\n', 'network = "testnet"\nvault = "0x00"\n', "futures.vault: unknown key", id="unknown key"),
    ],
)
def test_each_mistake_in_hyperliquid_is_named(old: str, new: str, reason: str) -> None:
    assert old in HYPERLIQUID
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text() + HYPERLIQUID.replace(old, new, 1))
    assert reason in str(caught.value)


def test_policy__is_read_back_with_and_without_optional_keys() -> None:
    plain = codec.dumps(FuturesPolicy(HALVES, 20_000, 500, ROUGH))
    full = FuturesPolicy(HALVES, 20_000, 500, ROUGH, leverage_band_bps=2_000, manual_triggers=("drift",))
    assert codec.loads(FuturesPolicy, codec.dumps(full)) == full
    assert codec.loads(FuturesPolicy, plain) == FuturesPolicy(HALVES, 20_000, 500, ROUGH)


def test_config__names_band_of_the_total_and_asking_triggers() -> None:
    config = parse_config(with_futures(('band = "5%"', 'band = "5%"\nleverage_band = "20%"\nask = ["leverage", "drift"]')))
    policy = build_futures(config, {asset.symbol: token(asset.symbol) for asset in config.portfolio.assets})
    assert (policy.leverage_band_bps, policy.manual_triggers) == (2_000, ("leverage", "drift"))
    assert "futures.ask" in futures_error(('band = "5%"', 'band = "5%"\nask = ["whim"]'))


@pytest.mark.parametrize(("notional", "multiple"), [("1.5x", 15_000), ("4x", 25_000), ("off", 25_000)])
def test_the_tighter_bound_on_the_notional_counts(notional: str, multiple: int) -> None:
    text = with_futures().replace("[limits]", f'[limits]\nfutures_notional = "{notional}"', 1)
    config = parse_config(text)
    policy = build_futures(config, {asset.symbol: token(asset.symbol) for asset in config.portfolio.assets})
    assert policy.limits.spot_multiple_bps == multiple


def test_a_bound_of_zero_is_no_bound_and_is_refused() -> None:
    assert "futures.limits.spot_multiple: 0x allows no futures" in futures_error(('spot_multiple = "2.5x"', 'spot_multiple = "0x"'))


@pytest.mark.parametrize(
    ("keys", "schedule"),
    [
        ('every = "7d"', Every(7 * DAY_S)),
        ('every = "30m"', Every(1_800)),
        ('cron = "0 0 * * *"\ntimezone = "UTC"', Cron("0 0 * * *", "UTC")),
        ('cron = "30 9 * * mon"\ntimezone = "Europe/Berlin"', Cron("30 9 * * mon", "Europe/Berlin")),
    ],
)
def test_config__names_the_schedule(keys: str, schedule: Schedule) -> None:
    config = parse_config(with_futures(('band = "5%"', f'band = "5%"\n{keys}')))
    policy = build_futures(config, {asset.symbol: token(asset.symbol) for asset in config.portfolio.assets})
    assert policy.schedule == schedule
    assert codec.loads(FuturesPolicy, codec.dumps(policy)) == policy


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('every = "7d"\ncron = "0 0 * * *"\ntimezone = "UTC"', "futures: give exactly one of every and cron"),
        ('every = "7d"\ntimezone = "UTC"', "futures.timezone: has no effect without a cron time"),
        ('timezone = "UTC"', "futures: give exactly one of every and cron"),
        ('cron = "0 0 * * *"', "futures.timezone: missing"),
        ('cron = "0 0 * *"\ntimezone = "UTC"', "futures.cron: '0 0 * *' has 4 fields"),
        ('cron = "0 25 * * *"\ntimezone = "UTC"', "futures.cron: '0 25 * * *': '25' is not a hour"),
        ('cron = "0 0 30 2 *"\ntimezone = "UTC"', "futures.cron: '0 0 30 2 *' in UTC never comes"),
        ('cron = "0 0 * * *"\ntimezone = "Mars"', "futures.timezone: 'Mars' is unknown"),
        ('every = "29m"', "futures.every: 29min"),
        ('every = "29d"', "futures.every: 29d"),
        ('every = "often"', "futures"),
    ],
)
def test_config__refuses_a_schedule_that_is_none(keys: str, message: str) -> None:
    assert message in futures_error(('band = "5%"', f'band = "5%"\n{keys}'))
