"""The same rebalance through our own contract: pinned by trust, approved exactly, to the wei as planned, nothing left behind."""

from __future__ import annotations

from pathlib import Path

from eth_utils.crypto import keccak

from agent.app.money.deployment import rebalancer_deployment
from agent.artifacts import npm_artifact
from agent.config.load import parse_config
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.chain import V2_PAIR_ARTIFACT, V3_POOL_ARTIFACT
from agent.signing.calldata import FundsLocation, RebalanceCall, decode
from agent.units import BPS
from agent.venues.kinds import uniswap_v2, uniswap_v3
from tests.support.agents import (
    FIVE,
    ROOMY,
    agent_config,
    agent_on,
    allowances,
    fund,
    off_target,
    purse,
    reopened_agent,
    require_exact,
    require_rebalance,
    skipped_text,
    swap_of,
    trusted_config,
    yes,
)
from tests.support.text import mentions, raises_field

ATOMIC = ROOMY | {"execution.router": "rebalancer"}
MIXED = {"WETH": 51_234, "WBTC": 333, "USDC": 0, "USDT": 21_000, "LINK": 17_433}


def test_lopsided_wallet__is_on_target_by_one_rebalancer_call(chain: LocalChain, tmp_path: Path) -> None:
    contract = chain.addresses.rebalancer
    fund(chain, MIXED)
    with agent_on(chain, tmp_path, ATOMIC) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, swap, _ = swap_of(outcome)
        require_exact(chain, outcome, before)
        assert max(off_target(chain, FIVE).values()) <= 10, skipped_text(plan.skipped)
        assert swap.tx.to == contract
        assert swap.tx.value_wei == 0
        assert {intent.tx.to for intent in outcome.transactions if intent is not swap} <= {t.address for t in chain.tokens.values()}
        assert not any(chain.balance(symbol, contract) for symbol in chain.tokens)
        assert not any(chain.token_contract(s).functions.allowance(chain.wallet.address, contract).call() for s in chain.tokens)
        assert not any(allowances(chain).values())
        call = decode(swap.tx.data)
        assert isinstance(call, RebalanceCall)
        changes = {entry.token: entry.min_change_raw for entry in call.watched_balances}
        actual = {token.address: chain.balance(symbol) - before.raw[symbol] for symbol, token in chain.tokens.items()}
        assert all(changes[token] <= raw for token, raw in actual.items() if raw)
        assert set(changes) == {t for t, raw in actual.items() if raw}
        lost = plan.cost.total - plan.cost.gas
        assert lost <= -call.min_value_change_raw <= plan.turnover * (agent.context.limits.plan_cost_bps or 0) / BPS + lost + 2
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_a_chain_of_swaps_goes_from_pool_to_pair_without_a_stop(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"LINK": 9_000, "WETH": 1})
    pairs_only = {
        "limits.oracle_deviation": "off",
        "limits.plan_cost": "3%",
        "limits.price_impact": "8%",
        "venues.uniswap_v3.pools": [chain.address_by_pool["v3 USDC/USDT 100"]],
    }
    with agent_on(chain, tmp_path, ATOMIC | pairs_only) as agent:
        before = purse(chain)
        outcome = agent.swap("LINK", "USDC", "100", send=True, confirm=yes)
        plan, swap, receipt = swap_of(outcome)
        require_exact(chain, outcome, before)
        call = decode(swap.tx.data)
        assert isinstance(call, RebalanceCall)
        straight = [number for number, leg in enumerate(call.legs) if leg.source is FundsLocation.PAIR]
        assert straight, "LINK reaches USDC through WETH, in pairs"
        for number in straight:
            leg = plan.legs[number]
            assert any(
                t.recipient == leg.pool and t.raw == leg.amount_in_raw and t.sender != chain.wallet.address for t in receipt.transfers
            )
        assert not [t for t in receipt.transfers if chain.addresses.rebalancer in (t.sender, t.recipient)]


def test_an_unpinned_rebalancer_refuses_by_name(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, MIXED)
    with agent_on(chain, tmp_path, ROOMY) as agent:
        assert chain.addresses.rebalancer not in agent.context.store.trust.pins()
    loaded = agent_config(chain, tmp_path, ATOMIC)
    with reopened_agent(chain, loaded) as agent:
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        refusing = {verdict.guard: verdict.measured_text for verdict in outcome.refusal_verdicts if not verdict.passed}
        assert mentions(refusing["allowlist"], f"{chain.addresses.rebalancer}", "not pinned")


def test_a_rebalancer_without_address_is_named(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with (
        raises_field("execution.rebalancer"),
        agent_on(anvil_chain, tmp_path, ATOMIC | {"execution.rebalancer": None}),
    ):
        pass


def test_code_not_our_rebalancer__is_named_before_pinning(chain: LocalChain, tmp_path: Path) -> None:
    for address in (chain.addresses.swap_router_02, chain.addresses.v3_factory, chain.wallet.address):
        with raises_field("execution.rebalancer", "Rebalancer"):
            trusted_config(chain, tmp_path, ATOMIC | {"execution.rebalancer": address})


def test_deploy__puts_the_rebalancer_where_it_is_everywhere(chain: LocalChain, tmp_path: Path) -> None:
    loaded = agent_config(chain, tmp_path)
    deployment_document = rebalancer_deployment(loaded)
    assert (deployment_document["chain_id"], deployment_document["deployed"], deployment_document["value_wei"]) == (
        chain.chain_id,
        False,
        "0",
    )
    sent = chain.w3.eth.send_transaction(
        {"from": chain.whale.address, "to": deployment_document["to"], "data": deployment_document["data"]}
    )
    assert chain.w3.eth.wait_for_transaction_receipt(sent)["status"] == 1
    assert rebalancer_deployment(loaded) == {**deployment_document, "deployed": True, "outcome": "hold"}
    trusted_config(chain, tmp_path, ATOMIC | {"execution.rebalancer": deployment_document["address"]})


def test_a_fork_with_another_init_code_hash_is_named(anvil_chain: LocalChain, tmp_path: Path) -> None:
    wrong = {"venues.uniswap_v2.init_code_hash": "0x" + "11" * 32}
    with raises_field("venues.uniswap_v2.init_code_hash", "makes the pool"), agent_on(anvil_chain, tmp_path, ATOMIC | wrong):
        pass


def test_init_code_hashes__are_those_of_the_npm_packages() -> None:
    hashes = ["0x" + keccak(hexstr=npm_artifact(path).bytecode).hex() for path in (V2_PAIR_ARTIFACT, V3_POOL_ARTIFACT)]
    assert hashes == [uniswap_v2.INIT_CODE_HASH, uniswap_v3.INIT_CODE_HASH]


def test_a_local_chain_writes_a_config_for_either_router(anvil_chain: LocalChain) -> None:
    for router in ("swap_router_02", "rebalancer"):
        execution = parse_config(anvil_chain.config_text(router=router)).execution
        assert (execution.router, execution.rebalancer) == (router, anvil_chain.addresses.rebalancer)
