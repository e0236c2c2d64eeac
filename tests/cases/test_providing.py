"""Whole steps that take liquidity out, provide, collect and re-centre it, with the deployed contracts and the real signer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.positions.holdings import read_liquidity_report
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.liquidity import state
from agent.localchain import LocalChain
from agent.model import ConfirmedPosition, IntentKind, LpV3Position, Provide, Withdraw
from agent.policy.drift import investable_total
from tests.support import agents, lp_on_chain
from tests.support.agents import USD, require_rebalance
from tests.support.lp_on_chain import EVEN, allowances, expected_receipt, manager, send
from tests.support.on_chain.liquidity import config_with_positions
from tests.support.on_chain.lp_actions import V2, V3, config_with_targets, trade_both_ways


def kinds(outcome: StepOutcome) -> list[str]:
    return [intent.kind.value for intent in outcome.transactions]


def exactly(chain: LocalChain, agent: Agent, outcome: StepOutcome) -> list[tuple[str, str]]:
    """Assert that each action moved exactly the amounts of its plan; return (verb, position) in order."""
    errors = []
    for intent in outcome.transactions:
        if intent.kind is not IntentKind.LIQUIDITY:
            continue
        action = agent.context.store.journal.grant(intent.id).layer_action
        assert action is not None
        assert intent.receipt is not None
        net = intent.receipt.net_transfers(chain.wallet.address)
        assert (net.get(action.token0, 0), net.get(action.token1, 0)) == expected_receipt(action)
        errors.append((type(action).__name__, action.name))
    return errors


def worth(agent: Agent) -> Fraction:
    """Return the portfolio's total in dollars."""
    return investable_total(agent.status().decision_result.drifts) / USD


def positions(agent: Agent) -> dict[str, ConfirmedPosition]:
    return {position.name: position for position in agent.step_input().portfolio.positions}


def liquidity_of(chain: LocalChain, token_id: int) -> int:
    return int(manager(chain).positions(token_id).call()[7])


@pytest.mark.parametrize("router", ["swap_router_02", pytest.param("rebalancer", marks=pytest.mark.slow)])
def test_liquidity_over_its_weight__is_taken_out_then_swapped(chain: LocalChain, tmp_path: Path, router: str) -> None:
    agents.fund(chain, {"WETH": 9_000, "USDC": 1_000})
    own = [lp_on_chain.provide_v2(chain, V2, 3_000), lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500)]
    changes = config_with_positions(chain, own, **{"limits.lp_max_weight": "10%", "execution.router": router})
    with agents.agent_on(chain, tmp_path, changes, EVEN) as agent:
        before = worth(agent)
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        actions = exactly(chain, agent, outcome)
        assert set(actions) == {("Withdraw", position.name) for position in own}
        assert kinds(outcome)[-1] == "swap"
        assert outcome.input_after is not None
        assert all(abs(bps - 5_000) <= 5 for bps in agent.weights_at(outcome.input_after).values())
        liquidity_report = read_liquidity_report(agent)
        assert liquidity_report.weight.is_within_limit
        history = agent.context.store.budgets.history(chain.now_s())
        # Fees of one swap and gas: the withdrawals themselves lost nothing.
        assert 0 < history.budgets.loss_24h / USD < before * Fraction(3, 1_000)
        assert abs(before - worth(agent)) < before * Fraction(3, 1_000)


def test_a_step_acts_only_so_often_and_the_next_goes_on(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = [lp_on_chain.provide_v3(chain, V3, -30, 30, 1_500), lp_on_chain.provide_v3(chain, V3, -40, 40, 1_500)]
    monkeypatch.setattr(state, "MAX_ACTIONS", 1)
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, own, **{"limits.lp_max_weight": "5%"}), EVEN) as agent:
        first = send(agent, chain)
        second = send(agent, chain)
        assert [outcome.kind for outcome in (first, second)] == [OutcomeKind.DONE, OutcomeKind.DONE]
        actions = [exactly(chain, agent, outcome) for outcome in (first, second)]
        assert [len(part) for part in actions] == [1, 1]
        assert {name for part in actions for _, name in part} == {position.name for position in own}
        assert read_liquidity_report(agent).weight.is_within_limit


def test_range__is_minted_remembered_and_known_to_a_new_start(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = agents.trusted_config(chain, tmp_path, config_with_targets(chain, V3), EVEN)
    with agents.reopened_agent(chain, loaded) as agent:
        before = worth(agent)
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert kinds(outcome) == ["approve", "approve", "liquidity"], "what was approved is used up: nothing has to be taken back"
        [(verb, _)] = exactly(chain, agent, outcome)
        assert verb == "Provide"
        [move] = agent.context.store.positions.changes()
        assert move.token_id is not None
        assert lp_on_chain.manager(chain).ownerOf(move.token_id).call() == chain.wallet.address
        assert liquidity_of(chain, move.token_id) == move.liquidity_delta
        history = agent.context.store.budgets.history(chain.now_s())
        assert history.budgets.turnover_24h == 0
        assert 0 < history.budgets.loss_24h / USD < before / 1_000
    with agents.reopened_agent(chain, loaded) as agent:
        step = agent.step_input()
        [position] = step.snapshot.positions
        assert isinstance(position, LpV3Position)
        assert (position.token_id, position.liquidity) == (move.token_id, move.liquidity_delta)
        confirmed_parameters = agent.confirmed_parameters()
        assert confirmed_parameters["liquidity positions"] == move.name
        assert confirmed_parameters["liquidity targets"] == f"20 % in uniswap_v3 {chain.address_by_pool[V3]}, width 20 %"
        assert positions(agent)[move.name].entry_raw == move.amounts_raw
        assert worth(agent) == pytest.approx(before, rel=2e-4)
        [report] = read_liquidity_report(agent).position_reports
        assert report.hold_value == pytest.approx(2_000 * USD, rel=5e-3)
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason


def test_a_pair_is_provided_and_taken_out_again(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V2), EVEN) as agent:
        before = worth(agent)
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert [verb for verb, _ in exactly(chain, agent, outcome)] == ["Provide"]
        [move] = agent.context.store.positions.changes()
        assert move.liquidity_delta == lp_on_chain.pair_of(chain, V2).balanceOf(chain.wallet.address).call()
        assert positions(agent)[move.name].entry_raw == move.amounts_raw
        assert worth(agent) == pytest.approx(before, rel=2e-4)
    with agents.reopened_agent(chain, agents.agent_config(chain, tmp_path, config_with_targets(chain, V2, share="0%"), EVEN)) as agent:
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert [verb for verb, _ in exactly(chain, agent, outcome)] == ["Withdraw"]
        assert kinds(outcome)[:2] == ["approve", "liquidity"]
        assert lp_on_chain.pair_of(chain, V2).balanceOf(chain.wallet.address).call() == 0
        assert agent.context.store.budgets.history(chain.now_s()).budgets.loss_24h / USD < before / 1_000


def test_range_narrower_than_the_band__is_minted_and_taken_out(chain: LocalChain, tmp_path: Path) -> None:
    """Within the band it could be of either token alone, so that the reference bounds neither: a unit of each is asked for."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3, width="0.5%"), EVEN) as agent:
        before = worth(agent)
        assert send(agent, chain).kind is OutcomeKind.DONE
        [move] = agent.context.store.positions.changes()
    with agents.reopened_agent(
        chain, agents.agent_config(chain, tmp_path, config_with_targets(chain, V3, width="0.5%", share="0%"), EVEN)
    ) as agent:
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        [intent] = [intent for intent in outcome.transactions if intent.kind is IntentKind.LIQUIDITY]
        action = agent.context.store.journal.grant(intent.id).layer_action
        assert isinstance(action, Withdraw)
        assert (action.liquidity, action.min_raw) == (move.liquidity_delta, (1, 1))
        assert agent.context.store.journal.grant(intent.id).floors_raw == (0, 0)
        assert exactly(chain, agent, outcome) == [("Withdraw", move.name)]
        assert positions(agent) == {}
        assert worth(agent) == pytest.approx(before, rel=1e-3)


def test_fees_are_collected_and_put_back(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, -2, 2, 1_600)
    for seed in (1, 2, 3):
        trade_both_ways(chain, V3, seed, 1_000_000)
    with agents.agent_on(
        chain, tmp_path, {**config_with_targets(chain, V3, [own], compound_above="1"), "limits.plan_cost": "20%"}, EVEN
    ) as agent:
        had = liquidity_of(chain, own.token_id or 0)
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert exactly(chain, agent, outcome)[0] == ("Collect", own.name)
        verbs = [verb for verb, _ in exactly(chain, agent, outcome)]
        assert verbs == ["Collect", "Provide"]
        assert liquidity_of(chain, own.token_id or 0) > had


def test_a_range_that_the_price_left_is_re_centred(chain: LocalChain, tmp_path: Path) -> None:
    """Taken out, swapped where the wallet lacks one of the tokens, and minted around the price of now."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = agents.trusted_config(chain, tmp_path, config_with_targets(chain, V3, width="5%"), EVEN)
    with agents.reopened_agent(chain, loaded) as agent:
        first = send(agent, chain)
        assert first.kind is OutcomeKind.DONE, first.reason
        [old] = agent.context.store.positions.changes()
    chain.move_market({"WETH": 3_300})
    with agents.reopened_agent(chain, loaded) as agent:
        before = worth(agent)
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert [verb for verb, _ in exactly(chain, agent, outcome)] == ["Withdraw", "Provide"]
        moves = agent.context.store.positions.changes()
        assert [move.liquidity_delta for move in moves[:2]] == [old.liquidity_delta, -old.liquidity_delta]
        assert moves[2].token_id != old.token_id
        assert set(positions(agent)) == {moves[2].name}
        [position] = agent.step_input().snapshot.positions
        assert isinstance(position, LpV3Position)
        assert position.tick_lower <= position.tick < position.tick_upper
        assert worth(agent) == pytest.approx(before, rel=1e-3)
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason


def test_re_centring__goes_over_a_swap_for_a_missing_token(chain: LocalChain, tmp_path: Path) -> None:
    """All of the range has become USDC: taken out, half of it sold for WETH, and both minted around the price of now, in one step."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    lively = {"policy.trigger": {"kind": "threshold", "absolute": "5%"}}
    loaded = agents.trusted_config(chain, tmp_path, {**config_with_targets(chain, V3, width="5%", share="80%"), **lively}, EVEN)
    with agents.reopened_agent(chain, loaded) as agent:
        assert send(agent, chain).kind is OutcomeKind.DONE
    chain.move_market({"WETH": 3_300})
    with agents.reopened_agent(chain, loaded) as agent:
        before = worth(agent)
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert [verb for verb, _ in exactly(chain, agent, outcome)] == ["Withdraw", "Provide"]
        assert [kind for kind in kinds(outcome) if kind != "approve"] == ["liquidity", "swap", "liquidity"]
        assert all(item["planned_raw"] == item["realised_raw"] for item in agent.realised_changes(outcome))
        [position] = agent.step_input().snapshot.positions
        assert isinstance(position, LpV3Position)
        assert position.tick_lower <= position.tick < position.tick_upper
        liquidity_report = read_liquidity_report(agent)
        assert liquidity_report.weight.share is not None
        assert Fraction(7, 10) < liquidity_report.weight.share < Fraction(9, 10)
        assert worth(agent) == pytest.approx(before, rel=3e-3)
        again = agent.rebalance(send=True, confirm=agents.yes)
        assert (again.kind, again.transactions) == (OutcomeKind.HOLD, ()), again.reason


def test_a_position_below_its_share_grows(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 400)
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3, [own]), EVEN) as agent:
        outcome = send(agent, chain)
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert exactly(chain, agent, outcome) == [("Provide", own.name)]
        [move] = agent.context.store.positions.changes()
        entry = positions(agent)[own.name].entry_raw
        assert entry == (own.entry_raw[0] + move.amounts_raw[0], own.entry_raw[1] + move.amounts_raw[1])


def test_a_dry_run_shows_the_actions_and_sends_nothing(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3), EVEN) as agent:
        before = agents.purse(chain)
        for outcome in (agent.plan(), agent.rebalance(), agent.rebalance(send=True, confirm=lambda _: False)):
            assert outcome.plan is not None
            assert [type(action) for action in outcome.plan.layer_actions] == [Provide]
            assert outcome.transactions == ()
        assert agents.purse(chain) == before
        assert agent.context.store.positions.changes() == ()


def test_nothing_moves_while_paused(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3), EVEN) as agent:
        before = agents.purse(chain)
        agent.context.kill_switch.pause("test", 1)
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert [verdict.guard for verdict in agents.failed_verdicts(outcome)] == ["kill_switch"]
        assert agents.purse(chain) == before


@pytest.mark.parametrize(
    ("number", "kind", "reason", "revert_count"),
    [
        pytest.param(1, OutcomeKind.HOLD, "limits.oracle_deviation is 150 bps", 0, id="before the first approval"),
        pytest.param(3, OutcomeKind.FAILED, "no liquidity was moved", 1, id="before the mint"),
    ],
)
def test_price_pushed_before_sending__loses_only_gas(
    chain: LocalChain, tmp_path: Path, number: int, kind: OutcomeKind, reason: str, revert_count: int
) -> None:
    """T11: pushed before the first approval, or between the last look and the mint: held or reverted, and nothing lost."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agents.agent_on(chain, tmp_path, config_with_targets(chain, V3), EVEN) as agent:
        before = agents.purse(chain)
        prices = dict(chain.deployed_world.prices_usd)
        push = agents.at_send(number, lambda: chain.swap(V3, "USDC", 6_000_000 * USD))
        outcome = agent.rebalance(send=True, confirm=agents.yes, progress=push)
        assert outcome.kind is kind, outcome.reason
        assert reason in outcome.reason
        assert agent.context.store.positions.changes() == ()
        assert agents.loss_usd(chain, before, prices, gas=False) == 0
        assert allowances(chain) == {0}
        assert agent.context.store.budgets.history(chain.now_s()).failures.reverts_in_row == revert_count


def test_a_withdrawal_at_a_pushed_price_is_not_begun(chain: LocalChain, tmp_path: Path) -> None:
    """T11: while the pool is off the reference by more than the limit everything stays where it is, and is told."""
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    own = lp_on_chain.provide_v3(chain, V3, -30, 30, 3_000)
    with agents.agent_on(chain, tmp_path, config_with_positions(chain, [own], **{"limits.lp_max_weight": "10%"}), EVEN) as agent:
        before = agents.purse(chain)
        chain.swap(V3, "USDC", 6_000_000 * USD)
        outcome = agent.rebalance(send=True, confirm=agents.yes)
        assert outcome.transactions == ()
        assert "the reference" in outcome.reason
        assert agents.purse(chain) == before


def test_the_owner_may_take_a_position_out_by_hand(chain: LocalChain, tmp_path: Path) -> None:
    agents.fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = agents.trusted_config(chain, tmp_path, config_with_targets(chain, V3), EVEN)
    with agents.reopened_agent(chain, loaded) as agent:
        before = worth(agent)
        assert send(agent, chain).kind is OutcomeKind.DONE
        [move] = agent.context.store.positions.changes()
        [own] = positions(agent).values()
    lp_on_chain.take_out(chain, own)
    chain.send(lp_on_chain.manager(chain).burn(move.token_id), chain.wallet.address)
    with agents.reopened_agent(chain, loaded) as agent:
        status = agent.status()
        assert move.name in status.warnings[0]
        assert worth(agent) == pytest.approx(before, rel=3e-4)
