"""Attacks on the Rebalancer by hidden losses, skewed prices and what could stay behind (threat T5), each on a real chain."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.artifacts import npm_artifact, own_artifact
from agent.localchain import LocalChain
from agent.localchain.chain import V2_PAIR, V3_POOL
from agent.units import NATIVE
from agent.venues.calldata import RebalancerTerms
from tests.support.attacks import Stage
from tests.support.signing import native_leg, plan_of
from tests.support.text import mentions
from tests.support.wallets import COIN, HERE, PAIR, V2, V3, R, raw_leg, raw_program

ETHER = 10**18
USD = 10**6


def v2_out(chain: LocalChain, pool: str, token_out: str, raw: int) -> tuple[int, int]:
    """Arguments of a pair's swap that pays `raw` of one token."""
    return (raw, 0) if chain.deployed.pool_by_name[pool].token0.symbol == token_out else (0, raw)


def robbed_in_between(stage: Stage, deposit: int) -> tuple[list[str], dict[str, bytes], int]:
    """WETH to EVIL to USDC, whose EVIL is sold by the accomplice as soon as it lies in the pair; then a deposit comes in.

    Returns tokens, the legs by the least that the last one asks for ("plan", "any"), and what the plan brings.
    """
    chain, desk = stage.chain, stage.context
    pair = chain.contract(chain.pools["v2 EVIL/USDC"], npm_artifact(V2_PAIR))
    first = desk.leg("v3 EVIL/WETH 3000", "WETH", ETHER // 10, sink=R)
    brought = desk.leg("v2 EVIL/USDC", "EVIL", first.amount_out_raw, source=R).amount_out_raw
    weth, evil, usdc = (stage.at(symbol) for symbol in ("WETH", "EVIL", "USDC"))
    vault = stage.deploy("OpenVault", stage.victim)
    for symbol, owner, raw in (("USDC", vault.address, 1_000 * USD), ("EVIL", stage.accomplice.address, ETHER)):
        chain.set_balance(symbol, raw, owner=owner)
    steal = stage.calldata(pair, "swap", *v2_out(chain, "v2 EVIL/USDC", "USDC", brought - USD), stage.thief, b"")
    crumb = stage.calldata(chain.token_contract("EVIL"), "transfer", pair.address, ETHER)
    release = stage.calldata(vault, "release", usdc, deposit)
    stage.prepare([(pair.address, steal), (evil, crumb), (vault.address, release)])
    tokens = [weth, usdc, evil]
    ahead = raw_leg(tokens, V3, weth, evil, sink=PAIR, pair_with=usdc, raw=ETHER // 10)
    legs = {
        name: ahead + raw_leg(tokens, V2, evil, usdc, source=PAIR, least=least)
        for name, least in (("plan", brought * 99 // 100), ("any", 1))
    }
    return tokens, legs, brought


def test_a_deposit_in_mid_flight_hides_no_loss(anvil_chain: LocalChain) -> None:
    """What others owe the wallet is paid out in the middle, so that its balance grows as the plan wants: the leg still says no."""
    stage = Stage(anvil_chain, evil=True)
    tokens, legs, brought = robbed_in_between(stage, deposit=300 * USD)
    prices = stage.context.prices
    paid = [(prices[tokens[0]], -ETHER // 10), (Fraction(1), brought * 99 // 100)]
    floor_raw = -5 * USD
    refused = stage.context.would(raw_program(tokens, [legs["plan"]], paid, floor_raw))
    assert not refused.ok
    assert "swap 2" in refused.reason
    assert "TooLittleOut" in refused.reason
    # The control: by balances and value alone nothing would have been noticed, and the thief has the money.
    careless = raw_program(tokens, [legs["any"]], paid, floor_raw)
    before = stage.context.balances()
    stage.chain.w3.eth.wait_for_transaction_receipt(
        stage.chain.w3.eth.send_transaction({"from": stage.victim, "to": stage.rebalancer, "data": careless, "gas": 2_000_000})
    )
    assert stage.outcome()[:2] == (3, 3)
    assert stage.loot()["USDC"] == brought - USD
    assert stage.context.balances()["USDC"] - before["USDC"] < 300 * USD + 2 * USD


def test_without_a_deposit_the_balances_tell_of_the_same_robbery(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain, evil=True)
    tokens, legs, brought = robbed_in_between(stage, deposit=0)
    price = stage.context.prices[tokens[0]]
    bound = [(price, -ETHER // 10), (Fraction(1), brought * 99 // 100)]
    assert "BelowBound" in stage.context.would(raw_program(tokens, [legs["any"]], bound)).reason
    loose = [(price, -ETHER // 10), (Fraction(1), 0)]
    refused = stage.context.would(raw_program(tokens, [legs["any"]], loose, -5 * USD))
    assert not refused.ok
    assert "BelowFloor" in refused.reason
    assert "by -29" in refused.reason
    assert stage.context.would(raw_program(tokens, [legs["any"]], loose, -400 * USD)).ok


def test_the_value_floor_believes_no_pool_that_is_skewed_in_mid_flight(anvil_chain: LocalChain) -> None:
    """The victim buys EVIL at twice its price, while the accomplice makes another genuine pool say that it is worth that."""
    stage = Stage(anvil_chain, evil=True)
    chain, weth, evil = stage.chain, stage.at("WETH"), stage.at("EVIL")
    chain.swap("v2 EVIL/WETH", "WETH", 70 * ETHER)
    pair = chain.contract(chain.pools["v2 EVIL/USDC"], npm_artifact(V2_PAIR))
    router = chain.token_contract("USDC")
    chain.set_balance("USDC", 250_000 * USD, owner=stage.accomplice.address)
    pump = stage.calldata(pair, "swap", *v2_out(chain, "v2 EVIL/USDC", "EVIL", 160_000 * ETHER), stage.thief, b"")
    pay = stage.calldata(router, "transfer", pair.address, 250_000 * USD)
    stage.prepare([(router.address, pay), (pair.address, pump)])
    tokens, prices = [weth, evil], stage.context.prices
    data = [raw_leg(tokens, V2, weth, evil, raw=ETHER // 10)]
    watched = [(prices[weth], -ETHER // 10), (prices[evil], 0)]
    refused = stage.context.would(raw_program(tokens, data, watched, -10 * USD))
    assert not refused.ok
    assert "BelowFloor" in refused.reason
    chain.w3.eth.wait_for_transaction_receipt(
        chain.w3.eth.send_transaction(
            {"from": stage.victim, "to": stage.rebalancer, "data": raw_program(tokens, data, watched, -300 * USD), "gas": 2_000_000}
        )
    )
    assert stage.outcome()[:2] == (2, 2), "the other pool was skewed in the middle"


def test_reserves_that_are_stale_in_a_flash_swap_buy_nothing(anvil_chain: LocalChain) -> None:
    """Read-only re-entrancy: the pair is called from inside its own swap, and the Rebalancer with it."""
    stage = Stage(anvil_chain)
    caller = stage.deploy("FlashCaller")
    pair, tokens = anvil_chain.pools["v2 WETH/USDC"], [stage.at("USDC"), stage.at("WETH")]
    anvil_chain.set_balance("USDC", 1_000 * USD, owner=caller.address)
    program = bytes.fromhex(raw_program(tokens, [raw_leg(tokens, V2, *tokens, raw=100 * USD)])[2 + 8 + 128 :])
    length = int.from_bytes(
        bytes.fromhex(raw_program(tokens, [raw_leg(tokens, V2, *tokens, raw=100 * USD)])[2 + 8 + 64 : 2 + 8 + 128]), "big"
    )
    amounts = v2_out(anvil_chain, "v2 WETH/USDC", "USDC", 10 * USD)
    data = stage.calldata(caller, "borrow", pair, *amounts, stage.rebalancer, tokens[0], program[:length])
    assert "LOCKED" in stage.context.would(data, stage.thief, to=caller.address).reason


def test_there_is_no_state_to_read_but_what_it_was_made_for(anvil_chain: LocalChain) -> None:
    stage, at = Stage(anvil_chain), anvil_chain.addresses
    views = {e["name"]: e for e in own_artifact("Rebalancer").abi if e.get("stateMutability") in ("view", "pure")}
    assert set(views) == {"WRAPPED_NATIVE", "V2_FACTORY", "V2_INIT_CODE_HASH", "V3_FACTORY", "V3_INIT_CODE_HASH"}
    functions = anvil_chain.contract(stage.rebalancer, own_artifact("Rebalancer")).functions
    assert [functions[name]().call() for name in ("WRAPPED_NATIVE", "V2_FACTORY", "V3_FACTORY")] == [at.weth, at.v2_factory, at.v3_factory]
    writers = {e["name"] for e in own_artifact("Rebalancer").abi if e["type"] == "function"} - set(views)
    assert writers == {"rebalance", "uniswapV3SwapCallback"}
    assert stage.context.swap(plan_of(stage.context.leg("v3 WETH/USDC 500", "WETH", ETHER // 10))).status == 1
    slots = [anvil_chain.w3.eth.get_storage_at(stage.rebalancer, number) for number in range(3)]
    assert [int.from_bytes(slot, "big") for slot in slots] == [1, 0, 0]


def force_coin(chain: LocalChain, target: str, wei: int) -> None:
    """SELFDESTRUCT in creation code sends native coin to whom it likes."""
    code = "0x73" + target[2:].lower() + "ff"
    sent = chain.w3.eth.send_transaction({"from": chain.whale.address, "data": code, "value": wei, "gas": 200_000})
    assert chain.w3.eth.wait_for_transaction_receipt(sent)["status"] == 1
    assert chain.w3.eth.get_balance(chain.w3.to_checksum_address(target)) == wei


def test_native_coin_never_stays_and_forced_coin_stops_nobody(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    desk, weth, usdc = stage.context, stage.at("WETH"), stage.at("USDC")
    assert "NativeRefused" in desk.would("0x", stage.thief, value_wei=1).reason
    tokens = [NATIVE, weth, usdc]
    swap = raw_leg(tokens, V3, weth, usdc, fee=500, raw=ETHER // 10)
    wrap = raw_leg(tokens, COIN, NATIVE, weth, raw=ETHER // 10)
    assert desk.would(raw_program(tokens, [wrap, swap]), value_wei=ETHER // 10).ok
    for forced in (False, True):
        if forced:
            force_coin(anvil_chain, stage.rebalancer, ETHER)
        for legs, wei in (([swap], 1), ([wrap], ETHER // 10 + 1), ([wrap, swap], ETHER)):
            assert mentions(desk.would(raw_program(tokens, legs), value_wei=wei).reason, f"{NATIVE}", "LeftBehind")
        more = desk.would(raw_program(tokens, [wrap]), value_wei=ETHER // 10 - 1)
        assert not more.ok, "nobody wraps what is not his"
        here = raw_leg(tokens, COIN, NATIVE, weth, sink=HERE, raw=ETHER // 10)
        assert mentions(desk.would(raw_program(tokens, [here]), value_wei=ETHER // 10).reason, f"{weth}", "LeftBehind")
    plan = plan_of(desk.leg("v3 WETH/USDC 500", "WETH", ETHER // 10))
    assert desk.swap(plan).status == 1
    assert anvil_chain.w3.eth.get_balance(stage.rebalancer) == ETHER, "not the wallet's, and nobody's to take"


def test_a_wallet_that_takes_no_native_coin_gets_everything_back(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    refuser, weth = stage.deploy("CoinRefuser"), stage.at("WETH")
    anvil_chain.send(anvil_chain.token_contract("WETH").functions.transfer(refuser.address, ETHER))
    tokens = [weth, NATIVE]
    program = bytes.fromhex(raw_program(tokens, [raw_leg(tokens, COIN, weth, NATIVE, raw=ETHER)])[2 + 8 + 128 :])[: 23 + 40 + 39]
    data = stage.calldata(refuser, "run", weth, stage.rebalancer, program)
    assert "NativeRefused" in stage.context.would(data, stage.thief, to=refuser.address).reason


def test_native_coin_is_wrapped_traded_and_unwrapped_in_one_transaction(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    desk, weth = stage.context, stage.at("WETH")
    sold = desk.leg("v2 WETH/USDC", "WETH", ETHER // 10, source=R)
    bought = desk.leg("v3 WETH/USDT 500", "USDT", 300 * USD, sink=R)
    plan = plan_of(
        native_leg(NATIVE, weth, ETHER // 10, sink=R),
        sold,
        bought,
        native_leg(weth, NATIVE, bought.amount_out_raw, source=R),
    )
    greedy = RebalancerTerms(desk.prices, desk.terms(plan.legs).floor_raw + 2)
    assert "BelowFloor" in desk.simulate(desk.swap_tx(plan, terms=greedy)).reason, "native coin counts in the value"
    before, native = desk.balances(), anvil_chain.w3.eth.get_balance(stage.victim)
    receipt = desk.swap(plan)
    assert receipt.status == 1
    after = desk.balances()
    changed = {symbol: after[symbol] - before[symbol] for symbol in after if after[symbol] != before[symbol]}
    assert changed == {"USDC": sold.amount_out_raw, "USDT": -300 * USD}
    gas_wei = receipt.gas_used * receipt.effective_gas_price_wei
    assert anvil_chain.w3.eth.get_balance(stage.victim) - native + gas_wei == bought.amount_out_raw - ETHER // 10


def test_tokens_never_stay_and_given_ones_go_to_the_next_caller(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    desk, weth, usdc = stage.context, stage.at("WETH"), stage.at("USDC")
    tokens = [weth, usdc]
    kept = raw_program(tokens, [raw_leg(tokens, V3, weth, usdc, fee=500, sink=HERE, raw=ETHER // 10)])
    assert mentions(desk.would(kept).reason, f"{usdc}", "LeftBehind")
    anvil_chain.set_balance("USDC", 7 * USD, owner=stage.rebalancer)
    first = desk.leg("v3 USDC/USDT 100", "USDT", 300 * USD, sink=R)
    plan = plan_of(first, desk.leg("v3 LINK/USDC 10000", "USDC", first.amount_out_raw, source=R))
    before = desk.balances()
    assert desk.swap(plan).status == 1
    assert desk.balances()["LINK"] - before["LINK"] > plan.legs[1].amount_out_raw
    assert not any(stage.loot().values())


@pytest.mark.parametrize("hub", [False, True])
def test_a_pool_that_takes_only_a_part_is_refused_so_that_no_rest_stays(anvil_chain: LocalChain, hub: bool) -> None:
    stage = Stage(anvil_chain)
    desk = stage.context
    pool = anvil_chain.add_v3_pool("LINK", "USDT", 3_000)
    nearest = anvil_chain.contract(pool.address, npm_artifact(V3_POOL)).functions.slot0().call()[1] // 60 * 60
    anvil_chain.mint_position(pool.name, nearest - 60, nearest + 120, 10**12)
    usdc, usdt, link = (stage.at(symbol) for symbol in ("USDC", "USDT", "LINK"))
    tokens = [usdt, usdc, link]
    raw = 1_000 * USD
    feed = raw_leg(tokens, V3, usdc, usdt, fee=100, sink=HERE, raw=raw)
    legs = [feed, raw_leg(tokens, V3, usdt, link, source=HERE, least=0)] if hub else [raw_leg(tokens, V3, usdt, link, raw=raw, least=0)]
    simulated = desk.would(raw_program(tokens, legs))
    assert not simulated.ok
    assert "FilledInPart" in simulated.reason


def test_a_program_is_not_run_after_its_deadline_nor_when_it_is_torn(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    weth, usdc = stage.at("WETH"), stage.at("USDC")
    tokens, now_s = [weth, usdc], anvil_chain.now_s()
    leg = raw_leg(tokens, V3, weth, usdc, fee=500, raw=ETHER // 10)
    assert "Expired" in stage.context.would(raw_program(tokens, [leg], deadline_s=now_s - 1)).reason
    assert stage.context.would(raw_program(tokens, [leg], deadline_s=now_s + 600)).ok
    torn = [leg[:-1], leg + b"\x00", b"", b"\xff" + leg[1:], leg[:1] + b"\x02" + leg[2:], leg[:2] + b"\xff" + leg[3:]]
    for one in torn:
        assert "Malformed" in stage.context.would(raw_program(tokens, [one])).reason
    plan = plan_of(stage.context.leg("v3 WETH/USDC 500", "WETH", ETHER // 10))
    late = replace(stage.context.swap_tx(plan), gas=0)
    anvil_chain.warp(200)
    assert "Expired" in stage.context.simulate(late).reason
