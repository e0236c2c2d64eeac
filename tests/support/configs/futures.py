"""The template's config with futures."""

from __future__ import annotations

from tests.support.configs.samples import config_text


def address(number: int) -> str:
    return f"0x{number:040d}"


KEYS = ("clearing_house", "vault", "account_balance", "exchange", "market_registry", "config", "delegate_approval")
FUTURES = "\n".join(
    [
        "\n[futures]",
        'venue = "perpetual_protocol_v2"',
        *(f'{key} = "{address(1 + number)}"' for number, key in enumerate(KEYS)),
        'collateral = "USDC"',
        'leverage = "2x"',
        'band = "5%"',
        f'[[futures.markets]]\nsymbol = "WETH"\nbase = "{address(20)}"\nasset = "WETH"\naggregator = "{address(21)}"\nweight = "60%"',
        f'[[futures.markets]]\nsymbol = "WBTC"\nbase = "{address(22)}"\naggregator = "{address(23)}"\nweight = "-4000bps"',
        '[futures.limits]\nmax_leverage = "4x"\nmax_utilisation = "60%"\nmax_position = "70%"\nspot_multiple = "2.5x"',
        'stress_move = "20%"\nslippage = "0.5%"\nhysteresis = "5%"\nemergency_distance = "5%"\nemergency_slippage = "3%"',
        'max_basis = "2%"\nindex_age = "1h"\n',
    ]
)


def with_futures(*changes: tuple[str, str]) -> str:
    """The template's config with futures, pieces of them replaced."""
    config = FUTURES
    for old, new in changes:
        assert old in config, old
        config = config.replace(old, new, 1)
    return config_text() + config


HYPERLIQUID = (
    '\n[futures]\nvenue = "hyperliquid"\nurl = "http://127.0.0.1:1"\nnetwork = "testnet"\nagent_name = "trimtab"\n'
    'agent_keystore = "agent.json"\ncollateral = "USDC"\nleverage = "2x"\nband = "5%"\n'
    '[[futures.markets]]\nsymbol = "ETH"\nasset = "WETH"\nweight = "60%"\n[[futures.markets]]\nsymbol = "BTC"\nweight = "-40%"\n'
) + FUTURES[FUTURES.index("[futures.limits]") :]
