"""Attacks on the Rebalancer by callback, pool and allowance (threat T5): each is tried on a real chain, and gains nothing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from eth_utils.crypto import keccak

from agent.artifacts import npm_artifact, own_artifact
from agent.localchain import LocalChain
from agent.localchain.chain import V2_PAIR, V3_POOL
from tests.support.attacks import Stage, add_foreign, attack, callback, error
from tests.support.signing import plan_of
from tests.support.text import mentions
from tests.support.wallets import HERE, PAIR, V2, V3, AtomicDesk, R, raw_leg, raw_program

ETHER = 10**18
NOT_AWAITED = error("NotAwaited")
LOWEST = 4295128740
NEW_POOL_GAS = 4_000_000
"""A pool made in this second costs less gas in a simulation than a second later, when it first writes its price down."""


def test_nobody_makes_an_idle_rebalancer_pay(anvil_chain: LocalChain) -> None:
    """Forged callback, stolen allowance: the victim's allowance is open, and only his own call spends it."""
    stage = Stage(anvil_chain)
    before, pool = stage.context.balances(), anvil_chain.pools["v3 WETH/USDC 500"]
    forged = [callback(stage.victim, stage.at(symbol), 10**6, 10**6) for symbol in ("WETH", "USDC", "USDT")]
    forged += [callback(stage.victim, stage.at("WETH"), 0, 0), callback(stage.rebalancer, stage.at("WETH"), 1, 1)]
    forged += [forged[0][:-64], forged[0] + "00" * 32, "0x" + forged[0][2:10]]
    stage.prepare([(stage.rebalancer, data) for data in forged])
    stage.chain.send(stage.accomplice.functions.strike())
    tried, succeeded, errors = stage.outcome()
    assert (tried, succeeded) == (len(forged), 0)
    assert errors[:5] == [NOT_AWAITED] * 5
    for sender in (stage.thief, stage.victim, pool, stage.rebalancer):
        assert "NotAwaited" in stage.context.would(forged[0], sender).reason
    assert stage.context.balances() == before


def test_another_accounts_allowance_is_not_spent_by_the_victims_own_calldata(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    data = stage.context.swap_tx(plan_of(stage.context.leg("v3 WETH/USDC 500", "WETH", ETHER // 10))).data
    assert stage.context.would(data).ok, "the same call is good when the victim sends it"
    for venue, pool in ((V3, "v3 WETH/USDC 500"), (V2, "v2 WETH/USDC")):
        tokens = [stage.at("WETH"), stage.at("USDC")]
        fee = anvil_chain.deployed.pool_by_name[pool].fee_pips
        own_words = raw_program(tokens, [raw_leg(tokens, venue, *tokens, fee=fee, raw=ETHER // 10)])
        for stolen in (data, own_words):
            simulated = stage.context.would(stolen, stage.thief)
            assert not simulated.ok
            assert "TokenRefused" in simulated.reason


def test_a_thief_who_buys_in_a_genuine_pool_does_not_pay_with_the_victims_allowance(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    thief, info = stage.deploy("AllowanceThief"), anvil_chain.deployed.pool_by_name["v3 WETH/USDC 500"]
    sells = info.token0
    loot = (stage.rebalancer, stage.victim, sells.address)
    steal = stage.calldata(thief, "steal", info.address, True, 10**6, LOWEST, loot)
    assert "NotAwaited" in stage.context.would(steal, stage.thief, to=thief.address).reason


@pytest.mark.parametrize("sells_evil", [True, False])
def test_a_malicious_token_forges_no_callback_while_its_genuine_pool_is_awaited(anvil_chain: LocalChain, sells_evil: bool) -> None:
    """Bought, the token runs while the pool is awaited; sold, just after it was served. It sends the very data that is awaited."""
    stage = Stage(anvil_chain, evil=True)
    desk, name = stage.context, "v3 EVIL/WETH 3000"
    sold, _, raw = ("EVIL", "WETH", 100 * ETHER) if sells_evil else ("WETH", "EVIL", ETHER // 10)
    plan = plan_of(desk.leg(name, sold, raw), desk.leg("v3 WETH/USDC 500", "WETH", ETHER // 10))
    amounts = (raw, -1) if anvil_chain.deployed.pool_by_name[name].token0.symbol == sold else (-1, raw)
    awaited = callback(stage.victim, stage.at(sold), raw, *amounts)
    others = [callback(stage.victim, stage.at(symbol), 10**6, 10**6) for symbol in ("WETH", "USDC", "EVIL")]
    thief = stage.deploy("AllowanceThief")
    usdc_pool = anvil_chain.deployed.pool_by_name["v3 USDC/USDT 100"]
    loot = (stage.rebalancer, stage.victim, usdc_pool.token0.address)
    genuine = stage.calldata(thief, "steal", usdc_pool.address, True, 10**6, LOWEST, loot)
    again = desk.swap_tx(plan).data
    steps = [(stage.rebalancer, data) for data in (awaited, *others, again)]
    stage.prepare([*steps, (thief.address, genuine)])
    before, loot_before = desk.balances(), stage.loot()
    assert desk.swap(plan, gas=NEW_POOL_GAS).status == 1
    tried, succeeded, errors = stage.outcome()
    assert (tried, succeeded) == (6, 0)
    assert errors == [NOT_AWAITED] * 4 + [error("Reentered"), NOT_AWAITED]
    assert stage.loot() == loot_before
    after = desk.balances()
    changed = {symbol: after[symbol] - before[symbol] for symbol in after if after[symbol] != before[symbol]}
    out, usdc = plan.legs[0].amount_out_raw, plan.legs[1].amount_out_raw
    weth = out - ETHER // 10 if sells_evil else -raw - ETHER // 10
    assert changed == {"WETH": weth, "EVIL": -raw if sells_evil else out, "USDC": usdc}


@pytest.mark.parametrize("grab", ["skim", "sync"])
def test_a_malicious_token_cannot_grab_what_waits_in_a_pair_for_the_next_leg(anvil_chain: LocalChain, grab: str) -> None:
    """The genuine pool has sent WETH ahead into the pair and is being paid with EVIL: now the pair is skimmed."""
    stage = Stage(anvil_chain, evil=True)
    desk = stage.context
    first = desk.leg("v3 EVIL/WETH 3000", "EVIL", 100 * ETHER, sink=R)
    plan = plan_of(first, desk.leg("v2 WETH/USDC", "WETH", first.amount_out_raw, source=R))
    pair = anvil_chain.contract(anvil_chain.pools["v2 WETH/USDC"], npm_artifact(V2_PAIR))
    data = stage.calldata(pair, "skim", stage.thief) if grab == "skim" else stage.calldata(pair, "sync")
    assert desk.simulate(desk.swap_tx(plan)).ok
    stage.prepare([(pair.address, data)])
    simulated = desk.simulate(desk.swap_tx(plan))
    assert not simulated.ok
    assert "TooLittleOut" in simulated.reason
    assert "swap 2" in simulated.reason
    before = desk.balances()
    assert desk.swap(plan, gas=NEW_POOL_GAS).status == 0
    assert desk.balances() == before
    assert not stage.loot()["WETH"]


def test_a_malicious_token_that_refuses_lies_or_answers_a_megabyte_costs_only_its_own_swap(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    mega = anvil_chain.deploy(own_artifact("MegabyteToken"))
    tokens = [stage.at("WETH"), mega]
    data = raw_program(tokens, [raw_leg(tokens, V2, *tokens, raw=10**15)], watched=[(Fraction(1), -ETHER), (Fraction(0), 0)])
    assert not stage.context.would(data).ok
    kept = add_foreign(anvil_chain, "FEE", own_artifact("FeeOnTransfer"), 100)
    anvil_chain.add_v2_pool("FEE", "USDC", 1_000_000)
    anvil_chain.set_balance("FEE", 1_000 * ETHER)
    anvil_chain.send(anvil_chain.token_contract("FEE").functions.approve(stage.rebalancer, 2**200), stage.victim, gas=200_000)
    desk = AtomicDesk(anvil_chain)
    quoted = desk.leg("v2 FEE/USDC", "FEE", 99 * ETHER)
    sold = plan_of(replace(quoted, amount_in_raw=100 * ETHER))
    before = desk.balances()
    assert desk.swap(sold, gas=NEW_POOL_GAS).status == 1, "what arrives counts, not what was sent"
    after = desk.balances()
    assert after["FEE"] - before["FEE"] == -100 * ETHER
    assert after["USDC"] - before["USDC"] == quoted.amount_out_raw
    bought = plan_of(desk.leg("v2 FEE/USDC", "USDC", 10**8))
    assert mentions(desk.simulate(desk.swap_tx(bought)).reason, f"{kept.address}", "change by")


def fork(stage: Stage, fee: int) -> tuple[object, object, list[str]]:
    """A factory of pools with other code, its pool of WETH and USDC, and the two tokens in order."""
    factory = stage.deploy("ForkFactory")
    tokens = sorted([stage.at("WETH"), stage.at("USDC")], key=lambda token: int(token, 16))
    stage.chain.send(factory.functions.make(*tokens, fee))
    salt = keccak(b"".join(bytes(12) + bytes.fromhex(t[2:]) for t in tokens) + fee.to_bytes(32, "big"))
    made = keccak(b"\xff" + bytes.fromhex(factory.address[2:]) + salt + factory.functions.initCodeHash().call())[12:]
    return factory, stage.chain.contract("0x" + made.hex(), attack("ForkPool")), tokens


def test_a_fork_with_other_init_code_is_never_reached_and_never_served(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    for fee in (500, 777):
        _, pool, tokens = fork(stage, fee)
        assert len(anvil_chain.w3.eth.get_code(pool.address)) > 100
        weth, usdc = stage.at("WETH"), stage.at("USDC")
        data = raw_program(tokens, [raw_leg(tokens, V3, weth, usdc, fee=fee, raw=ETHER // 10)])
        demand = stage.calldata(pool, "demand", stage.rebalancer, 1, -1, bytes.fromhex(callback(stage.victim, weth, 1, 1)[-192:]))
        assert "NotAwaited" in stage.context.would(demand, stage.thief, to=pool.address).reason
        if fee == 777:
            assert "NoSuchPool" in stage.context.would(data).reason, "only the fork has this tier"
            continue
        genuine = anvil_chain.contract(anvil_chain.pools["v3 WETH/USDC 500"], npm_artifact(V3_POOL))
        price = genuine.functions.slot0().call()[0]
        tx = stage.context.tx(stage.rebalancer, data, gas=1_000_000)
        anvil_chain.w3.eth.wait_for_transaction_receipt(
            anvil_chain.w3.eth.send_transaction({"from": stage.victim, "to": tx.to, "data": tx.data, "gas": tx.gas})
        )
        assert pool.functions.swaps().call() == 0
        assert genuine.functions.slot0().call()[0] != price


@pytest.mark.parametrize(
    ("asks", "extra", "claims", "words"),
    [
        (1, 0, 10**12, "BelowBound"),
        (2, 0, 10**12, "NotAwaited"),
        (1, 1, 10**12, "TooMuchAsked"),
        (1, -(10**17), 10**12, "TooMuchAsked"),
        (0, 0, 10**12, "BelowBound"),
        (1, 0, 0, "TooLittleOut"),
        (1, 0, -1, "TooLittleOut"),
    ],
)
def test_a_rebalancer_made_for_the_fork_itself_is_asked_once_for_no_more_and_robbed_of_nothing(
    anvil_chain: LocalChain, asks: int, extra: int, claims: int, words: str
) -> None:
    """The control: were such a pool accepted, it asks twice, for more, or pays nothing of what it says. Each has its own lock."""
    stage = Stage(anvil_chain)
    factory, pool, _ = fork(stage, 500)
    init_hash = factory.functions.initCodeHash().call()  # type: ignore[attr-defined]  # web3 makes functions from the ABI
    at = anvil_chain.addresses
    pairs = keccak(hexstr=npm_artifact(V2_PAIR).bytecode)
    made_for_it = anvil_chain.deploy(own_artifact("Rebalancer"), at.weth, at.v2_factory, pairs, factory.address, init_hash)
    for symbol in ("WETH", "USDC"):
        anvil_chain.send(anvil_chain.token_contract(symbol).functions.approve(made_for_it, 2**200), stage.victim, gas=200_000)
    anvil_chain.send(pool.functions.pretend(asks, extra % 2**256, claims))
    weth, usdc, raw = stage.at("WETH"), stage.at("USDC"), ETHER // 10
    listed = [weth, usdc]
    prices = stage.context.prices
    data = raw_program(
        listed,
        [raw_leg(listed, V3, weth, usdc, fee=500, raw=raw, least=299 * 10**6)],
        watched=[(prices[weth], -raw), (Fraction(1), 299 * 10**6)],
    )
    simulated = stage.context.would(data, to=made_for_it)
    assert not simulated.ok
    assert words in simulated.reason


def test_tokens_sent_to_where_no_leg_waits_or_by_a_wrong_way_are_refused(anvil_chain: LocalChain) -> None:
    stage = Stage(anvil_chain)
    weth, usdc, usdt = (stage.at(symbol) for symbol in ("WETH", "USDC", "USDT"))
    listed = [weth, usdc, usdt]
    paid = [(stage.context.prices[weth], -(10**16)), (Fraction(1), 29 * 10**6)]
    astray = raw_leg(listed, V2, weth, usdc, sink=PAIR, pair_with=usdt, raw=10**16)
    assert "BelowBound" in stage.context.would(raw_program(listed, [astray], paid)).reason
    assert "Malformed" in stage.context.would(raw_program(listed, [raw_leg(listed, V3, weth, usdc, fee=500, source=PAIR)])).reason
    nothing = raw_leg(listed, V2, weth, usdc, source=PAIR)
    assert "TooLittleOut" in stage.context.would(raw_program(listed, [nothing])).reason, "nobody sent anything ahead"
    empty = raw_leg(listed, V2, weth, usdc, source=HERE)
    assert "TooLittleOut" in stage.context.would(raw_program(listed, [empty])).reason
