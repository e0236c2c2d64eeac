"""A planner that was fooled: what its plans of liquidity may ask for is bounded again by composer and signer, from the step alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import ignore_progress, never_confirm
from agent.errors import Refused
from agent.layers.liquidity.policy.minimums import minimum_amounts
from agent.localchain import LocalChain
from agent.model import Plan, Provide, StepInput, Withdraw
from agent.ports import PreparedTransaction
from tests.support import agents, lp_on_chain
from tests.support.lp_on_chain import EVEN
from tests.support.on_chain.liquidity import config_with_positions
from tests.support.on_chain.lp_actions import V3, config_with_targets
from tests.support.text import raises_code


def planned(agent: Agent) -> tuple[StepInput, Plan]:
    outcome = agent.plan()
    assert outcome.plan is not None, outcome.reason
    assert outcome.plan.layer_actions != ()
    return outcome.step_input, outcome.plan


def require_refused(agent: Agent, step: StepInput, plan: Plan, rule: str) -> None:
    """Composed and rehearsed like any other, and then not signed; nothing of it is left open."""
    with wiring.open_transactor(agent.context, never_confirm, ignore_progress) as transactor:
        transactor.executor.reconcile()
        prepared: PreparedTransaction = transactor.composer.layer_transaction(step, plan)
        agent.context.store.steps.begin("s", 1, "{}")
        with pytest.raises(Refused) as caught:
            transactor.executor.run("s", prepared.tx, prepared.grant, prepared.note)
        assert caught.value.verdicts[0].guard == f"signer.{rule}"
        assert agent.context.store.journal.open_intents() == ()


@pytest.mark.parametrize("minimums", [(1, 1), (0, 1)])
def test_mint_below_the_reference__is_not_signed(chain: LocalChain, tmp_path: Path, minimums: tuple[int, int]) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3), EVEN) as agent:
        for symbol in EVEN:
            approve = chain.token_contract(symbol).functions.approve(chain.addresses.position_manager, 2**100)
            chain.send(approve, chain.wallet.address, gas=100_000)
        step, plan = planned(agent)
        [action] = plan.layer_actions
        fooled = replace(action, min_raw=minimums)
        assert minimum_amounts(step, fooled) == minimum_amounts(step, action)
        assert min(minimum_amounts(step, action)) > 1
        before = agents.purse(chain)
        require_refused(agent, step, replace(plan, layer_actions=(fooled,)), "floor")
        assert agents.purse(chain) == before


def test_withdrawal_below_the_reference__is_not_signed(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 3_000)
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, [own], **{"limits.lp_max_weight": "10%"}), EVEN) as agent:
        step, plan = planned(agent)
        action = plan.layer_actions[0]
        assert isinstance(action, Withdraw)
        before = agents.purse(chain)
        require_refused(agent, step, replace(plan, layer_actions=(replace(action, min_raw=(1, 1)),)), "floor")
        assert agents.purse(chain) == before


def test_foreign_position__is_neither_grown_nor_taken_out(chain: LocalChain, tmp_path: Path) -> None:
    """Its floors cannot be told: nothing is composed, whatever the plan says."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 3_000)
    theirs = lp_on_chain.provide_v3(chain, V3, -30, 30, 100, chain.whale.address)
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, [own], **{"limits.lp_max_weight": "10%"}), EVEN) as agent:
        step, plan = planned(agent)
        out = plan.layer_actions[0]
        assert isinstance(out, Withdraw)
        ends = lp_on_chain.manager(chain).positions(theirs.token_id).call()[5:7]
        grow = Provide(
            out.venue, out.contract, theirs.token_id, out.pool, out.token0, out.token1, 3_000, tuple(ends), 1, (10**6, 10**6),
            (10**6, 10**6), (1, 1), 1, "test",
        )  # fmt: skip
        for fooled in (replace(out, token_id=theirs.token_id), grow):
            with raises_code(Refused, "position"):
                minimum_amounts(step, fooled)


def test_a_range_that_a_plan_tells_wrong_lowers_no_floor(chain: LocalChain, tmp_path: Path) -> None:
    """The floors of a position that grows come from its own ticks, not from those that the action names."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 400)
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3, [own]), EVEN) as agent:
        step, plan = planned(agent)
        [action] = plan.layer_actions
        assert isinstance(action, Provide)
        assert action.token_id == own.token_id
        assert action.ticks is not None
        assert minimum_amounts(step, replace(action, ticks=(-887_220, 887_220))) == minimum_amounts(step, action)
