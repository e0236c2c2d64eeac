"""Orders on a real chain: a crash sells under floors and stays out, a push of two blocks sells nothing, a withdrawal is no stop."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from agent import app as api
from agent.app.agent import Agent
from agent.app.records import cycle_report
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import Hold, OrderStage
from tests.support.agents import (
    ROOMY,
    USD,
    agent_on,
    explain_balances,
    fund,
    purse,
    reopened_agent,
    require_rebalance,
    swap_of,
    trusted_config,
    weights,
    yes,
)
from tests.support.markets.spot_prices import POOL, push, spot_price_config
from tests.support.text import blocked, causes, mentions

TWO = {"WETH": "50%", "USDC": "50%"}
BLOCKS = 3
STOP = {"portfolio.assets.0.stop_loss": "2500", "policy.confirm_blocks": BLOCKS}
CRASH = {**STOP, "limits.price_impact": "2%", "limits.turnover": "5%", "limits.daily_turnover": "5%", "policy.cooldown": "1d"}
"""Limits of turnover, and a cooldown, that would hold back any other sale."""


def stages(agent: Agent) -> dict[str, str]:
    """Stage by subject and kind, as the command tells it."""
    return {f"{row['subject']} {row['kind']}": row["stage"] for row in api.standing_orders(agent)["orders"]}


def settle_market(chain: LocalChain, prices: dict[str, int]) -> None:
    """The market is there, feeds say so, and blocks go by that confirm it."""
    chain.move_market(prices)
    chain.mine(BLOCKS + 1)


def test_crash__sells_at_once_and_stays_out_until_armed(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 50_000, "USDC": 50_000})
    chain.mine(BLOCKS + 1)
    loaded = trusted_config(chain, tmp_path, CRASH, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert stages(agent) == {"WETH stop_loss": "armed"}
        settle_market(chain, {"WETH": 2_400})
        before = purse(chain)
        fired = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(fired)
        assert plan.is_exit
        assert mentions(fired.reason, "stop_loss", "WETH", "2,500.00 USDC", "2,400.00 USDC")
        assert all(verdict.passed for verdict in plan.verdicts)
        assert all(leg.min_out_raw * 1_000 >= leg.amount_out_raw * 995 for leg in plan.legs), "floors as of any plan"
        assert chain.balance("WETH") * 2_400 < 10 * 10**18, "less than the smallest trade is left"
        received_raw = chain.balance("USDC") - before.raw["USDC"]
        assert received_raw > Fraction(before.raw["WETH"] * 2_400 * USD, 10**18) * Fraction(98, 100)
        words = " ".join(api.explain(loaded.path, fired.step_id)["sentences"])
        assert mentions(words, "stop_loss", "WETH")
        assert "sold" in words
    sold = purse(chain)
    settle_market(chain, {"WETH": 3_200})
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert stages(agent) == {"WETH stop_loss": "done"}
        assert mentions(" ".join(api.standing_orders(agent)["target_reasons"]), "WETH", "since")
        assert purse(chain).raw == sold.raw
        armed_orders_document = api.arm_orders(agent, "WETH")
        assert armed_orders_document["reenabled"] == ["WETH"]
    with reopened_agent(chain, trusted_config(chain, tmp_path, {**STOP, **ROOMY, "limits.price_impact": "2%"}, TWO)) as agent:
        require_rebalance(agent)
        assert abs(weights(chain, TWO)["WETH"] - 5_000) < 30
        assert stages(agent) == {"WETH stop_loss": "armed"}


def test_re_entry_after_an_exit__is_not_held_by_its_turnover(chain: LocalChain, tmp_path: Path) -> None:
    """The exit moves half of the portfolio, the re-entry the other half: together more than limits.daily_turnover."""
    fund(chain, {"WETH": 50_000, "USDC": 50_000})
    chain.mine(BLOCKS + 1)
    changes = {**STOP, "limits.price_impact": "2%", "limits.turnover": "60%", "limits.daily_turnover": "60%", "policy.cooldown": "0s"}
    with agent_on(chain, tmp_path, changes, TWO) as agent:
        agent.rebalance(send=True, confirm=yes)
        settle_market(chain, {"WETH": 2_400})
        assert swap_of(agent.rebalance(send=True, confirm=yes))[0].is_exit
        assert agent.step_input().history.budgets.turnover_24h < 100 * USD
        settle_market(chain, {"WETH": 3_200})
        api.arm_orders(agent, "WETH")
        back = require_rebalance(agent)
        assert abs(weights(chain, TWO)["WETH"] - 5_000) < 30, back.reason
        assert agent.step_input().history.budgets.turnover_24h > 30_000 * USD, "purchases count"


def test_a_push_that_stays_for_two_blocks_fires_no_stop(chain: LocalChain, tmp_path: Path) -> None:
    """By spot alone, which any push moves at once (T3)."""
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    chain.mine(BLOCKS + 1)
    with agent_on(chain, tmp_path, {**spot_price_config(chain, POOL), **STOP, "limits.oracle_deviation": "off"}, TWO) as agent:
        before = purse(chain)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        received_raw = chain.swap(POOL, "WETH", 20_000 * 10**18)
        chain.mine(1)
        pushed = require_rebalance(agent, OutcomeKind.HOLD)
        (_, logged), *_ = cycle_report.log_events(agent, pushed, 0.0)
        assert mentions(logged["orders"], "WETH", "stop_loss", "would be fired", f"{BLOCKS} blocks do not confirm it")
        row = api.standing_orders(agent)["orders"][0]
        assert float(row["price"]) < 2_500
        assert (row["stage"], row["unconfirmed"]) == ("armed", "fired")
        chain.swap(POOL, "USDC", received_raw)
        chain.mine(BLOCKS + 1)
        assert isinstance(agent.rebalance(send=True, confirm=yes).decision, Hold)
        assert stages(agent) == {"WETH stop_loss": "armed"}
        assert purse(chain) == before
        chain.swap(POOL, "WETH", 20_000 * 10**18)
        chain.mine(BLOCKS + 1)
        real = agent.status()
        assert [order.stage for order in real.step_input.history.orders.states] == [OrderStage.FIRED], "what stays is a crash"
        assert [blocked_exit.token for blocked_exit in real.decision_result.blocked_exits] == [chain.tokens["WETH"].address], (
            "no price within the limits is to be had"
        )
        assert "WETH" in real.decision_result.decision.reason


def test_liquidity_of_two_blocks_raises_no_highest_price(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    chain.mine(BLOCKS + 1)
    trailing = {"portfolio.assets.0.trailing_stop": "20%", "policy.confirm_blocks": BLOCKS, "limits.oracle_deviation": "off"}
    with agent_on(chain, tmp_path, {**spot_price_config(chain, POOL), **trailing}, TWO) as agent:
        agent.rebalance(send=True, confirm=yes)
        highest = api.standing_orders(agent)["orders"][0]["highest"]
        received_raw = push(chain, 40_000_000)
        chain.mine(1)
        agent.rebalance(send=True, confirm=yes)
        assert api.standing_orders(agent)["orders"][0]["highest"] == highest
        chain.swap(POOL, "WETH", received_raw)


def test_portfolio_stop__ignores_withdrawals_and_sells_everything(chain: LocalChain, tmp_path: Path) -> None:
    three = {"WETH": "40%", "WBTC": "30%", "USDC": "30%"}
    fund(chain, {"WETH": 40_000, "WBTC": 30_000, "USDC": 30_000})
    chain.mine(BLOCKS + 1)
    changes = {
        **ROOMY,
        "portfolio.orders": {"stop_loss": "20%"},
        "policy.confirm_blocks": BLOCKS,
        "limits.price_impact": "2%",
        "limits.balance_jump": "off",
        "policy.trigger": {"kind": "threshold", "absolute": "40%"},
    }
    with agent_on(chain, tmp_path, changes, three) as agent:
        agent.rebalance(send=True, confirm=yes)
        assert stages(agent) == {"portfolio stop_loss": "armed"}
        for symbol in three:
            chain.set_balance(symbol, chain.balance(symbol) // 2)  # half of everything is withdrawn
        chain.mine(BLOCKS + 1)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        explain_balances(agent)
        orders_document = api.standing_orders(agent)
        assert orders_document["unit_worth"] == "1"
        assert orders_document["orders"][0]["stage"] == "armed"
        settle_market(chain, {"WETH": 2_500, "WBTC": 50_000})  # a tenth of the whole: half of what the stop waits for
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert stages(agent) == {"portfolio stop_loss": "armed"}
        settle_market(chain, {"WETH": 2_000, "WBTC": 38_000})
        fired = require_rebalance(agent)
        assert fired.plan is not None
        assert fired.plan.is_exit
        assert weights(chain, three)["USDC"] > 9_990
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        assert stages(agent) == {"portfolio stop_loss": "done"}


def test_stop_while_paused__is_recorded_and_sold_on_resume(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    chain.mine(BLOCKS + 1)
    loaded = trusted_config(chain, tmp_path, CRASH, TWO)
    with reopened_agent(chain, loaded) as agent:
        agent.rebalance(send=True, confirm=yes)
        api.pause(loaded.path, "away")
        settle_market(chain, {"WETH": 2_400})
        before = purse(chain)
        stopped = require_rebalance(agent, OutcomeKind.REFUSED)
        assert causes(stopped) == ("kill_switch",)
        assert stages(agent) == {"WETH stop_loss": "fired"}
        assert purse(chain) == before
        settle_market(chain, {"WETH": 3_000})  # what fired is sold, even if the price comes back before it could be
        api.resume(loaded.path, lambda _: True)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
        assert chain.balance("WETH") * 3_000 < 10 * 10**18


def test_too_dear_exit__waits_while_the_rest_is_rebalanced(chain: LocalChain, tmp_path: Path) -> None:
    targets = {"WETH": "40%", "LINK": "20%", "USDC": "40%"}
    fund(chain, {"WETH": 20_000, "LINK": 10_000, "USDC": 20_000})
    chain.mine(BLOCKS + 1)
    weth = chain.deployed_world.prices_usd["WETH"]
    link = chain.deployed_world.prices_usd["LINK"]
    stop = {"portfolio.assets.1.stop_loss": "10%", "policy.confirm_blocks": BLOCKS, **ROOMY}
    loaded = trusted_config(chain, tmp_path, {**stop, "limits.plan_cost": "0.2%"}, targets)
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        settle_market(chain, {"WETH": int(weth * Fraction(5, 4)), "LINK": int(link * Fraction(4, 5))})
        before = purse(chain)
        done = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(done)
        assert not plan.is_exit
        assert blocked(done) == [chain.tokens["LINK"].address]
        assert "LINK" in done.reason
        assert chain.balance("LINK") == before.raw["LINK"]
        assert chain.balance("WETH") < before.raw["WETH"]
        assert stages(agent) == {"LINK stop_loss": "fired"}
        assert ["trimtab orders disarm LINK" in line for line in api.standing_orders(agent)["blocked_exits"]] == [True]
        assert mentions(" ".join(api.explain(loaded.path, done.step_id)["sentences"]), "LINK")
        again_held = require_rebalance(agent, OutcomeKind.HOLD)
        assert [blocked_exit.token for blocked_exit in again_held.decision_result.blocked_exits] == [chain.tokens["LINK"].address]
        assert agent.context.store.budgets.history(chain.clock.now_s()).reviews.last_rebalance_s is not None
    loaded = trusted_config(chain, tmp_path, {**stop, "limits.plan_cost": "2%"}, targets)
    with reopened_agent(chain, loaded) as agent:
        last = agent.context.store.budgets.history(0).reviews.last_rebalance_s
        sold = agent.rebalance(send=True, confirm=yes)
        plan, _, _ = swap_of(sold)
        assert plan.is_exit
        assert blocked(sold) == []
        assert chain.balance("LINK") < before.raw["LINK"] // 100
        assert agent.context.store.budgets.history(0).reviews.last_rebalance_s == last, "an exit is no rebalance of the policy"


def test_exit_stuck_after_confirmation__sends_nothing_else(chain: LocalChain, tmp_path: Path) -> None:
    """The owner confirms the sale of LINK. Its pools are pushed while it is approved: he is asked for the rebalance of WETH anew."""
    targets = {"WETH": "40%", "LINK": "20%", "USDC": "40%"}
    fund(chain, {"WETH": 20_000, "LINK": 10_000, "USDC": 20_000})
    chain.mine(BLOCKS + 1)
    weth = chain.deployed_world.prices_usd["WETH"]
    link = chain.deployed_world.prices_usd["LINK"]
    # On a slow machine the mean of the pushed pools is off the feed by more than ROOMY allows.
    deviation = {"limits.oracle_deviation": "20%"}
    stop = {"portfolio.assets.1.stop_loss": "10%", "policy.confirm_blocks": BLOCKS, **ROOMY, **deviation, "limits.plan_cost": "2%"}
    with agent_on(chain, tmp_path, stop, targets) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        settle_market(chain, {"WETH": int(weth * Fraction(5, 4)), "LINK": int(link * Fraction(4, 5))})
        before = purse(chain)

        outcomes: list[StepOutcome] = []

        def pushed(outcome: StepOutcome) -> bool:
            outcomes.append(outcome)
            if outcome.plan is None or not outcome.plan.is_exit:
                return False
            for pool in [name for name in chain.address_by_pool if "LINK" in name]:
                chain.swap(pool, "LINK", 400_000 * 10**18)
            return True

        declined = agent.rebalance(send=True, confirm=pushed)
        assert declined.kind is OutcomeKind.DECLINED, declined.reason
        _, instead = outcomes
        assert instead.exits_tried == (chain.tokens["LINK"].address,)
        assert "LINK" in instead.reason
        assert "not part of the confirmed plan" in instead.reason
        assert purse(chain).raw == before.raw, "only approvals were sent"
