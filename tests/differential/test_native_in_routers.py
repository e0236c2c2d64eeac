"""Native coin in the deployed routers: sent along, wrapped, unwrapped and left, to the wei, by SwapRouter02 and the Rebalancer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi.abi import encode as abi_encode

from agent.errors import Refused
from agent.execution.settlement import realised_legs
from agent.localchain import LocalChain
from agent.model import IntentKind, Leg, LegPlace, Plan, Receipt
from agent.planning.gas import build_unwrap_leg, build_wrap_leg
from agent.signing.calldata import EXACT_INPUT_SINGLE, MULTICALL, SWEEP_TOKEN, WITHDRAW
from agent.signing.rules import require_signable
from agent.units import NATIVE
from agent.venues import calldata
from tests.support.constants import ETHER
from tests.support.signing import plan_of
from tests.support.text import raises_code
from tests.support.wallets import AtomicDesk, Desk, R, native_of

W = LegPlace.WALLET
DESKS = {"swap_router_02": Desk, "rebalancer": AtomicDesk}
both_routers = pytest.mark.parametrize("router", DESKS)


def by_value(leg: Leg) -> tuple[Leg, Leg]:
    """The leg, paid in native coin that is wrapped for it."""
    return build_wrap_leg(leg.token_in, leg.amount_in_raw, R), replace(leg, source=R)


def run_exactly(desk: Desk, plan: Plan) -> Receipt:
    """Approves what the plan asks for, runs it, and holds the wallet, the router and the events against the plan, to the wei."""
    desk.approve_for(plan)
    tokens = desk.balances()
    native = native_of(desk.chain, desk.wallet)
    receipt = desk.swap(plan)
    assert receipt.status == 1
    moved = plan.wallet_changes()
    now = desk.balances()
    assert {desk.at(symbol): now[symbol] - tokens[symbol] for symbol in now if now[symbol] != tokens[symbol]} == {
        token: raw for token, raw in moved.items() if raw and token != NATIVE
    }
    assert native_of(desk.chain, desk.wallet) - native == moved.get(NATIVE, 0) - receipt.gas_cost_wei
    assert {symbol: desk.chain.balance(symbol, desk.router) for symbol in now} == dict.fromkeys(now, 0)
    assert native_of(desk.chain, desk.router) == 0
    assert {desk.allowance(symbol) for symbol in now} == {0}
    return receipt


@both_routers
def test_swaps_paid_in_native_coin__need_no_approval(anvil_chain: LocalChain, router: str) -> None:
    desk = DESKS[router](anvil_chain)
    hub = desk.leg("v3 LINK/WETH 3000", "LINK", ETHER, sink=R)
    plan = plan_of(
        *by_value(desk.leg("v3 WETH/USDC 500", "WETH", 3 * 10**17)),
        *by_value(desk.leg("v2 WETH/USDC", "WETH", 10**17)),
        hub,
        desk.leg("v3 WETH/USDT 500", "WETH", hub.amount_out_raw, source=R),
    )
    assert [token for token, _ in desk.approvals_needed(plan)] == [desk.at("LINK")]
    receipt = run_exactly(desk, plan)
    swaps = [done for done in realised_legs(plan, receipt) if done.leg.pool != desk.at("WETH")]
    assert [(done.in_raw, done.out_raw) for done in swaps] == [(done.leg.amount_in_raw, done.leg.amount_out_raw) for done in swaps]


@both_routers
def test_native_coin_goes_through_a_hub_of_two_pools(anvil_chain: LocalChain, router: str) -> None:
    desk = DESKS[router](anvil_chain)
    coin, first = by_value(desk.leg("v2 WETH/USDT", "WETH", 10**17, sink=R))
    run_exactly(desk, plan_of(coin, first, desk.leg("v3 USDC/USDT 100", "USDT", first.amount_out_raw, source=R)))


@both_routers
def test_what_wrapped_coin_lacks_is_wrapped_to_the_wallet_first(anvil_chain: LocalChain, router: str) -> None:
    desk = DESKS[router](anvil_chain)
    weth = desk.at("WETH")
    desk.chain.set_balance("WETH", 10**17)
    swap = desk.leg("v3 WETH/USDC 500", "WETH", 3 * 10**17)
    plan = plan_of(build_wrap_leg(weth, 2 * 10**17, W), swap)
    assert desk.approvals_needed(plan) == ((weth, 3 * 10**17),)
    run_exactly(desk, plan)
    assert desk.chain.balance("WETH") == 0


@both_routers
def test_wrapped_coin__is_unwrapped_after_swaps_from_the_wallet(anvil_chain: LocalChain, router: str) -> None:
    desk = DESKS[router](anvil_chain)
    weth = desk.at("WETH")
    plan = plan_of(desk.leg("v3 WETH/USDC 500", "WETH", 10**17), build_unwrap_leg(weth, 5 * 10**16))
    assert desk.approvals_needed(plan) == ((weth, 15 * 10**16),)
    receipt = run_exactly(desk, plan)
    assert [done.out_raw for done in realised_legs(plan, receipt)] == [leg.amount_out_raw for leg in plan.legs]


@both_routers
@pytest.mark.parametrize("pool", ["v3 WETH/USDC 500", "v2 WETH/USDC"])
def test_bought_wrapped_coin__is_unwrapped_without_approval(anvil_chain: LocalChain, router: str, pool: str) -> None:
    desk = DESKS[router](anvil_chain)
    bought = desk.leg(pool, "USDC", 400 * 10**6, sink=R)
    plan = plan_of(bought, build_unwrap_leg(desk.at("WETH"), bought.amount_out_raw, R, bought.min_out_raw))
    assert [token for token, _ in desk.approvals_needed(plan)] == [desk.at("USDC")]
    run_exactly(desk, plan)


def test_the_wallet_unwraps_by_itself(anvil_chain: LocalChain) -> None:
    desk = Desk(anvil_chain)
    weth = desk.at("WETH")
    raw = 5 * 10**16
    plan = plan_of(build_unwrap_leg(weth, raw))
    grant = desk.grant(IntentKind.UNWRAP, plan=plan, floors_raw=(raw,))
    wrapped = desk.chain.balance("WETH")
    native = native_of(desk.chain, desk.wallet)
    receipt = desk.run(desk.tx(weth, "0x" + (WITHDRAW + raw.to_bytes(32, "big")).hex()), grant)
    assert receipt.status == 1
    assert receipt.net_transfers(desk.wallet) == {weth: -raw}
    assert receipt.unwrapped_raw(weth, desk.wallet) == raw
    assert desk.chain.balance("WETH") == wrapped - raw
    assert native_of(desk.chain, desk.wallet) == native + raw - receipt.gas_cost_wei


def test_wrapped_before_native__passes_neither_encoder_nor_signer(
    anvil_chain: LocalChain,
) -> None:
    desk = Desk(anvil_chain)
    own = desk.leg("v3 WETH/USDC 500", "WETH", 10**17)
    coin, paid = by_value(desk.leg("v3 WETH/USDT 500", "WETH", 2 * 10**17))
    wrong = plan_of(own, coin, paid)
    deadline_s = desk.sender.head().timestamp_s + 60
    with raises_code(Refused, "wrapping"):
        calldata.encode_multicall(wrong, desk.wallet, deadline_s)

    def call(leg: Leg) -> bytes:
        order = (leg.token_in, leg.token_out, leg.fee_pips, calldata.ROUTER_ITSELF, leg.amount_in_raw, leg.min_out_raw, 0)
        return EXACT_INPUT_SINGLE + abi_encode(["(address,address,uint24,address,uint256,uint256,uint160)"], [order])

    def sweep(leg: Leg) -> bytes:
        return SWEEP_TOKEN + abi_encode(["address", "uint256", "address"], [leg.token_out, leg.min_out_raw, desk.wallet])

    data = "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [deadline_s, [call(own), call(paid), *map(sweep, (own, paid))]])).hex()
    desk.approve(desk.at("WETH"), 2 * 10**17)
    tx = desk.tx(desk.router, data, value_wei=2 * 10**17, gas=600_000)
    grant = desk.grant(IntentKind.SWAP, plan=wrong, floors_raw=tuple(leg.min_out_raw for leg in wrong.legs))
    with pytest.raises(Refused) as refused:
        require_signable(tx, grant, desk.rules, {tx.nonce: None})
    assert refused.value.verdicts[0].guard == "signer.native"
    # Sent all the same, it strands native coin in the router: 0.1 of it paid the first swap, and the second took wrapped coin.
    weth = desk.chain.balance("WETH")
    sent = desk.chain.w3.eth.send_transaction({"from": desk.wallet, "to": desk.router, "data": data, "value": 2 * 10**17, "gas": 600_000})
    assert desk.mined("0x" + bytes(sent).hex()).status == 1
    assert native_of(desk.chain, desk.router) == 10**17
    assert desk.chain.balance("WETH") == weth - 2 * 10**17
