"""Data fees against the deployed contracts of the OP Stack: the bound is never below the fee of a transaction, the expected fee is near
it, and whole steps book what the chain takes, and refuse a spike.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from random import Random
from statistics import median

import pytest
from eth_utils.crypto import keccak

from agent.artifacts import own_artifact
from agent.config.networks import BASE
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model.rollups import MAX_FEE_RISE, scaled_fee_quote
from agent.planning.approval_gas import legs_bytes
from agent.policy.minimum import APPROVAL_BYTES, LEG_BYTES
from tests.support.agents import ROOMY, agent_on, fund, meanwhile, purse, require_exact, require_exact_rebalance, yes
from tests.support.op_stack import (
    CONTRACTS,
    OPERATOR_FEE_CONSTANT,
    PRICES,
    any_transaction,
    fjord,
    install,
    quote,
    set_prices,
    swap_program,
    transaction,
    true_fees,
)
from tests.support.samples import slow

TARGETS = {"WETH": "50%", "USDC": "50%"}
OFF = {"WETH": 6_000, "USDC": 4_000}
ROUTERS = ("swap_router_02", "rebalancer")


@pytest.mark.parametrize("number", [120, *slow([10_000])])
def test_no_transaction_pays_more_than_the_bound(anvil_chain: LocalChain, number: int) -> None:
    line = anvil_chain.transport
    random = Random(number)
    install(line)
    below = 0
    for prices in PRICES:
        set_prices(line, *prices)
        read = quote(line)
        for _ in range(number // 40):
            transactions = [any_transaction(random) for _ in range(10)]
            fees = true_fees(line, transactions)
            assert min(fees) >= read.empty_tx_wei > 0
            below += sum(read.max_data_fee_wei(len(tx.data) // 2 - 1) < fee for tx, fee in zip(transactions, fees, strict=True))
    assert below == 0


@pytest.mark.parametrize("router", ROUTERS)
def test_the_expected_fee_of_a_swap_is_near_the_true_one(anvil_chain: LocalChain, router: str) -> None:
    """At most 1.2 times it in the median, for every number of legs; the bound is at least three times it."""
    line = anvil_chain.transport
    random = Random(29)
    install(line)
    ratios: dict[int, list[float]] = defaultdict(list)
    for prices in PRICES:
        set_prices(line, *prices)
        read = quote(line)
        for legs in (1, 2, 3, 4, 6, 8):
            expected_wei, most_wei = (fee(LEG_BYTES * (legs + 1)) for fee in (read.expected_data_fee_wei, read.max_data_fee_wei))
            fees = true_fees(line, [swap_program(random, router, legs) for _ in range(6)])
            ratios[legs] += [expected_wei / fee for fee in fees]
            assert most_wei > 3 * max(fees)
    medians = {legs: round(median(ratios_of_kind), 3) for legs, ratios_of_kind in ratios.items()}
    assert all(0.9 <= ratio <= 1.2 for ratio in medians.values()), medians
    assert all(0.8 <= ratio <= 1.4 for ratios_of_kind in ratios.values() for ratio in ratios_of_kind)


def test_expected_approval_fee__is_at_least_the_true_one(anvil_chain: LocalChain) -> None:
    line = anvil_chain.transport
    random = Random(7)
    install(line)
    set_prices(line, *PRICES[0])
    data = "0x095ea7b3" + bytes(12).hex() + random.randbytes(20).hex() + f"{123_456_789_012_345_678_901:064x}"
    (fee,) = true_fees(line, [transaction("0x" + random.randbytes(20).hex(), data, random)])
    assert fee <= quote(line).expected_data_fee_wei(APPROVAL_BYTES) <= 1.2 * fee


def test_quote_from_one_fee__has_the_contract_s_proportions(anvil_chain: LocalChain) -> None:
    line = anvil_chain.transport
    install(line)
    set_prices(line, *PRICES[1])
    read = quote(line)
    assumed = scaled_fee_quote(read.one_swap_wei)
    assert (read.operator_wei, read.operator_full_wei) == (OPERATOR_FEE_CONSTANT, OPERATOR_FEE_CONSTANT)
    for name in ("empty_tx_wei", "one_swap_wei", "four_swaps_wei", "full_tx_wei"):
        assert getattr(assumed, name) == pytest.approx(getattr(read, name), rel=1e-4)
    assert pytest.approx(read.one_swap_wei, rel=0.05) == BASE.fees.data_fee_wei


@pytest.mark.parametrize("router", ROUTERS)
def test_a_rebalance_pays_about_the_planned_fee(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, router: str) -> None:
    fund(chain, OFF)
    with (
        fjord(chain, monkeypatch) as node,
        agent_on(chain, tmp_path, ROOMY | {"execution.router": router}, TARGETS, [node.transport]) as agent,
    ):
        outcome = require_exact_rebalance(chain, agent)
        (intent,) = [intent for intent in outcome.transactions if agent.context.store.journal.grant(intent.id).plan is not None]
        granted = agent.context.store.journal.grant(intent.id)
        assert granted.plan is not None
        assert intent.receipt is not None
        assert granted.max_data_fee_wei is not None
        paid_wei = intent.receipt.data_fee_wei
        assert node.paid[str(intent.tx_hash)] == paid_wei <= granted.max_data_fee_wei // MAX_FEE_RISE
        planned_wei = quote(chain.transport).expected_fee_beyond_gas_wei(granted.plan.gas_units, legs_bytes(granted.plan.legs))
        assert 0.8 * paid_wei <= planned_wei <= 1.4 * paid_wei


def test_a_fee_100_times_higher_at_sending_is_refused_by_name(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with fjord(chain, monkeypatch) as node, agent_on(chain, tmp_path, ROOMY, TARGETS, [node.transport]) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=meanwhile(lambda: node.spike(100)))
        assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
        assert [verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed] == ["data_fee"]
        assert "data fee rose" in outcome.reason
        assert purse(chain) == before
        assert not node.paid
        require_exact(chain, agent.rebalance(send=True, confirm=yes), before)  # the new price is part of the new plan


def test_the_contracts_of_the_op_stack_are_those_of_the_package() -> None:
    """Runtime code of @eth-optimism/contracts-bedrock 0.17.3 (MIT), forge-artifacts."""
    hashes = [keccak(hexstr=own_artifact(name).runtime_code).hex()[:16] for name in CONTRACTS]
    assert hashes == ["a88fa50a2745b15e", "3f5ec6b10ec3d60b"]
