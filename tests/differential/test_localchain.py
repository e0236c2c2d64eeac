"""The embedded chain is what its description says, on both nodes, and its verbs do what they promise."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest
from web3.types import Wei

from agent.amm.v3.pool import V3Pool
from agent.artifacts import npm_artifact, own_artifact
from agent.localchain import DEFAULT_WORLD, LocalChain, TokenKind
from agent.localchain.chain import POSITION_MANAGER_ARTIFACT
from agent.localchain.config import IN_PROCESS_URL
from agent.localchain.nodes import AnvilNode
from agent.units import PIPS
from tests.support.worlds import ANVIL_OFTEN, mint_mainnet_pool, pool_contract, price_now, read_pool, recorded_pool

WEEK_S = 7 * 24 * 3600


def _distance(chain: LocalChain, name: str) -> Fraction:
    """How far the pool's price is from the world price, relative."""
    pool = chain.deployed_world.pool_by_name[name]
    return abs(price_now(chain, name) / chain.pool_price(pool.token0.symbol, pool.token1.symbol) - 1)


def test_the_world_is_as_wide_as_the_description_asks(local_chain: LocalChain) -> None:
    assert {token.decimals for token in local_chain.tokens.values()} == {6, 8, 18}
    assert len(local_chain.tokens) == 5
    fees = {(pool.version, pool.fee_pips) for pool in local_chain.deployed_world.pool_by_name.values()}
    assert fees == {(2, 3_000), (3, 100), (3, 500), (3, 3_000), (3, 10_000)}
    assert len(local_chain.address_by_pool) == len(set(local_chain.address_by_pool.values())) >= 8


def test_every_pool_starts_at_the_seeded_price(local_chain: LocalChain) -> None:
    for name in local_chain.address_by_pool:
        assert _distance(local_chain, name) < Fraction(1, 10**6), name


def test_v3_liquidity_lies_in_overlapping_ranges(anvil_chain: LocalChain) -> None:
    for name, pool in anvil_chain.deployed_world.pool_by_name.items():
        if pool.version == 3:
            state = read_pool(anvil_chain, name)
            assert isinstance(state, V3Pool)
            inside = sum(tick.liquidity_net for tick in state.ticks if tick.index <= state.tick)
            assert len(state.ticks) >= 8, name
            assert inside == state.liquidity > 0, name


def test_both_chains_hold_the_same_world_at_the_same_addresses(tester_chain: LocalChain, anvil_chain: LocalChain) -> None:
    assert (tester_chain.chain_id, anvil_chain.chain_id) == (131277322940537, 31337)
    assert tester_chain.addresses == anvil_chain.addresses
    assert tester_chain.deployed_world == anvil_chain.deployed_world
    assert tester_chain.wallet == anvil_chain.wallet
    for name in tester_chain.address_by_pool:
        assert read_pool(tester_chain, name) == read_pool(anvil_chain, name), name


def test_the_wallet_holds_what_the_description_says(local_chain: LocalChain) -> None:
    assert local_chain.wallet.address == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert {spec.symbol: local_chain.balance(spec.symbol) for spec in DEFAULT_WORLD.tokens} == {
        s.symbol: s.wallet_raw for s in DEFAULT_WORLD.tokens
    }
    assert local_chain.w3.eth.get_balance(local_chain.wallet.address) == DEFAULT_WORLD.wallet_native_wei


def test_the_newest_block_is_of_now_and_the_pools_have_a_past(local_chain: LocalChain) -> None:
    first = local_chain.w3.eth.get_block(0)["timestamp"]
    assert local_chain.now_s() - first > 2 * 3600
    # The session's chain may be old by now, but it never runs ahead by more than its blocks.
    assert -3600 < local_chain.now_s() - time.time() < 60


def test_time_weighted_price__is_readable_everywhere(local_chain: LocalChain) -> None:
    for name, pool in local_chain.deployed_world.pool_by_name.items():
        if pool.version == 3:
            contract = pool_contract(local_chain, pool).functions
            before, now = contract.observe([1_800, 0]).call()[0]
            assert (now - before) // 1_800 == contract.slot0().call()[1], name
            assert contract.slot0().call()[4] >= 64, name


def test_feeds_answer_as_chainlink_does(local_chain: LocalChain) -> None:
    for spec in DEFAULT_WORLD.tokens:
        feed = local_chain.feed_contract(spec.symbol).functions
        round_id, answer, started_s, updated_s, answered_in = feed.latestRoundData().call()
        assert Fraction(answer, 10 ** feed.decimals().call()) == spec.price_usd
        assert round_id == answered_in > 0
        assert 0 <= local_chain.now_s() - updated_s <= 60
        assert started_s == updated_s
        assert feed.getRoundData(round_id).call() == feed.latestRoundData().call()


def test_moving_the_market__moves_pools_feeds_and_averages(local_chain: LocalChain) -> None:
    local_chain.move_market({"WETH": "3456.78", "LINK": 11})
    for name, pool in local_chain.deployed_world.pool_by_name.items():
        assert _distance(local_chain, name) < Fraction(pool.fee_pips, PIPS), name
        assert _distance(local_chain, name) < Fraction(1, 10**6), name
        if pool.version == 3:
            before, now = pool_contract(local_chain, pool).functions.observe([1_800, 0]).call()[0]
            assert (now - before) // 1_800 == pool_contract(local_chain, pool).functions.slot0().call()[1], name
    for symbol, usd in {"WETH": Fraction("3456.78"), "LINK": Fraction(11), "USDT": Fraction(1)}.items():
        _, answer, _, updated_s, _ = local_chain.feed_contract(symbol).functions.latestRoundData().call()
        assert Fraction(answer, 10**8) == usd
        assert local_chain.now_s() - updated_s < 60


@ANVIL_OFTEN
def test_the_market_moves_far_down_too(local_chain: LocalChain) -> None:
    local_chain.move_market({"WBTC": 20_000, "USDT": "0.9"})
    assert all(_distance(local_chain, name) < Fraction(1, 10**6) for name in local_chain.address_by_pool)


def test_feeds_and_average_stay_behind_when_told_to(anvil_chain: LocalChain) -> None:
    pool = anvil_chain.deployed_world.pool_by_name["v3 WETH/USDC 500"]
    seeded = pool_contract(anvil_chain, pool).functions.slot0().call()[1]
    anvil_chain.move_market({"WETH": 3_100}, twap_follows=False, feeds_follow=False)
    before, now = pool_contract(anvil_chain, pool).functions.observe([1_800, 0]).call()[0]
    assert abs((now - before) // 1_800 - seeded) < 20
    assert _distance(anvil_chain, "v3 WETH/USDC 500") < Fraction(1, 10**6)
    assert anvil_chain.feed_contract("WETH").functions.latestRoundData().call()[1] == 3_000 * 10**8


def test_an_unknown_token_cannot_be_moved(tester_chain: LocalChain) -> None:
    with pytest.raises(ValueError, match="DOGE"):
        tester_chain.move_market({"DOGE": 1})
    with pytest.raises(ValueError, match="positive"):
        tester_chain.move_market({"WETH": 0})


def test_balances__become_exact_without_a_wallet_transaction(local_chain: LocalChain) -> None:
    nonce = local_chain.w3.eth.get_transaction_count(local_chain.wallet.address)
    for raw in (0, 123_456_789, 5):
        for symbol in local_chain.tokens:
            local_chain.set_balance(symbol, raw)
            assert local_chain.balance(symbol) == raw
    local_chain.set_native(42)
    assert local_chain.w3.eth.get_balance(local_chain.wallet.address) == 42
    assert local_chain.w3.eth.get_transaction_count(local_chain.wallet.address) == nonce


def test_the_tether_like_token_wants_zero_between_two_approvals(local_chain: LocalChain) -> None:
    token = local_chain.token_contract("USDT").functions
    spender = local_chain.addresses.swap_router_02
    me = local_chain.wallet.address
    local_chain.send(token.approve(spender, 5), me, gas=200_000)
    with pytest.raises(RuntimeError, match="approve reverted"):
        local_chain.send(token.approve(spender, 7), me, gas=200_000)
    local_chain.send(token.approve(spender, 0), me, gas=200_000)
    local_chain.send(token.approve(spender, 7), me, gas=200_000)
    assert token.allowance(me, spender).call() == 7
    raw_answer = local_chain.w3.eth.call({"to": local_chain.tokens["USDT"].address, "data": _transfer_data(spender)})
    assert bytes(raw_answer) == b"", "transfer returns nothing at all"


def _transfer_data(to: str) -> str:
    return "0xa9059cbb" + to[2:].lower().rjust(64, "0") + "0" * 64


def test_the_fee_on_transfer_token_keeps_its_share(anvil_chain: LocalChain) -> None:
    artifact = own_artifact("FeeOnTransfer")
    functions = anvil_chain.contract(anvil_chain.deploy(artifact, "Fee", "FEE", 18, 250), artifact).functions
    anvil_chain.send(functions.mint(anvil_chain.whale.address, 10_000))
    anvil_chain.send(functions.transfer(anvil_chain.wallet.address, 10_000))
    assert functions.balanceOf(anvil_chain.wallet.address).call() == 9_750
    assert functions.balanceOf(anvil_chain.whale.address).call() == 0
    assert functions.totalSupply().call() == 9_750


@pytest.mark.parametrize("name", ["GasBurner", "MegabyteToken"])
def test_tokens_with_bad_habits_have_them(anvil_chain: LocalChain, name: str) -> None:
    token = anvil_chain.deploy(own_artifact(name))
    call = {"to": token, "data": "0x70a08231" + "0" * 64, "gas": 5_000_000}
    if name == "MegabyteToken":
        assert len(anvil_chain.w3.eth.call(call)) == 2**20
    else:
        with pytest.raises(Exception, match=r"InvalidFEOpcode|invalid opcode|OutOfGas"):
            anvil_chain.w3.eth.call(call)
    assert int.from_bytes(anvil_chain.w3.eth.call({"to": token, "data": "0x313ce567"})) == 18


def test_a_revert_undoes_chain_and_books(local_chain: LocalChain) -> None:
    block = local_chain.w3.eth.block_number
    books = local_chain.deployed_world
    mark = local_chain.snapshot()
    local_chain.add_token("NEW", 9, 7)
    local_chain.move_market({"WETH": 2_000})
    local_chain.revert(mark)
    assert (local_chain.w3.eth.block_number, local_chain.deployed_world) == (block, books)
    assert _distance(local_chain, "v2 WETH/USDC") < Fraction(1, 10**6)


@ANVIL_OFTEN
def test_tokens_and_pools_can_be_added_to_a_running_chain(local_chain: LocalChain) -> None:
    token = local_chain.add_token("NEW", 9, Fraction("2.5"), TokenKind.TETHER)
    assert local_chain.token_contract("NEW").functions.decimals().call() == token.decimals == 9
    local_chain.add_v2_pool("NEW", "USDC", 100_000)
    pool = local_chain.add_v3_pool("NEW", "WETH", 500)
    local_chain.mint_positions(pool, [(-887_270, 887_270, 10**15), (0, 10, 77)])
    state = read_pool(local_chain, pool.name)
    assert isinstance(state, V3Pool)
    assert state.liquidity == 10**15
    assert [(tick.index, tick.liquidity_net) for tick in state.ticks] == [(-887_270, 10**15), (0, 77), (10, -77), (887_270, -(10**15))]
    local_chain.move_market({"NEW": 3})
    assert _distance(local_chain, "v2 NEW/USDC") < Fraction(1, 10**5)
    assert _distance(local_chain, pool.name) < Fraction(1, 10**5)
    with pytest.raises(ValueError, match="already"):
        local_chain.add_token("NEW", 9, 1)


def test_the_whale_trades_in_one_pool_alone(local_chain: LocalChain) -> None:
    for name in ("v2 WETH/USDC", "v3 WETH/USDC 3000"):
        received = local_chain.swap(name, "WETH", 10**18)
        assert 2_980 * 10**6 < received < 3_000 * 10**6
    assert _distance(local_chain, "v2 WETH/USDC") > 0
    assert _distance(local_chain, "v3 WETH/USDC 500") < Fraction(1, 10**6)


def test_time_passes_and_feeds_stay_fresh_unless_told_otherwise(local_chain: LocalChain) -> None:
    feed = local_chain.feed_contract("WBTC").functions
    before_s = local_chain.clock.now_s()
    local_chain.warp(WEEK_S)
    assert local_chain.clock.now_s() - before_s >= WEEK_S
    assert local_chain.now_s() - feed.latestRoundData().call()[3] < 60
    local_chain.warp(WEEK_S, refresh_feeds=False)
    assert local_chain.now_s() - feed.latestRoundData().call()[3] >= WEEK_S
    block = local_chain.w3.eth.block_number
    before_s = local_chain.now_s()
    local_chain.mine(3)
    local_chain.clock.sleep(90)
    assert local_chain.w3.eth.block_number == block + 4
    assert local_chain.now_s() >= before_s + 90


def test_the_recorded_mainnet_pool_stands_on_the_local_chain(anvil_chain: LocalChain) -> None:
    recorded = recorded_pool()
    state = read_pool(anvil_chain, mint_mainnet_pool(anvil_chain).name)
    assert isinstance(state, V3Pool)
    assert (state.sqrt_price_x96, state.tick) == (recorded.sqrt_price_x96, recorded.tick)
    assert state.liquidity == recorded.liquidity
    assert {tick.index: tick.liquidity_net for tick in state.ticks if tick.liquidity_net} == {
        index: net for index, net in recorded.net_by_tick.items() if net
    }


def test_seeded_positions__are_held_by_the_real_manager(anvil_chain: LocalChain) -> None:
    manager = anvil_chain.contract(anvil_chain.addresses.position_manager, npm_artifact(POSITION_MANAGER_ARTIFACT)).functions
    ranges = sum(len(pool.ranges) for pool in DEFAULT_WORLD.pools if hasattr(pool, "ranges"))
    assert manager.balanceOf(anvil_chain.whale.address).call() == ranges


def test_revert__waits_until_the_pool_of_transactions_is_empty(anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    node = anvil_chain.node
    wallet = anvil_chain.wallet.address
    assert isinstance(node, AnvilNode)
    mark = node.snapshot()
    snapshot_id = []
    rpc = node.rpc
    sent = node.w3.eth.send_transaction({"from": wallet, "to": wallet, "value": Wei(1)})
    node.w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.005)

    def late(method: str, *params: object) -> Any:
        snapshot_id.append(method)
        if method == "txpool_content" and snapshot_id.count(method) <= 2:
            return {"pending": {wallet: {"0": {"hash": "0x" + sent.hex().removeprefix("0x")}}}, "queued": {}}
        return rpc(method, *params)

    monkeypatch.setattr(node, "rpc", late)
    node.revert(mark)
    assert snapshot_id.count("txpool_content") == 3
    assert snapshot_id[-1] == "evm_revert"


def test_web3_follows_no_offchain_lookup(local_chain: LocalChain) -> None:
    assert local_chain.w3.provider.global_ccip_read_enabled is False


def test_a_call_through_web3_is_one_request(anvil_chain: LocalChain, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = anvil_chain.w3.provider
    web3_provider = []
    make = provider.make_request
    monkeypatch.setattr(provider, "_request_func_cache", (None, None))
    monkeypatch.setattr(provider, "make_request", lambda method, params: (web3_provider.append(method), make(method, params))[1])
    anvil_chain.token_contract("USDC").functions.balanceOf(anvil_chain.wallet.address).call()
    monkeypatch.setattr(provider, "_request_func_cache", (None, None))
    assert web3_provider == ["eth_call"]


def test_the_config_it_writes_is_complete(local_chain: LocalChain) -> None:
    from agent.config.load import parse_config

    config = parse_config(local_chain.config_text())
    assert config.chain.chain_id == local_chain.chain_id
    assert config.chain.is_local
    assert config.chain.rpc[0].read_url() == (local_chain.url or IN_PROCESS_URL)
    assert config.wallet.address == local_chain.wallet.address
    assert config.wallet.test_account == 0
    assert {a.symbol: a.target for a in config.portfolio.assets} == {
        "WETH": 3_000,
        "WBTC": 2_500,
        "USDC": 2_000,
        "USDT": 1_500,
        "LINK": 1_000,
    }
    assert {a.symbol: a.feed for a in config.portfolio.assets} == dict(local_chain.feed_addresses)
    assert config.venues[1].router == local_chain.addresses.swap_router_02


def test_the_transport_reaches_the_same_chain(local_chain: LocalChain) -> None:
    transport = local_chain.transport
    assert transport.operator == "local"
    assert int(transport.call("eth_chainId", []), 16) == local_chain.chain_id
    assert int(transport.call("eth_blockNumber", []), 16) == local_chain.w3.eth.block_number
