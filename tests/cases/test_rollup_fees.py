"""Steps on a chain of the OP Stack: the data fee in balances, plans and caps; a spike, a lost process, an oracle that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.app.documents.plans import plan_document, transaction_document
from agent.app.paper import open_paper
from agent.chain.fees.data_fees import GAS_PRICE_ORACLE
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import Halt, HaltCode, IntentKind
from agent.model.rollups import MAX_FEE_RISE
from agent.planning.approval_gas import legs_bytes
from tests.support.agents import (
    ROOMY,
    agent_on,
    allow,
    allowances,
    failed_verdicts,
    fund,
    meanwhile,
    purse,
    reopened_agent,
    require_exact,
    require_rebalance,
    trusted_config,
    yes,
)
from tests.support.rollups import op_stack
from tests.support.transactions import Killed

TARGETS = {"WETH": "50%", "USDC": "50%"}
THREE = {"WETH": "40%", "USDC": "40%", "LINK": "20%"}
OFF = {"WETH": 6_000, "USDC": 4_000}


def test_a_rebalance_on_a_rollup_adds_up_to_the_wei(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with op_stack(chain, monkeypatch) as node, agent_on(chain, tmp_path, ROOMY, TARGETS, [node.transport]) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=yes)
        require_exact(chain, outcome, before)
        assert outcome.plan is not None
        fees = [intent.receipt.data_fee_wei for intent in outcome.transactions if intent.receipt is not None]
        assert len(fees) == len(node.paid) == len(outcome.transactions) > 0
        assert sorted(fees) == sorted(node.paid.values())
        shown_fees = [int(transaction_document(intent)["data_fee_wei"]) for intent in outcome.transactions]
        assert shown_fees == fees, "a reader of the document can add up what was paid"
        cost = plan_document(outcome)["cost"]
        assert float(cost["data_fee"]) > 0
        assert float(cost["gas"]) > float(cost["data_fee"])
        day = agent.context.store.budgets.history(chain.now_s())
        assert day.budgets.gas_24h_wei == before.native_wei - purse(chain).native_wei
        # Nothing is unexplained: the next step holds, and no balance change is recorded as a loss.
        require_rebalance(agent, OutcomeKind.HOLD)
        assert agent.context.store.budgets.history(chain.now_s()).budgets.loss_24h == day.budgets.loss_24h


def test_the_planned_fee_bounds_the_fee_paid(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, router in enumerate(("swap_router_02", "rebalancer")):
        fund(chain, {"WETH": 3_000, "USDC": 7_000, "LINK": 0})
        with (
            op_stack(chain, monkeypatch) as node,
            agent_on(chain, tmp_path / str(number), ROOMY | {"execution.router": router}, THREE, [node.transport]) as agent,
        ):
            outcome = agent.rebalance(send=True, confirm=yes)
            for intent in outcome.transactions:
                granted = agent.context.store.journal.grant(intent.id)
                assert intent.receipt is not None
                assert granted.max_data_fee_wei is not None
                assert intent.receipt.data_fee_wei <= granted.max_data_fee_wei // MAX_FEE_RISE
                if granted.plan is not None:
                    assert len(granted.plan.legs) > 1
                    assert len(intent.tx.data) // 2 - 1 <= legs_bytes(granted.plan.legs)


def test_a_spike_of_the_data_fee_before_sending_is_refused(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with op_stack(chain, monkeypatch) as node, agent_on(chain, tmp_path, ROOMY, TARGETS, [node.transport]) as agent:
        before = purse(chain)
        outcome = agent.rebalance(send=True, confirm=meanwhile(lambda: node.spike(10)))
        assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
        assert "data fee" in outcome.reason
        assert purse(chain) == before
        assert not node.paid
        again_outcome = agent.rebalance(send=True, confirm=yes)  # the new price is part of the new plan
        require_exact(chain, again_outcome, before)


def test_a_data_fee_above_the_day_s_gas_is_refused(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with (
        op_stack(chain, monkeypatch) as node,
        agent_on(chain, tmp_path, ROOMY | {"limits.gas_per_day": "0.05", "limits.plan_cost": "off"}, TARGETS, [node.transport]) as agent,
    ):
        assert agent.plan().kind is OutcomeKind.PLANNED
        node.spike(50_000)
        outcome = agent.plan()
        assert outcome.kind is OutcomeKind.REFUSED, outcome.reason
        assert "gas_per_day" in {verdict.guard for verdict in failed_verdicts(outcome)}


def test_without_the_oracle_nothing_is_traded(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with op_stack(chain, monkeypatch) as node, agent_on(chain, tmp_path, ROOMY, TARGETS, [node.transport]) as agent:
        chain.transport.call("anvil_setCode", [GAS_PRICE_ORACLE, "0x"])
        outcome = require_rebalance(agent, OutcomeKind.HALT)
        decision = agent.status().decision_result.decision
        assert isinstance(decision, Halt)
        assert decision.codes == (HaltCode.DATA_FEE,)
        assert "data fee" in outcome.reason
        assert not node.paid


def test_without_the_oracle_allowances_are_still_revoked(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with op_stack(chain, monkeypatch) as node, agent_on(chain, tmp_path, ROOMY, TARGETS, [node.transport]) as agent:
        allow(chain, "WETH", raw=12_345)
        chain.transport.call("anvil_setCode", [GAS_PRICE_ORACLE, "0x"])
        outcome = require_rebalance(agent, OutcomeKind.HALT)
        assert "data fee" in outcome.reason
        (sent,) = outcome.transactions
        assert sent.kind is IntentKind.APPROVE
        assert allowances(chain)["WETH"] == 0


def test_a_process_that_ends_after_sending_books_the_fee_once(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)

    def ends(event: str) -> None:
        if event == "after:send":
            raise Killed

    with op_stack(chain, monkeypatch) as node:
        loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
        before = purse(chain)
        with reopened_agent(chain, loaded, [node.transport]) as agent, pytest.raises(Killed):
            agent.rebalance(send=True, confirm=yes, progress=ends)
        assert len(node.paid) == 1
        with reopened_agent(chain, loaded, [node.transport]) as agent:
            require_rebalance(agent)
            paid = [intent.receipt for intent in agent.context.store.journal.intents() if intent.receipt is not None]
            assert sorted(receipt.data_fee_wei for receipt in paid) == sorted(node.paid.values())
            assert sum(receipt.gas_cost_wei for receipt in paid) == before.native_wei - purse(chain).native_wei
            day = agent.context.store.budgets.history(chain.now_s())
            assert day.budgets.gas_24h_wei == before.native_wei - purse(chain).native_wei


def test_paper_pays_the_data_fee_of_its_bytes(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, OFF)
    with op_stack(chain, monkeypatch) as node:
        loaded = trusted_config(chain, tmp_path, ROOMY, TARGETS)
        with open_paper(loaded, clock=chain.clock, transports=[node.transport]) as paper:
            before_wei = paper.step_input().snapshot.native_wei
            outcome = require_rebalance(paper)
            receipts = [intent.receipt for intent in outcome.transactions if intent.receipt is not None]
            assert receipts
            assert all(receipt.data_fee_wei > 0 for receipt in receipts)
            assert before_wei - paper.step_input().snapshot.native_wei == sum(receipt.gas_cost_wei for receipt in receipts)
        assert not node.paid
