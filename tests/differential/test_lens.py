"""The lens against the contracts themselves: every part equals a direct call, and bad items harm nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from eth_utils.crypto import keccak

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.artifacts import npm_artifact, own_artifact
from agent.chain.lens import (
    AGGREGATOR,
    BALANCE_OF,
    DECIMALS_SELECTOR,
    CallItem,
    CallStatus,
    CodeItem,
    IndirectCallItem,
    LensItem,
    V3Answer,
    V3Item,
    address_call,
    creation_code,
    decode_page,
    query_lens,
)
from agent.chain.watch import snapshot_questions
from agent.localchain import LocalChain
from agent.localchain.chain import V3_POOL_ARTIFACT
from agent.units import NATIVE, Token
from tests.support.attacks import attack
from tests.support.endpoints import TWAP_WINDOW_S, reader, watch
from tests.support.text import mentions
from tests.support.worlds import ANVIL_OFTEN, mint_mainnet_pool, read_pool, read_v3

UINT160_MAX = 2**160 - 1


@ANVIL_OFTEN
def test_balances_allowances_and_native_equal_direct_calls(local_chain: LocalChain) -> None:
    snapshot = reader(local_chain).snapshot()
    owner = local_chain.wallet.address
    router = local_chain.addresses.swap_router_02
    assert {h.token: h.raw for h in snapshot.holdings} == {t.address: local_chain.balance(s) for s, t in local_chain.tokens.items()}
    for allowance in snapshot.allowances:
        symbol = next(s for s, t in local_chain.tokens.items() if t.address == allowance.token)
        assert allowance.raw == local_chain.token_contract(symbol).functions.allowance(owner, router).call()
    assert len(snapshot.allowances) == len(local_chain.tokens)
    assert snapshot.native_wei == local_chain.w3.eth.get_balance(owner)
    assert snapshot.unreadable_items == ()


def test_an_allowance_that_was_given_is_seen(anvil_chain: LocalChain) -> None:
    spender = anvil_chain.addresses.v2_router
    move = anvil_chain.token_contract("USDT").functions.approve(spender, 123_456)
    anvil_chain.send(move, sender=anvil_chain.wallet.address)
    snapshot = reader(anvil_chain, spenders=(anvil_chain.addresses.swap_router_02, spender)).snapshot()
    raw_by_allowance = {(a.token, a.spender): a.raw for a in snapshot.allowances if a.raw}
    assert raw_by_allowance == {(anvil_chain.tokens["USDT"].address, spender): 123_456}


def test_pools__equal_the_contracts_within_the_window(local_chain: LocalChain) -> None:
    snapshot = reader(local_chain, impact_bps=2_500).snapshot()
    assert len(snapshot.pools) == len(local_chain.address_by_pool)
    # Asking eth-tester tick by tick takes seconds per pool, so there every third one.
    for pool in snapshot.pools if local_chain.url else snapshot.pools[::3]:
        name = next(name for name, address in local_chain.address_by_pool.items() if address == pool.address)
        direct = read_pool(local_chain, name)
        if isinstance(pool, V2Pool):
            assert pool == direct
            continue
        assert isinstance(direct, V3Pool)
        assert pool.known_from_tick < pool.tick < pool.known_to_tick
        inside = tuple(t for t in direct.ticks if pool.known_from_tick <= t.index <= pool.known_to_tick)
        assert pool.ticks == inside
        for field in ("address", "token0", "token1", "fee_pips", "tick_spacing", "sqrt_price_x96", "tick", "liquidity"):
            assert getattr(pool, field) == getattr(direct, field)


@ANVIL_OFTEN
def test_the_twap_equals_observe_and_consult(local_chain: LocalChain) -> None:
    local_chain.swap("v3 WETH/USDC 500", "WETH", 40 * 10**18)
    local_chain.warp(600)
    snapshot = reader(local_chain).snapshot()
    moved = 0
    for pool in (p for p in snapshot.pools if isinstance(p, V3Pool)):
        observe = local_chain.contract(pool.address, npm_artifact(V3_POOL_ARTIFACT)).functions.observe([TWAP_WINDOW_S, 0])
        ticks, seconds = observe.call(block_identifier=snapshot.head.number)
        assert pool.twap_tick == (ticks[1] - ticks[0]) // TWAP_WINDOW_S
        assert pool.twap_liquidity == TWAP_WINDOW_S * UINT160_MAX // ((seconds[1] - seconds[0]) % 2**160 << 32)
        assert pool.twap_window_s == TWAP_WINDOW_S
        moved += pool.twap_tick != pool.tick
    assert moved == 1


def test_pool_without_observations__is_read_without_a_twap(anvil_chain: LocalChain) -> None:
    snapshot = reader(anvil_chain, twap_window_s=86_400).snapshot()
    pools = [p for p in snapshot.pools if isinstance(p, V3Pool)]
    assert pools
    assert all(p.twap_tick is p.twap_liquidity is p.twap_window_s is None and p.liquidity > 0 for p in pools)
    assert snapshot.unreadable_items == ()


def test_feeds_equal_direct_calls_negative_answers_included(anvil_chain: LocalChain) -> None:
    feed = anvil_chain.feed_contract("LINK")
    anvil_chain.send(feed.functions.setRound(2**80 - 1, -5, 11, 12, 7))
    snapshot = reader(anvil_chain).snapshot()
    assert len(snapshot.feeds) == len(anvil_chain.feed_addresses)
    for round in snapshot.feeds:
        symbol = next(s for s, address in anvil_chain.feed_addresses.items() if address == round.feed)
        contract = anvil_chain.feed_contract(symbol).functions
        assert [
            round.round_id,
            round.answer,
            round.started_at_s,
            round.updated_at_s,
            round.answered_in_round,
        ] == contract.latestRoundData().call()
        assert round.decimals == contract.decimals().call()
        assert (round.min_answer, round.max_answer) == (contract.minAnswer().call(), contract.maxAnswer().call())
    assert -5 in [feed.answer for feed in snapshot.feeds]


def test_bounds__are_the_aggregator_s_or_unknown(anvil_chain: LocalChain) -> None:
    first, second = (anvil_chain.deploy(own_artifact("PriceFeed"), "X / USD", 8) for _ in range(2))
    for feed, least in ((first, -7), (second, 11)):
        functions = anvil_chain.contract(feed, own_artifact("PriceFeed")).functions
        anvil_chain.send(functions.setBounds(least, 10**12))
        anvil_chain.send(functions.push(500))
    proxy = anvil_chain.deploy(attack("FeedProxy"), first)
    pointed = anvil_chain.contract(proxy, attack("FeedProxy")).functions
    (feeds,) = reader(anvil_chain, feeds=(proxy,)).snapshot().feeds
    assert (feeds.answer, feeds.min_answer, feeds.max_answer) == (500, -7, 10**12)
    anvil_chain.send(pointed.point(second))
    (feeds,) = reader(anvil_chain, feeds=(proxy,)).snapshot().feeds
    assert feeds.min_answer == 11


def test_a_call_by_way_of_another_contract_fails_alone(anvil_chain: LocalChain) -> None:
    token = anvil_chain.tokens["USDC"].address
    decimals = CallItem(token, DECIMALS_SELECTOR)
    items: list[LensItem] = [
        IndirectCallItem(token, AGGREGATOR, decimals),
        IndirectCallItem(token, DECIMALS_SELECTOR, decimals),
        IndirectCallItem(token, BALANCE_OF, decimals),
    ]
    answers = query_lens(anvil_chain.transport, [*items, decimals])
    assert answers == [
        CallStatus.FAILED,
        CallStatus.NO_CODE,
        CallStatus.FAILED,
        (6).to_bytes(32, "big"),
    ]  # 6 decimals: an address of nobody


def test_the_observations_that_a_pool_keeps_are_read(anvil_chain: LocalChain) -> None:
    pool = anvil_chain.contract(anvil_chain.address_by_pool["v3 LINK/USDC 10000"], npm_artifact(V3_POOL_ARTIFACT))
    anvil_chain.send(pool.functions.increaseObservationCardinalityNext(71))
    pool_read = next(p for p in reader(anvil_chain).snapshot().pools if p.address == pool.address)
    slot0 = pool.functions.slot0().call()
    assert isinstance(pool_read, V3Pool)
    assert pool_read.observation_counts == (slot0[3], slot0[4])
    assert pool_read.observation_counts[1] == 71


def test_code_hash__is_that_of_the_code_or_zero(anvil_chain: LocalChain) -> None:
    addresses = (anvil_chain.addresses.swap_router_02, anvil_chain.tokens["WETH"].address, anvil_chain.wallet.address, "0x" + "99" * 20)
    snapshot = reader(anvil_chain, code_addresses=addresses).snapshot()
    for code_hash in snapshot.code_hashes:
        code = bytes(anvil_chain.w3.eth.get_code(code_hash.address))
        assert code_hash.hash == ("0x" + bytes(keccak(code)).hex() if code else "0x" + "00" * 32)
    assert [code_hash.address for code_hash in snapshot.code_hashes] == list(addresses)


def test_gas_burning_or_flooding_token__harms_itself_alone(anvil_chain: LocalChain) -> None:
    healthy = reader(anvil_chain).snapshot()
    bad = [Token(anvil_chain.deploy(own_artifact(name)), name, 18) for name in ("GasBurner", "MegabyteToken")]
    all_tokens = (bad[0], *watch(anvil_chain).tokens[:2], bad[1], *watch(anvil_chain).tokens[2:])
    snapshot = reader(anvil_chain, tokens=all_tokens).snapshot()
    assert snapshot.holdings == healthy.holdings
    assert snapshot.http_request_count == healthy.http_request_count == 2
    assert {q.address for q in snapshot.unreadable_items} == {token.address for token in bad}
    assert not {h.token for h in snapshot.holdings} & {token.address for token in bad}
    assert len(snapshot.feeds) == len(healthy.feeds)
    assert len(snapshot.pools) == len(healthy.pools)


def test_an_answer_longer_than_its_bound_fails_and_costs_little(anvil_chain: LocalChain) -> None:
    mega = anvil_chain.deploy(own_artifact("MegabyteToken"))
    call = address_call(BALANCE_OF, anvil_chain.wallet.address)
    rich = CallItem(mega, call, gas_cap=5_000_000)
    answers = query_lens(
        anvil_chain.transport, [CallItem(mega, DECIMALS_SELECTOR), rich, CallItem(mega, call), CallItem(mega, DECIMALS_SELECTOR)]
    )
    assert answers == [(18).to_bytes(32, "big"), CallStatus.TOO_LONG, CallStatus.FAILED, (18).to_bytes(32, "big")]


def test_a_real_zero_needs_a_call_that_succeeded(anvil_chain: LocalChain) -> None:
    anvil_chain.set_balance("LINK", 0)
    nobody = Token("0x" + "99" * 20, "NONE", 18)
    pool = Token(anvil_chain.addresses.v3_factory, "FACT", 18)
    snapshot = reader(anvil_chain, tokens=(anvil_chain.tokens["LINK"], nobody, pool)).snapshot()
    assert [(h.token, h.raw) for h in snapshot.holdings] == [(anvil_chain.tokens["LINK"].address, 0)]
    assert {q.address: q.why for q in snapshot.unreadable_items} == {
        nobody.address: CallStatus.NO_CODE.why,
        pool.address: CallStatus.FAILED.why,
    }


def test_decimals_that_disagree_quarantine_the_token(anvil_chain: LocalChain) -> None:
    wrong = Token(anvil_chain.tokens["USDC"].address, "USDC", 18)
    snapshot = reader(anvil_chain, tokens=(wrong, anvil_chain.tokens["WETH"])).snapshot()
    assert [h.token for h in snapshot.holdings] == [anvil_chain.tokens["WETH"].address]
    (unreadable_item,) = snapshot.unreadable_items
    assert unreadable_item.address == wrong.address
    assert mentions(unreadable_item.why, "6 decimals", "18")


def pool_item(chain: LocalChain, name: str, window: int, most: int) -> V3Item:
    state = read_pool(chain, name)
    assert isinstance(state, V3Pool)
    return V3Item(state.address, state.tick_spacing, window, most, 0)


@pytest.mark.parametrize("most", [2, 4, 6, 10])
def test_too_many_ticks__end_the_window_earlier_without_a_gap(anvil_chain: LocalChain, most: int) -> None:
    name = "v3 USDC/USDT 100"
    everything = {t.index: t.liquidity_net for t in _v3(anvil_chain, name).ticks}
    answer = query_lens(anvil_chain.transport, [pool_item(anvil_chain, name, 5_000, most)])[0]
    assert isinstance(answer, V3Answer)
    assert len(answer.ticks) == min(most, sum(-5_000 <= index <= 5_000 for index in everything))
    assert dict(answer.ticks) == {i: net for i, net in everything.items() if answer.known_from_tick <= i <= answer.known_to_tick}
    assert answer.known_from_tick <= answer.tick <= answer.known_to_tick
    assert (answer.known_to_tick - answer.known_from_tick < 10_000) == (most < 10)


def _v3(chain: LocalChain, name: str) -> V3Pool:
    state = read_pool(chain, name)
    assert isinstance(state, V3Pool)
    return state


def test_recorded_mainnet_pool__is_read_like_direct_calls(anvil_chain: LocalChain) -> None:
    pool = mint_mainnet_pool(anvil_chain)
    direct = read_v3(anvil_chain, pool)
    for window in (0, 1, 59, 60, 1_000, 20_000, 887_272):
        answer = query_lens(anvil_chain.transport, [V3Item(pool.address, direct.tick_spacing, window, 1_200, 0)])[0]
        assert isinstance(answer, V3Answer)
        low = max(direct.tick - window, -887_272)
        high = min(direct.tick + window, 887_272)
        assert answer.known_from_tick >= low
        assert answer.known_to_tick <= high
        assert dict(answer.ticks) == {
            t.index: t.liquidity_net for t in direct.ticks if answer.known_from_tick <= t.index <= answer.known_to_tick
        }
        if len(answer.ticks) < 600:
            assert (answer.known_from_tick, answer.known_to_tick) == (low, high)


def test_pool_without_price__differs_from_an_address_without_pool(anvil_chain: LocalChain) -> None:
    anvil_chain.add_token("NEW", 18, 5)
    factory = anvil_chain.contract(
        anvil_chain.addresses.v3_factory, npm_artifact("@uniswap/v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json")
    )
    pair = [anvil_chain.tokens["NEW"].address, anvil_chain.tokens["USDC"].address]
    anvil_chain.send(factory.functions.createPool(*pair, 3000))
    empty = factory.functions.getPool(*pair, 3000).call()
    answers = query_lens(
        anvil_chain.transport,
        [V3Item(address, 60, 100, 256, 0) for address in (empty, anvil_chain.wallet.address, anvil_chain.tokens["USDC"].address, NATIVE)],
    )
    assert answers == [CallStatus.NOT_INITIALISED, CallStatus.NO_CODE, CallStatus.FAILED, CallStatus.NO_CODE]


@pytest.mark.parametrize("gas", [600_000, 900_000, 1_300_000, 1_800_000, 2_500_000, 4_000_000])
def test_too_little_gas_leaves_items_unread_and_never_wrong(anvil_chain: LocalChain, gas: int) -> None:
    items: list[LensItem] = [question.item for question in snapshot_questions(watch(anvil_chain))]
    burner = anvil_chain.deploy(own_artifact("GasBurner"))
    items[3:3] = [CallItem(burner, address_call(BALANCE_OF, burner)), CodeItem(burner)]
    truth = query_lens(anvil_chain.transport, items)
    starved: Any = anvil_chain.transport.call("eth_call", [{"data": creation_code(items), "gas": hex(gas)}, "latest"])
    answers = decode_page(items, bytes.fromhex(starved[2:]))
    assert all(answer in (CallStatus.UNREAD, true) for answer, true in zip(answers, truth, strict=True))
    assert sum(answer is CallStatus.UNREAD for answer in truth) == 0
    if gas == 600_000:
        assert CallStatus.UNREAD in answers
