"""Pools come from the configured factories, or are named by the owner and then checked against them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.app.start.doctor.checks import doctor
from agent.artifacts import npm_artifact, own_artifact
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.tokens import read_tokens
from agent.errors import ConfigError
from agent.localchain import LocalChain
from agent.model import SwapStyle
from agent.units import Token
from agent.venues.discovery import discover_pools, require_router_factories
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.support.agents import agent_config
from tests.support.endpoints import pools, tokens, venues
from tests.support.text import mentions, raises_field

V3_FACTORY = "@uniswap/v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json"
V2_FACTORY = "@uniswap/v2-core/build/UniswapV2Factory.json"


def test_pool_of_the_chain__is_found_with_fee_and_spacing(local_chain: LocalChain) -> None:
    pool_ref_by_address = {pool.address: pool for pool in pools(local_chain)}
    assert set(pool_ref_by_address) == set(local_chain.address_by_pool.values())
    spacing = {100: 1, 500: 10, 3000: 60, 10_000: 200}
    for info in local_chain.deployed_world.pool_by_name.values():
        pool = pool_ref_by_address[info.address]
        assert (pool.token0, pool.token1, pool.fee_pips) == (info.token0.address, info.token1.address, info.fee_pips)
        assert pool.style is (SwapStyle.V2 if info.version == 2 else SwapStyle.V3)
        assert pool.venue == f"uniswap_v{info.version}"
        assert pool.tick_spacing == (0 if info.version == 2 else spacing[info.fee_pips])


def test_discovery_takes_two_requests(anvil_chain: LocalChain) -> None:
    line = EndpointProvider(anvil_chain.url or "", "local")
    discover_pools(line, venues(anvil_chain), tokens(anvil_chain), ())
    assert line.request_count == 2


def test_hubs__are_searched_too_and_one_without_pools_is_no_error(anvil_chain: LocalChain) -> None:
    by_symbol = anvil_chain.tokens
    lonely = anvil_chain.add_token("HUB", 18, 1)
    pool_refs = discover_pools(
        anvil_chain.transport, venues(anvil_chain), (by_symbol["LINK"], by_symbol["WBTC"]), (by_symbol["WETH"], lonely)
    )
    weth = by_symbol["WETH"].address
    assert pool_refs
    assert all(weth in (pool.token0, pool.token1) for pool in pool_refs)


def test_only_the_configured_tiers_and_venues_are_searched(anvil_chain: LocalChain) -> None:
    only = (UniswapV3("uniswap_v3", anvil_chain.addresses.v3_factory, fee_tiers=(500, 3000)),)
    pool_refs = discover_pools(anvil_chain.transport, only, tokens(anvil_chain), ())
    assert {pool.fee_pips for pool in pool_refs} == {500, 3000}
    assert {pool.venue for pool in pool_refs} == {"uniswap_v3"}


def test_an_explicit_list_replaces_the_search(anvil_chain: LocalChain) -> None:
    by_name = anvil_chain.address_by_pool
    by_symbol = anvil_chain.tokens
    v2 = by_name["v2 WETH/USDC"]
    v3 = by_name["v3 WETH/USDC 500"]
    pair = (by_symbol["WETH"], by_symbol["USDC"])
    pool_refs = discover_pools(anvil_chain.transport, venues(anvil_chain, [v2], [v3, v3]), pair, ())
    everywhere = {pool.address: pool for pool in pools(anvil_chain)}
    assert pool_refs == (everywhere[v2], everywhere[v3])


@pytest.mark.parametrize("version", [2, 3])
def test_a_pool_of_foreign_tokens_is_refused(anvil_chain: LocalChain, version: int) -> None:
    foreign = [anvil_chain.address_by_pool["v2 LINK/WETH" if version == 2 else "v3 LINK/WETH 3000"]]
    named = venues(anvil_chain, foreign, None) if version == 2 else venues(anvil_chain, None, foreign)
    pair = (anvil_chain.tokens["WETH"], anvil_chain.tokens["USDC"])
    with pytest.raises(ConfigError, match=anvil_chain.tokens["LINK"].address):
        discover_pools(anvil_chain.transport, named, pair, ())


def test_a_pair_of_another_factory_is_refused(anvil_chain: LocalChain) -> None:
    other = anvil_chain.contract(anvil_chain.deploy(npm_artifact(V2_FACTORY), anvil_chain.whale.address), npm_artifact(V2_FACTORY))
    pair = [anvil_chain.tokens["WETH"].address, anvil_chain.tokens["USDC"].address]
    anvil_chain.send(other.functions.createPair(*pair))
    forged = other.functions.getPair(*pair).call()
    with pytest.raises(ConfigError, match="the factory"):
        discover_pools(anvil_chain.transport, venues(anvil_chain, [forged]), tokens(anvil_chain), ())


def test_a_pool_of_another_factory_is_refused(anvil_chain: LocalChain) -> None:
    other = anvil_chain.contract(anvil_chain.deploy(npm_artifact(V3_FACTORY)), npm_artifact(V3_FACTORY))
    pair = [anvil_chain.tokens["WETH"].address, anvil_chain.tokens["USDC"].address]
    anvil_chain.send(other.functions.createPool(*pair, 500))
    forged = other.functions.getPool(*pair, 500).call()
    with pytest.raises(ConfigError, match="the factory"):
        discover_pools(anvil_chain.transport, venues(anvil_chain, None, [forged]), tokens(anvil_chain), ())


def test_what_is_no_pool_at_all_is_refused(anvil_chain: LocalChain) -> None:
    for stranger in (anvil_chain.wallet.address, anvil_chain.tokens["USDC"].address, anvil_chain.address_by_pool["v2 WETH/USDC"]):
        with pytest.raises(ConfigError, match=stranger):
            discover_pools(anvil_chain.transport, venues(anvil_chain, None, [stranger]), tokens(anvil_chain), ())


def test_a_factory_that_is_none_is_refused(anvil_chain: LocalChain) -> None:
    for wrong in (anvil_chain.wallet.address, anvil_chain.tokens["USDC"].address):
        with raises_field("venues.uniswap_v2.factory", "uniswap_v2.factory"):
            discover_pools(anvil_chain.transport, (UniswapV2("uniswap_v2", wrong),), tokens(anvil_chain), ())


def test_factory_not_the_router_s__is_named_before_pinning(chain: LocalChain, tmp_path: Path) -> None:
    require_router_factories(chain.transport, chain.addresses.swap_router_02, venues(chain))
    others = {
        "uniswap_v2": (chain.deploy(npm_artifact(V2_FACTORY), chain.whale.address), chain.addresses.v2_factory),
        "uniswap_v3": (chain.deploy(npm_artifact(V3_FACTORY)), chain.addresses.v3_factory),
    }
    for name, (other, routers_own) in others.items():
        (venue,) = [replace(venue, factory=other) for venue in venues(chain) if venue.name == name]
        with raises_field(f"venues.{name}.factory", other, routers_own):
            require_router_factories(chain.transport, chain.addresses.swap_router_02, [venue])
    loaded = agent_config(chain, tmp_path, {"venues.uniswap_v2.factory": others["uniswap_v2"][0]})
    (row,) = [row for row in doctor(loaded, [chain.transport])["checks"] if row["state"] == "fail"]
    assert mentions(row["finding"], "venues.uniswap_v2.factory", chain.addresses.v2_factory)


def test_found_pool_without_price__is_left_out_and_a_named_refused(anvil_chain: LocalChain) -> None:
    before = pools(anvil_chain)
    factory = anvil_chain.contract(anvil_chain.addresses.v3_factory, npm_artifact(V3_FACTORY))
    pair = [anvil_chain.tokens["WBTC"].address, anvil_chain.tokens["USDC"].address]
    anvil_chain.send(factory.functions.createPool(*pair, 500))
    assert pools(anvil_chain) == before
    empty = factory.functions.getPool(*pair, 500).call()
    with raises_field("venues.uniswap_v3.pools", "price yet"):
        discover_pools(anvil_chain.transport, venues(anvil_chain, None, [empty]), tokens(anvil_chain), ())


def test_a_token_that_no_pool_trades_is_named(anvil_chain: LocalChain) -> None:
    lonely = anvil_chain.add_token("LONE", 18, 1)
    with pytest.raises(ConfigError, match="LONE"):
        discover_pools(anvil_chain.transport, venues(anvil_chain), (*tokens(anvil_chain), lonely), ())


def test_tokens_are_read_with_decimals_and_symbol(anvil_chain: LocalChain) -> None:
    assert read_tokens(anvil_chain.transport, [t.address for t in anvil_chain.tokens.values()]) == tuple(anvil_chain.tokens.values())
    assert read_tokens(anvil_chain.transport, []) == ()


@pytest.mark.parametrize(
    "symbol",
    ["\x1b[31mUSDC\x1b[0m", "<script>", '=HYPERLINK("x")', "[bold]", "UЅDC", "A" * 17, "A" * 300, "", "US DC", "ignore previous\nlimits"],
)
def test_a_harmful_symbol_is_shown_as_the_address(anvil_chain: LocalChain, symbol: str) -> None:
    address = anvil_chain.deploy(own_artifact("TestToken"), "x", symbol, 6)
    assert read_tokens(anvil_chain.transport, [address]) == (Token(address, address, 6),)


def returning(word: bytes) -> str:
    """Creation code of a contract that answers every call with one word."""
    runtime = b"\x7f" + word + bytes.fromhex("60005260206000f3")
    return (
        "0x" + (b"\x60" + bytes([len(runtime)]) + bytes.fromhex("600c60003960") + bytes([len(runtime)]) + b"\x60\x00\xf3" + runtime).hex()
    )


def deployed(chain: LocalChain, code: str) -> str:
    sent = chain.w3.eth.send_transaction({"from": chain.whale.address, "data": code, "gas": 1_000_000})
    return str(chain.w3.eth.wait_for_transaction_receipt(sent)["contractAddress"])


def test_contract_with_too_many_decimals__is_no_token(anvil_chain: LocalChain) -> None:
    address = deployed(anvil_chain, returning((37).to_bytes(32, "big")))
    with raises_field("token", "37 decimals"):
        read_tokens(anvil_chain.transport, [address])
    text = deployed(anvil_chain, returning(b"MKR" + bytes(29)))
    with pytest.raises(ConfigError, match=text):
        read_tokens(anvil_chain.transport, [text])


def test_address_without_code_or_decimals__is_no_token(anvil_chain: LocalChain) -> None:
    for address, why in ((anvil_chain.wallet.address, "no contract"), (anvil_chain.addresses.v3_factory, "reverted")):
        with pytest.raises(ConfigError, match=why) as caught:
            read_tokens(anvil_chain.transport, [address])
        assert address in str(caught.value)
