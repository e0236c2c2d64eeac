"""[[venues]]: which deployments a config may name, each mistake told with its key."""

from __future__ import annotations

from typing import Any

import pytest

from agent.config.load import parse_config
from agent.errors import ConfigError
from tests.support.configs.samples import config_error, config_text
from tests.support.text import raises_field

WETH = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
SUSHI = "0xC0AEe478e3658e2610c5F7A4A2E1777cE9e4f2Ac"
SUSHI_ROUTER = "0xd9e1cE17f2641f24aE83637ab66a2cca9C378B9F"
HASH = "0xe18a34eb0e04b04f7a0ac29a6e80748dca96319b42c54d679cb821dca90c6303"
ATOMIC = ('router = "swap_router_02"', f'router = "rebalancer"\nrebalancer = "{SUSHI}"')


def table(**keys: Any) -> tuple[str, str]:
    """A further deployment, before the policy."""
    lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    return "\n[policy]\n", f"\n[[venues]]\n{lines}\n[policy]\n"


FORK = {"kind": "uniswap_v2", "label": "sushi", "factory": SUSHI, "router": SUSHI_ROUTER, "init_code_hash": HASH}


def test_deployments_of_a_kind__have_their_own_labels() -> None:
    config = parse_config(config_text(table(**FORK), ATOMIC))
    assert [venue.name for venue in config.venues] == ["uniswap_v2", "uniswap_v3", "uniswap_v2/sushi"]
    assert config.venues[2].fee_pips == 0
    dear = parse_config(config_text(table(**FORK, fee="0.25%"), ATOMIC))
    assert dear.venues[2].fee_pips == 2_500


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"label": None}, "venues.uniswap_v2: given twice"),
        ({"factory": "0x5C69bEe701ef814a2B6a3EDD4B1652CB9cc5aA6f"}, "venues.uniswap_v2/sushi.factory: given twice"),
        ({"kind": "curve"}, "kind 'curve' is not known; use uniswap_v2, uniswap_v3, pancake_v3, slipstream, uniswap_v4, uniswap_v4_native"),
        ({"router": None}, "router is missing; uniswap_v2 needs it"),
        ({"quoter": SUSHI}, "quoter is not a key of uniswap_v2"),
        ({"fee": "0%"}, "fee is 0"),
        ({"fee": "10.01%"}, "fee is above 10%; write that of the pairs, such as 0.25%"),
        ({"label": "Sushi!"}, "venues.uniswap_v2.label"),
        ({"init_code_hash": "0x12"}, "venues.uniswap_v2.init_code_hash"),
    ],
)
def test_a_mistake_is_named(keys: dict[str, Any], words: str) -> None:
    changed = {key: value for key, value in (FORK | keys).items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text(table(**changed), ATOMIC))
    assert words in str(caught.value)


@pytest.mark.parametrize("keys", [FORK, {"kind": "uniswap_v2", "label": "x", "factory": SUSHI, "router": SUSHI_ROUTER, "fee": "0.25%"}])
def test_swap_router_02_trades_at_no_fork(keys: dict[str, str]) -> None:
    assert "execution.router swap_router_02 does not trade there" in config_error(table(**keys))
    pancake = {"kind": "pancake_v3", "factory": SUSHI, "deployer": SUSHI_ROUTER, "quoter": SUSHI}
    with raises_field("venues.pancake_v3", "does not trade there"):
        parse_config(config_text(("\n[policy]\n", table(**pancake)[1].replace("\n\n[policy]", "\nfee_tiers = [500]\n\n[policy]"))))


@pytest.mark.parametrize("fee_pips", [-1, 100_001])
def test_fee_tier__is_a_share_that_a_swap_can_pay(fee_pips: int) -> None:
    text = config_text().replace("fee_tiers = [", f"fee_tiers = [{fee_pips}, ", 1)
    assert f"[{fee_pips}, " in text
    with raises_field("venues.uniswap_v3.fee_tiers.0"):
        parse_config(text)


V4 = {"kind": "uniswap_v4", "factory": SUSHI, "quoter": SUSHI_ROUTER}


@pytest.mark.parametrize(
    ("tiers", "keys", "words"),
    [
        pytest.param([[0x800000, 60]], {}, "[8388608, 60] has the flag of a dynamic fee", id="dynamic fee"),
        pytest.param([[100_001, 60]], {}, "[100001, 60] is not a fee of 0 to 100000 millionths", id="fee too large"),
        pytest.param([[3_000, 0]], {}, "[3000, 0] is not a fee", id="no tick spacing"),
        pytest.param([[3_000]], {}, "tiers", id="no pair"),
        pytest.param(
            [[3_000, 60]],
            {"hooks": "0x0000000000000000000000000000000000A000c4"},
            "may take part of a swap's amounts",
            id="hooks that take a part",
        ),
        pytest.param(
            [[3_000, 60]], {"hooks": "0x0000000000000000000000000000000000000000"}, "is the zero address", id="zero address as hooks"
        ),
        pytest.param([[3_000, 60]], {"state_view": SUSHI}, "state_view", id="foreign state view"),
    ],
)
def test_pools_of_v4_are_named_by_static_fees_and_neutral_hooks(tiers: list[list[int]], keys: dict[str, str], words: str) -> None:
    before, after = table(**V4, **keys)
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text((before, after.replace("\n\n[policy]", f"\ntiers = {tiers}\n\n[policy]")), ATOMIC))
    assert words in str(caught.value)


def test_pools_of_the_native_coin__go_with_its_wrapped_form_alone() -> None:
    before, after = table(**V4 | {"kind": "uniswap_v4_native"})
    native = (before, after.replace("\n\n[policy]", "\ntiers = [[500, 10]]\n\n[policy]"))
    assert parse_config(config_text(native, ATOMIC)).venues[2].name == "uniswap_v4_native"
    with raises_field("venues.uniswap_v4_native", "while the native coin is an asset"):
        parse_config(config_text(native, ATOMIC, (f'address = "{WETH}"', 'address = "native"')))
