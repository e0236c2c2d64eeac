"""The same rebalance through our own contract: pinned by trust, approved exactly, to the wei as planned, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.chain.calls import decode
from agent.chain.program import Place, Rebalance
from agent.engine import OutcomeKind
from agent.errors import ConfigError
from agent.localchain import LocalChain
from agent.units import BPS
from tests.agents import FIVE, ROOMY, again, agent_on, allowances, config, fund, off_target, purse, require_exact, said, swap_of, yes

ATOMIC = ROOMY | {"execution.router": "rebalancer"}
MIXED = {"WETH": 51_234, "WBTC": 333, "USDC": 0, "USDT": 21_000, "LINK": 17_433}


def test_a_lopsided_wallet_is_brought_on_target_by_one_call_of_the_rebalancer(local_chain: LocalChain, tmp_path: Path) -> None:
    chain, contract = local_chain, local_chain.addresses.rebalancer
    fund(chain, MIXED)
    with agent_on(chain, tmp_path, ATOMIC) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        plan, swap, _ = swap_of(outcome)
        require_exact(chain, outcome, before)
        assert max(off_target(chain, FIVE).values()) <= 10, said(plan.skipped)
        assert swap.tx.to == contract and swap.tx.value_wei == 0
        assert {intent.tx.to for intent in outcome.transactions if intent is not swap} <= {t.address for t in chain.tokens.values()}
        assert not any(chain.balance(symbol, contract) for symbol in chain.tokens)
        assert not any(chain.token_contract(s).functions.allowance(chain.wallet.address, contract).call() for s in chain.tokens)
        assert not any(allowances(chain).values())
        call = decode(swap.tx.data)
        assert isinstance(call, Rebalance)
        changes = {entry.token: entry.bound_raw for entry in call.watched}
        actual = {token.address: chain.balance(symbol) - before.raw[symbol] for symbol, token in chain.tokens.items()}
        assert all(changes[token] <= raw for token, raw in actual.items() if raw) and set(changes) == {
            t for t, raw in actual.items() if raw
        }
        assert -plan.turnover * (agent.desk.limits.slippage_bps or 0) / BPS < plan.cost.gas - plan.cost.total - call.floor_raw + 2
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_a_chain_of_swaps_goes_from_pool_to_pair_without_a_stop(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, {"LINK": 9_000, "WETH": 1})
    pairs_only = {
        "limits.oracle_deviation": "off",
        "limits.plan_cost": "3%",
        "limits.price_impact": "8%",
        "venues.uniswap_v3.pools": [chain.pools["v3 USDC/USDT 100"]],
    }
    with agent_on(chain, tmp_path, ATOMIC | pairs_only) as agent:
        before = purse(chain)
        outcome = agent.swap("LINK", "USDC", "100", send=True, confirm=yes)
        plan, swap, receipt = swap_of(outcome)
        require_exact(chain, outcome, before)
        call = decode(swap.tx.data)
        assert isinstance(call, Rebalance)
        straight = [number for number, leg in enumerate(call.legs) if leg.source is Place.PAIR]
        assert straight, "LINK reaches USDC through WETH, in pairs"
        for number in straight:
            leg = plan.legs[number]
            assert any(
                t.recipient == leg.pool and t.raw == leg.amount_in_raw and t.sender != chain.wallet.address for t in receipt.transfers
            )
        assert not [t for t in receipt.transfers if chain.addresses.rebalancer in (t.sender, t.recipient)]


def test_an_unpinned_rebalancer_refuses_by_name(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, MIXED)
    with agent_on(chain, tmp_path, ROOMY) as agent:
        assert chain.addresses.rebalancer not in {pin.address for pin in agent.desk.store.pins()}
    loaded = config(chain, tmp_path, ATOMIC)
    with again(chain, loaded) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        assert outcome.kind is OutcomeKind.REFUSED
        refusing = {verdict.guard: verdict.measured for verdict in outcome.verdicts if not verdict.passed}
        assert f"{chain.addresses.rebalancer} is not pinned" in refusing["allowlist"]


def test_a_rebalancer_without_address_is_named(anvil_chain: LocalChain, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"execution\.rebalancer"),
        agent_on(anvil_chain, tmp_path, ATOMIC | {"execution.rebalancer": None}),
    ):
        pass
