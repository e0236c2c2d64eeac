"""Coins that a stranger sends hold back purchases for a while, and no exit, no withdrawal of what was there and no end."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent import codec
from agent.app.alerting import RunFacts
from agent.app.alerting import cycle_alerts as alerts
from agent.app.money import shutdown, transfers
from agent.errors import Refused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import AlertKind, ExternalTransferKind, StepInput
from agent.planning.proposals import propose_rebalance
from tests.support.agents import ROOMY, USD, agent_on, fund, purse, reopened_agent, swap_of, trusted_config, weights
from tests.support.on_chain.gifts import BLOCKS, DAY_S, HOME, TWO, give, look
from tests.support.text import causes, mentions, raises_code

STOP = {"portfolio.assets.0.stop_loss": "2500", "policy.confirm_blocks": BLOCKS, "limits.price_impact": "2%"}
COIN = {"portfolio.assets.0.address": "native", "portfolio.assets.0.symbol": "ETH"}


def settle_market(chain: LocalChain, weth: int) -> None:
    """The market is there, feeds say so, and blocks go by that confirm it."""
    chain.move_market({"WETH": weth})
    chain.mine(BLOCKS + 1)


def halts(outcome: StepOutcome) -> list[str]:
    return [alert.text for alert in alerts(outcome, RunFacts(False, "", None)) if alert.kind is AlertKind.HALT]


@pytest.mark.parametrize(
    ("router", "native"),
    [
        ("swap_router_02", False),
        pytest.param("swap_router_02", True, marks=pytest.mark.slow),
        pytest.param("rebalancer", False, marks=pytest.mark.slow),
        ("rebalancer", True),
    ],
)
def test_a_gift_before_a_crash_does_not_hold_back_the_stop_loss(chain: LocalChain, tmp_path: Path, router: str, native: bool) -> None:
    chain.set_native(10**18)
    fund(chain, {"WETH": 47_150 if native else 50_000, "USDC": 50_000})
    chain.mine(BLOCKS + 1)
    with agent_on(chain, tmp_path, {**STOP, **(COIN if native else {}), "execution.router": router}, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "WETH", 4_000)
        outcome = look(agent)
        assert outcome.kind is OutcomeKind.HALT
        assert causes(outcome) == ("balance_jump",)
        assert mentions(outcome.reason, "ETH rose", "(4000 USDC)")
        settle_market(chain, 2_400)
        fired = look(agent)
        plan, _, _ = swap_of(fired)
        assert plan.is_exit
        assert "stop_loss" in fired.reason
        assert all(verdict.passed for verdict in plan.verdicts)
        assert chain.balance("WETH") * 2_400 < 10 * 10**18, "all of it goes, the gift too"
        assert "accepted" in halts(fired)[0], "the alert says that purchases still wait"
        assert look(agent).kind is OutcomeKind.HALT


def test_gift_that_lifts_over_the_cap__stops_no_exit(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    chain.mine(BLOCKS + 1)
    with agent_on(chain, tmp_path, {**STOP, "portfolio.max_live_value": "10050"}, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "USDC", 1_100)
        settle_market(chain, 2_480)
        fired = look(agent)
        assert swap_of(fired)[0].is_exit, "10,230 are held, and 10,050 may be"


def test_a_gift_holds_purchases_for_a_day_and_is_then_a_deposit(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, ROOMY, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "WETH", 2_000)
        outcome = look(agent)
        assert outcome.kind is OutcomeKind.HALT
        assert causes(outcome) == ("balance_jump",)
        assert mentions(outcome.reason, "WETH rose", "(2000 USDC)")
        chain.warp(DAY_S - 3_600)
        assert look(agent).kind is OutcomeKind.HALT
    chain.warp(3_600)
    with reopened_agent(chain, loaded) as agent:
        dry = agent.status()
        assert mentions(dry.decision_result.decision.reason, "accepted", "deposit"), "a look that writes nothing says the same"
        done = look(agent)
        swap_of(done)
        assert mentions(done.reason, "accepted", "deposit")
        assert mentions(halts(done)[0], "accepted", "deposit")
        assert [flow.kind for flow in agent.context.store.balances.transfers()] == [ExternalTransferKind.ACCEPTED]
        assert [item["kind"] for item in api.list_transfers(agent, include_classified=True)["flows"]] == ["accepted"]
        assert abs(weights(chain, TWO)["WETH"] - 5_000) < 20
        renamed = agent.context.store.balances.classify(1, ExternalTransferKind.GIFT, chain.now_s())
        assert [flow.kind for flow in renamed] == [ExternalTransferKind.GIFT], "its owner may still say what it was"


def test_deposit_within_the_share__is_traded_after_two_blocks(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 53_000, "USDC": 47_000})
    loaded = trusted_config(chain, tmp_path, {**ROOMY, "limits.deposit_auto": "10%", "portfolio.max_live_value": "200000"}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "WETH", 9_000)
        assert causes(look(agent)) == ("balance_jump",)
        chain.mine(2)
        done = look(agent)
        swap_of(done)
        assert mentions(halts(done)[0], "accepted as a deposit", "within limits.deposit_auto")
        assert [item["kind"] for item in api.list_transfers(agent, include_classified=True)["flows"]] == ["automatic deposit"]
        assert abs(weights(chain, TWO)["WETH"] - 5_000) < 20
        give(chain, "USDC", 9_000)
        look(agent)
        chain.mine(2)
        assert causes(look(agent)) == ("balance_jump",), "the share of this day is used"
        renamed = agent.context.store.balances.classify(1, ExternalTransferKind.GIFT, chain.now_s())
        assert [flow.kind for flow in renamed] == [ExternalTransferKind.GIFT], "its owner may still say what it was"
    period = api.pnl(loaded)["periods"][0]
    assert abs(float(period["profit"])) < 200, "18,000 came, and none of it is profit"


def test_base_unit_without_a_price__holds_nothing_once_it_is_back(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 50_000, "USDC": 50_000})
    chain.mine(BLOCKS + 1)
    with agent_on(chain, tmp_path, {**STOP, "reference.kind": ["feed"]}, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        chain.warp(2 * DAY_S, refresh_feeds=False)
        chain.set_balance("WETH", chain.balance("WETH") + 1)
        chain.mine(1)
        blind = look(agent)
        assert blind.kind is OutcomeKind.HALT
        assert causes(blind) == ("reference_price",)
        assert "WETH" in blind.reason
        (flow,) = blind.step_input.history.cash_flows.unexplained_transfers
        assert (flow.value, flow.exceeds_jump_limit) == (None, False)
        assert "without a price" in api.list_transfers(agent)["flows"][0]["text"]
        settle_market(chain, 2_400)
        fired = look(agent)
        assert swap_of(fired)[0].is_exit
        assert [flow.value is None for flow in agent.context.store.balances.transfers()] == [False], "valued once the price is back"


def test_a_gift_stops_no_end(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    with agent_on(chain, tmp_path, {}, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "WETH", 500)
        assert look(agent).kind is OutcomeKind.HALT
        done = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert done.state == "stopped", done.reason
        assert chain.balance("WETH") * chain.deployed_world.prices_usd["WETH"] < 10 * 10**18


def test_a_fall_that_nobody_explains_stops_purchases_and_no_exit(chain: LocalChain, tmp_path: Path) -> None:
    """The fall is three times limits.daily_loss: an exit answers for what trades lost, not for it."""
    fund(chain, {"WETH": 50_000, "USDC": 50_000})
    chain.mine(BLOCKS + 1)
    with agent_on(chain, tmp_path, STOP, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        chain.set_balance("USDC", chain.balance("USDC") - 3_000 * USD)
        chain.mine(1)
        outcome = look(agent)
        assert outcome.kind is OutcomeKind.HALT
        assert causes(outcome) == ("balance_jump",)
        assert mentions(outcome.reason, "USDC", "3000")
        settle_market(chain, 2_400)
        fired = look(agent)
        plan, _, _ = swap_of(fired)
        assert plan.is_exit
        assert fired.step_input.history.budgets.loss_24h >= 3_000 * USD
        chain.warp(2 * DAY_S)
        assert look(agent).kind is OutcomeKind.HALT, "no time accepts a fall"


def test_waiting_gift__lets_the_earlier_rest_be_withdrawn(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    changes = {**ROOMY, "wallet.payout_addresses": [HOME], "limits.payout_per_day": "off"}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "USDC", 4_000)
        assert look(agent).kind is OutcomeKind.HALT
        with raises_code(Refused, "holdings", "trimtab flows confirm"):
            transfers.withdraw(agent, transfers.WithdrawalRequest("11000", to=HOME), confirm=lambda _: True)
        before = purse(chain)
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("6000", to=HOME), send=True, confirm=lambda _: True)
        assert done.state == "paid", done.reason
        assert chain.balance("USDC", HOME) == 6_000 * USD
        assert chain.balance("USDC") >= 4_000 * USD, "the gift is still there"
        sold = (before.raw["WETH"] - chain.balance("WETH")) * chain.deployed_world.prices_usd["WETH"] / 10**18
        assert Fraction(1_000) <= sold < 1_020
        assert look(agent).kind is OutcomeKind.HALT


def test_gift_over_the_cap__is_left_and_the_rest_rebalanced(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, tmp_path, {**ROOMY, "portfolio.max_live_value": "10050", "limits.price_impact": "2%"}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "USDC", 1_100)
        assert look(agent).kind is OutcomeKind.HALT
    chain.warp(DAY_S)
    with reopened_agent(chain, loaded) as agent:
        quiet = look(agent)
        assert quiet.kind is OutcomeKind.HOLD, quiet.reason
        assert mentions(quiet.reason, "1100 USDC", "excluded"), quiet.reason
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * 2})
        above = look(agent)
        assert [refusal_verdict.guard for refusal_verdict in above.refusal_verdicts if not refusal_verdict.passed] == ["max_live_value"], (
            "prices are no gift"
        )
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(4, 10)})
        done = look(agent)
        plan, _, _ = swap_of(done)
        assert mentions(done.reason, "1100 USDC", "excluded")
        assert all(verdict.passed for verdict in plan.verdicts)
        again_decided = propose_rebalance(codec.loads(StepInput, agent.context.store.steps.input_json(done.step_id) or ""))
        assert again_decided.decision_result.decision.reason == done.decision_result.decision.reason, "a replay says the same"
        assert again_decided.plan is not None
        assert again_decided.plan.legs == plan.legs
        managed = chain.balance("USDC") - 1_100 * USD
        assert abs(managed - chain.balance("WETH") * int(chain.deployed_world.prices_usd["WETH"]) // 10**12) < 40 * USD
        assert look(agent).kind is OutcomeKind.HOLD
        assert [flow["halts"] for flow in api.list_transfers(agent)["flows"]] == [False], "it waits for its owner and holds nothing back"
        agent.context.store.balances.classify(1, None, chain.now_s())
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * 2})
        confirmed = look(agent)
        assert [refusal_verdict.guard for refusal_verdict in confirmed.refusal_verdicts if not refusal_verdict.passed] == [
            "max_live_value"
        ], "what its owner confirmed counts"


def test_a_small_gift_over_the_cap_stops_no_rebalance(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    changes = {**ROOMY, "portfolio.max_live_value": "12010", "limits.price_impact": "2%"}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "USDC", 100)
        assert look(agent).kind is OutcomeKind.HOLD
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(14, 10)})
        done = look(agent)
        assert mentions(done.reason, "100 USDC", "excluded"), done.reason
        assert swap_of(done)[0].legs


def test_a_gift_left_alone_goes_with_an_exit(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    chain.mine(BLOCKS + 1)
    changes = {**STOP, "portfolio.max_live_value": "10050", "limits.balance_jump_wait": "off"}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "WETH", 2_600)
        assert mentions(look(agent).reason, "WETH", "excluded")
        settle_market(chain, 2_400)
        assert swap_of(look(agent))[0].is_exit
        assert chain.balance("WETH") * 2_400 < 10 * 10**18, "the gift too"


def test_gift_sold_by_an_exit__stops_no_rebalance_of_the_rest(chain: LocalChain, tmp_path: Path) -> None:
    """It is numeraire by then, above the ceiling as before, and still nobody's to manage."""
    fund(chain, {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000})
    chain.mine(BLOCKS + 1)
    changes = {**ROOMY, **STOP, "portfolio.max_live_value": "10050"}
    loaded = trusted_config(chain, tmp_path, changes, {"WETH": "40%", "WBTC": "30%", "USDC": "30%"})
    with reopened_agent(chain, loaded) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, "WETH", 2_600)
        look(agent)
    chain.warp(DAY_S)
    with reopened_agent(chain, loaded) as agent:
        assert mentions(look(agent).reason, "WETH", "excluded")
        gift = dict(agent.step_input().history.cash_flows.unexplained_increases_raw)[chain.tokens["WETH"].address]
        settle_market(chain, 2_400)
        assert swap_of(look(agent))[0].is_exit
        chain.move_market({"WBTC": chain.deployed_world.prices_usd["WBTC"] * Fraction(7, 10)})
        chain.mine(BLOCKS + 1)
        done = look(agent)
        assert done.kind is OutcomeKind.DONE, done.reason
        assert swap_of(done)[0].legs, done.reason
        assert mentions(done.reason, "USDC", "excluded"), done.reason
        excluded_raw = dict(done.step_input.exclusions.raw_by_token)[chain.tokens["USDC"].address]
        assert abs(excluded_raw - gift * 2_400 // 10**12) < 10 * USD, "what was sold of it"
