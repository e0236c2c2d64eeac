"""Plans of liquidity against the deployed contracts: what is provided, taken out and collected is what was planned, to the wei."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import AdjustLiquidity, Collect, LpAction, Provide, Withdraw
from tests.support import agents, lp_on_chain
from tests.support.on_chain.lp_actions import V2, V3, config_with_targets, trade_both_ways


def planned(agent: Agent, *kinds: type[LpAction]) -> tuple[LpAction, ...]:
    """The actions of the plan, which every guard let pass, of these kinds in this order."""
    outcome = agent.plan()
    assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
    assert outcome.plan is not None
    assert outcome.plan.legs == ()
    assert [type(action) for action in outcome.plan.layer_actions] == list(kinds)
    return outcome.plan.layer_actions


def equal(chain: LocalChain, actions: Sequence[LpAction], after: tuple[tuple[str, int], ...] = ()) -> list[lp_on_chain.LiquidityMove]:
    """Every action moves what it says, for the liquidity it says, and its gas is at most what was reckoned with."""
    done = []
    for action in actions:
        movement = lp_on_chain.act(chain, action)
        assert movement.moved == lp_on_chain.expected_receipt(action)
        if not isinstance(action, Collect):
            assert movement.liquidity == action.liquidity
        assert action.gas_units / 3 < movement.gas <= action.gas_units
        done.append(movement)
    for token, raw in after:
        symbol = next(symbol for symbol, known in chain.tokens.items() if known.address == token)
        assert chain.balance(symbol) == raw
    return done


def test_a_new_range_is_minted_as_planned(chain: LocalChain, tmp_path: Path) -> None:
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3)) as agent:
        [action] = planned(agent, Provide)
        assert isinstance(action, Provide)
        assert action.token_id is None
        [done] = equal(chain, [action])
    assert done.token_id is not None
    [position] = lp_on_chain.look(
        chain,
        lp_on_chain.refs(
            chain, [lp_on_chain.confirmed_position(chain.deployed_world.pool_by_name[V3], action.contract, done.token_id, (1, 1))]
        ),
    ).positions
    assert position.liquidity == action.liquidity  # type: ignore[union-attr]  # it was just minted


@pytest.mark.parametrize("seed", [1, 2])
def test_position_below_its_share__grows_and_keeps_its_fees(chain: LocalChain, tmp_path: Path, seed: int) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -30 - seed, 30, 400)
    trade_both_ways(chain, V3, seed)
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3, [own])) as agent:
        actions = planned(agent, Provide)
        assert actions[0].token_id == own.token_id
        equal(chain, actions)


def test_what_is_above_its_share_is_taken_out_as_planned(chain: LocalChain, tmp_path: Path) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 2_500)
    trade_both_ways(chain, V3, 3)
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3, [own])) as agent:
        equal(chain, planned(agent, Withdraw))


def test_everything_is_taken_out_of_a_target_of_nothing(chain: LocalChain, tmp_path: Path) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 500)
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3, [own], share="0%")) as agent:
        equal(chain, planned(agent, Withdraw))
    assert lp_on_chain.manager(chain).positions(own.token_id).call()[7] == 0


def test_range_left_by_the_price__is_minted_anew_as_planned(chain: LocalChain, tmp_path: Path) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -3, 3, 900)
    chain.move_market({"WETH": 3_300})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3, [own])) as agent:
        outcome = agent.plan()
        assert outcome.plan is not None
        assert [type(action) for action in outcome.plan.layer_actions] == [Withdraw, Provide], outcome.reason
        equal(chain, outcome.plan.layer_actions, outcome.plan.holdings_after)


def test_fees_are_collected_and_put_back_as_planned(chain: LocalChain, tmp_path: Path) -> None:
    own = lp_on_chain.provide_v3(chain, V3, -2, 2, 1_600)
    for seed in (1, 2, 3):
        trade_both_ways(chain, V3, seed, 1_000_000)
    dear = {"limits.plan_cost": "20%"}
    with agents.agent_on(chain, tmp_path, {**config_with_targets(chain, V3, [own], compound_above="1"), **dear}) as agent:
        outcome = agent.plan()
        assert outcome.plan is not None, outcome.reason
        assert [type(action) for action in outcome.plan.layer_actions] == [Collect, Provide], outcome.reason
        equal(chain, outcome.plan.layer_actions, outcome.plan.holdings_after)


@pytest.mark.parametrize("fee", [False, True])
def test_pair__is_provided_and_taken_out_as_planned(chain: LocalChain, tmp_path: Path, fee: bool) -> None:
    if fee:
        lp_on_chain.set_fee_to(chain, chain.accounts[5].address)
    own = lp_on_chain.provide_v2(chain, V2, 300)
    trade_both_ways(chain, V2, 4)
    chain.send(chain.token_contract("USDC").functions.transfer(own.contract, 12_345_678))  # goes to whoever mints next
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V2, [own])) as agent:
        equal(chain, planned(agent, Provide))
        trade_both_ways(chain, V2, 5)
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, config_with_targets(chain, V2, [own], share="5%"))) as agent:
        equal(chain, planned(agent, Withdraw))
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, config_with_targets(chain, V2, [own], share="0%"))) as agent:
        equal(chain, planned(agent, Withdraw))
    assert lp_on_chain.pair_of(chain, V2).balanceOf(chain.wallet.address).call() == 0


def test_the_budget_is_restored_by_as_much_as_it_takes(chain: LocalChain, tmp_path: Path) -> None:
    own = [lp_on_chain.provide_v2(chain, V2, 2_000), lp_on_chain.provide_v3(chain, V3, -10, 10, 1_500)]
    trade_both_ways(chain, V3, 6)
    changes = {**config_with_targets(chain, V3, own), "lp.targets": [], "limits.lp_max_weight": "15%"}
    with agents.agent_on(chain, tmp_path, changes) as agent:
        outcome = agent.plan()
        assert outcome.kind is OutcomeKind.PLANNED, outcome.reason
        assert outcome.plan is not None
        assert "above limits.lp_max_weight 15 %" in outcome.reason
        equal(chain, outcome.plan.layer_actions, outcome.plan.holdings_after)
        assert not isinstance(agent.status().decision_result.decision, AdjustLiquidity)
