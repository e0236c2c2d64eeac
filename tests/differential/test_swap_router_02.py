"""Our calldata in the deployed SwapRouter02: what it decodes to there, and what it pays."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from agent.artifacts import npm_artifact
from agent.localchain import LocalChain
from agent.model import Receipt
from agent.signing.calldata import MULTICALL, ExactInputSingle, Multicall, SwapExactTokens, SweepToken, decode, selector
from agent.venues.calldata import ROUTER_ITSELF, encode_multicall
from tests.support.signing import plan_of
from tests.support.text import mentions
from tests.support.wallets import LIMIT_WEI, Desk, R, native_of, router_balances, three_way_plan

ROUTER = "@uniswap/swap-router-contracts/artifacts/contracts/SwapRouter02.sol/SwapRouter02.json"


def received(receipt: Receipt, wallet: str) -> Counter[str]:
    """Base units that the receipt's events bring to the wallet, by token."""
    sums: Counter[str] = Counter()
    for transfer in receipt.transfers:
        if transfer.recipient == wallet:
            sums[transfer.token] += transfer.raw
    return sums


@pytest.mark.parametrize("legacy", [False, True])
def test_multicall_over_v3_v2_and_a_hub__pays_as_quoted(anvil_chain: LocalChain, legacy: bool) -> None:
    desk = Desk(anvil_chain)
    plan = three_way_plan(desk)
    desk.approve_for(plan)
    before = desk.balances()
    receipt = desk.swap(plan, legacy)
    assert receipt.status == 1
    to_usdc, to_usdc_v2, _, to_link = plan.legs
    after = desk.balances()
    assert {symbol: after[symbol] - before[symbol] for symbol in after} == {
        "WETH": -4 * 10**17,
        "USDC": to_usdc.amount_out_raw + to_usdc_v2.amount_out_raw,
        "USDT": -400 * 10**6,
        "LINK": to_link.amount_out_raw,
        "WBTC": 0,
    }
    assert received(receipt, desk.wallet) == {
        desk.at("USDC"): to_usdc.amount_out_raw + to_usdc_v2.amount_out_raw,
        desk.at("LINK"): to_link.amount_out_raw,
    }
    assert set(router_balances(desk).values()) == {0}
    assert {desk.allowance(symbol) for symbol in ("WETH", "USDT")} == {0}


def test_two_legs_into_the_hub_are_spent_by_one_leg_out_of_it(anvil_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    first = desk.leg("v3 USDC/USDT 100", "USDT", 300 * 10**6, sink=R)
    second = desk.leg("v3 LINK/USDC 10000", "LINK", 10**18, sink=R)
    out = desk.leg("v2 WETH/USDC", "USDC", first.amount_out_raw + second.amount_out_raw, source=R)
    plan = plan_of(first, second, out)
    desk.approve_for(plan)
    before = desk.chain.balance("WETH")
    assert desk.swap(plan).status == 1
    assert desk.chain.balance("WETH") - before == out.amount_out_raw
    assert set(router_balances(desk).values()) == {0}


def test_a_v2_leg_can_feed_the_router_too(anvil_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    first = desk.leg("v2 LINK/WETH", "LINK", 10**18, sink=R)
    plan = plan_of(first, desk.leg("v3 WETH/USDC 500", "WETH", first.amount_out_raw, source=R))
    desk.approve_for(plan)
    before = desk.chain.balance("USDC")
    assert desk.swap(plan).status == 1
    assert desk.chain.balance("USDC") - before == plan.legs[1].amount_out_raw


def test_the_router_reads_our_calldata_as_our_decoder_does(tester_chain: LocalChain) -> None:
    desk = Desk(tester_chain)
    plan = three_way_plan(desk)
    data = encode_multicall(plan, desk.wallet, 1_900_000_000)
    router = desk.chain.contract(desk.router, npm_artifact(ROUTER))
    function, arguments = router.decode_function_input(data)
    call = decode(data)
    assert isinstance(call, Multicall)
    assert function.abi["name"] == "multicall"
    assert arguments["deadline"] == call.deadline_s == 1_900_000_000
    assert len(arguments["data"]) == len(call.calls) == 6
    for raw, ours in zip(arguments["data"], call.calls, strict=True):
        inner, values = router.decode_function_input(raw)
        match ours:
            case ExactInputSingle():
                assert inner.fn_name == "exactInputSingle"
                assert tuple(values["params"].values()) == (
                    ours.token_in,
                    ours.token_out,
                    ours.fee_pips,
                    ours.recipient,
                    ours.amount_in_raw,
                    ours.min_out_raw,
                    0,
                )
            case SwapExactTokens():
                assert inner.fn_name == "swapExactTokensForTokens"
                assert (values["amountIn"], values["amountOutMin"], tuple(values["path"]), values["to"]) == (
                    ours.amount_in_raw,
                    ours.min_out_raw,
                    ours.path,
                    ours.recipient,
                )
            case SweepToken():
                assert inner.fn_name == "sweepToken"
                assert tuple(values.values()) == (ours.token, ours.min_raw, ours.recipient)
    to_usdc, _, _, to_link = plan.legs
    swaps = [call for call in call.calls if isinstance(call, ExactInputSingle | SwapExactTokens)]
    assert [swap.recipient for swap in swaps] == [ROUTER_ITSELF, desk.wallet, ROUTER_ITSELF, ROUTER_ITSELF]
    assert [swap.amount_in_raw for swap in swaps] == [3 * 10**17, 10**17, 400 * 10**6, 0]
    assert [(number, call) for number, call in enumerate(call.calls) if call not in swaps] == [
        (2, SweepToken(desk.at("USDC"), to_usdc.min_out_raw, desk.wallet)),
        (5, SweepToken(desk.at("LINK"), to_link.min_out_raw, desk.wallet)),
    ]


def test_our_selectors_are_those_of_the_deployed_router(tester_chain: LocalChain) -> None:
    router = tester_chain.contract(tester_chain.addresses.swap_router_02, npm_artifact(ROUTER))
    data = encode_multicall(three_way_plan(Desk(tester_chain)), tester_chain.wallet.address, 1)
    assert data.startswith("0x" + MULTICALL.hex())
    assert router.get_function_by_selector(MULTICALL).abi["name"] == "multicall"
    assert selector("multicall(bytes[])") != MULTICALL


def test_tether_like_allowance_too_small__is_zeroed_first(anvil_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    tether = desk.at("USDT")
    assert desk.approve(tether, 5).status == 1
    plan = plan_of(desk.leg("v3 USDC/USDT 100", "USDT", 100 * 10**6))
    assert desk.approvals_needed(plan) == ((tether, 0), (tether, 100 * 10**6))
    desk.approve_for(plan)
    assert desk.approvals_needed(plan) == ()
    assert desk.swap(plan).status == 1
    assert desk.allowance("USDT") == 0


def test_market_moved_before_sending__costs_only_gas(anvil_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    plan = three_way_plan(desk)
    desk.approve_for(plan)
    desk.chain.swap("v3 WETH/USDC 500", "WETH", 50 * 10**18)
    simulated = desk.simulate(desk.swap_tx(plan))
    assert not simulated.ok
    assert "market moved" in simulated.reason
    assert "Too little received" in simulated.reason
    before = desk.balances()
    native = native_of(desk.chain, desk.wallet)
    receipt = desk.swap(plan, gas=1_000_000)
    assert receipt.status == 0
    assert receipt.transfers == ()
    assert desk.balances() == before
    assert native - native_of(desk.chain, desk.wallet) == receipt.gas_used * receipt.effective_gas_price_wei <= 10**6 * LIMIT_WEI


def test_a_v2_pool_that_moved_is_told_in_words(local_chain: LocalChain) -> None:
    desk = Desk(local_chain)
    plan = plan_of(desk.leg("v2 WETH/USDC", "WETH", 10**17))
    desk.approve_for(plan)
    desk.chain.swap("v2 WETH/USDC", "WETH", 10**19)
    assert "market moved" in desk.simulate(desk.swap_tx(plan)).reason


@pytest.mark.parametrize(("pool", "token"), [("v3 WETH/USDC 500", "WETH"), ("v2 WETH/USDC", "WETH"), ("v3 USDC/USDT 100", "USDT")])
def test_a_missing_approval_is_told_in_words(anvil_chain: LocalChain, pool: str, token: str) -> None:
    desk = Desk(anvil_chain)
    reason = desk.simulate(desk.swap_tx(plan_of(desk.leg(pool, token, 10**15 if token == "WETH" else 10**6)))).reason
    assert mentions(reason, "balance", "allowance")


def test_a_deadline_that_passed_is_told_in_words(anvil_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    plan = plan_of(desk.leg("v2 WETH/USDC", "WETH", 10**17))
    tx = desk.swap_tx(plan)
    desk.chain.warp(600, refresh_feeds=False)
    assert desk.simulate(replace(tx, max_fee_wei=LIMIT_WEI)).reason == "the deadline has passed (Transaction too old)"
