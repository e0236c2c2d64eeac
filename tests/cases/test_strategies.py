"""Strategies over one wallet on real contracts: what cancels sends nothing, the rest is one trade, and the books are the wallet's."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eth_typing import HexStr

from agent import app as api
from agent.app.agent import Agent
from agent.app.money import transfers
from agent.app.records import oracle
from agent.errors import ConfigError, Refused
from agent.execution.step_context import OutcomeKind
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.state import CapitalSplit, StrategiesState, StrategyHealth
from agent.localchain import LocalChain
from agent.model import IntentKind
from agent.policy import targets
from tests.support.agents import USD, explain_balances, fund, purse, reopened_agent, require_rebalance, swap_of, trusted_config, yes
from tests.support.constants import HOME
from tests.support.on_chain.first_purchases import look
from tests.support.on_chain.strategies import TWO, books, require_sum, strategies
from tests.support.text import mentions
from tests.support.transactions import Killed

NEAR = Fraction(1, 500)


def weight(chain: LocalChain, agent: Agent, name: str) -> Fraction:
    """Share of WETH that one strategy holds, at world prices."""
    book = books(agent).by_name[name]
    price = chain.deployed_world.prices_usd["WETH"]
    weth = book.balance_raw(chain.tokens["WETH"].address) * price / 10**18
    return weth / (weth + Fraction(book.balance_raw(chain.tokens["USDC"].address), USD))


def test_opposite_strategies__cancel_and_send_one_net_trade(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    loaded = trusted_config(chain, tmp_path, strategies("50%", "50%"), TWO)
    with reopened_agent(chain, loaded) as agent:
        before = purse(chain)
        dry = agent.plan()
        assert dry.kind is OutcomeKind.HOLD
        assert "never in" in dry.reason
        agent.rebalance()
        assert abs(weight(chain, agent, "up") - Fraction(1, 2)) < NEAR, "a dry run exchanges nothing"
        next_outcome = require_rebalance(agent, OutcomeKind.HOLD)
        assert next_outcome.transactions == ()
        assert purse(chain) == before
        assert abs(weight(chain, agent, "up") - Fraction(7, 10)) < NEAR
        assert abs(weight(chain, agent, "down") - Fraction(3, 10)) < NEAR
        first = books(agent)
    with reopened_agent(chain, loaded) as agent:
        assert books(agent) == first, "a restart changes nothing"
        assert "never in" not in agent.rebalance(send=True, confirm=yes).reason
        require_sum(chain, agent)
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(3, 2)})
        done = agent.rebalance(send=True, confirm=yes)
        _, _, receipt = swap_of(done)
        require_sum(chain, agent)
        assert abs(weight(chain, agent, "up") - Fraction(7, 10)) < NEAR
        assert abs(weight(chain, agent, "down") - Fraction(3, 10)) < NEAR
        costs = {strategy_book.name: strategy_book.total_cost for strategy_book in books(agent).strategy_books}
        moved = receipt.net_transfers(chain.wallet.address)
        prices = {drift.token: drift.price for drift in done.decision_result.drifts}
        assert sum(costs.values()) == -sum(raw * prices[token] for token, raw in moved.items())
        assert min(costs.values()) > 0
        # what is deposited belongs to all, by their capital
        held_before = books(agent)
        chain.set_balance("USDC", chain.balance("USDC") + 1_000 * USD)
        explain_balances(agent)
        require_sum(chain, agent)
        grown = {strategy_book.name: strategy_book.units for strategy_book in books(agent).strategy_books}
        assert all(grown[strategy_book.name] > strategy_book.units for strategy_book in held_before.strategy_books)


def test_strategies_by_tracking__wait_and_trade_back_to_edges(chain: LocalChain, tmp_path: Path) -> None:
    """Both go by the one trigger of [policy]. What one sells and the other buys stays inside, and the market sees the rest."""
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    rule = {"policy.trigger": {"kind": "tracking"}, "policy.destination": "zone", "policy.confirm_blocks": 2}
    settings = strategies("60%", "40%")
    for strategy in settings["strategies"]:  # type: ignore[attr-defined]  # a list of tables
        del strategy["destination"]
    loaded = trusted_config(chain, tmp_path, {**settings, **rule}, TWO)
    with reopened_agent(chain, loaded) as agent:
        require_rebalance(agent)
        require_sum(chain, agent)
        assert abs(weight(chain, agent, "up") - Fraction(7, 10)) < NEAR, "its first trade goes to its targets"
        assert abs(weight(chain, agent, "down") - Fraction(3, 10)) < NEAR
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
    price = chain.deployed_world.prices_usd["WETH"]
    with reopened_agent(chain, loaded) as agent:
        chain.move_market({"WETH": price * Fraction(101, 100)})
        chain.mine(2)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD, "a hundredth is within both ranges"
        chain.move_market({"WETH": price * Fraction(3, 2)})
        chain.mine(2)
        risen = require_rebalance(agent)
        assert mentions(risen.reason, "up acts", "down acts", "WETH", "is beyond")
        require_sum(chain, agent)
        assert Fraction(71, 100) < weight(chain, agent, "up") < Fraction(74, 100), "the edge above its 70 %"
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD


def test_strategy_killed_after_its_swap__is_shared_by_its_wishes(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    loaded = trusted_config(chain, tmp_path, {**strategies("70%", "30%"), "policy.confirm_blocks": 2}, TWO)

    def dies(event: str) -> None:
        swaps = [intent for intent in agent.context.store.journal.open_intents() if intent.kind is IntentKind.SWAP]
        if event == "after:send" and swaps:
            chain.w3.eth.wait_for_transaction_receipt(HexStr(swaps[0].tx_hash or ""))
            raise Killed

    with reopened_agent(chain, loaded) as agent:
        usdc = chain.balance("USDC")
        with pytest.raises(Killed):
            agent.rebalance(send=True, confirm=yes, progress=dies)
    spent = usdc - chain.balance("USDC")
    assert abs(spent - 3_200 * USD) < 30 * USD, "5,600 are wanted by one and 2,400 sold by the other"
    with reopened_agent(chain, loaded) as agent:
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
        require_sum(chain, agent)
        assert abs(weight(chain, agent, "up") - Fraction(7, 10)) < NEAR
        assert abs(weight(chain, agent, "down") - Fraction(3, 10)) < NEAR
        costs = {strategy_book.name: strategy_book.total_cost for strategy_book in books(agent).strategy_books}
        assert costs["down"] == 0 < costs["up"], "whose wish was filled inside pays nothing of the trade"


def test_allocator_s_choice_of_a_strategy__is_recorded(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    changes = strategies("50%", "50%")
    equal = {"kind": "equal", "every": "7d", "keep": "30d", "churn": "1%", "until_chosen": "wait"}
    parts = changes["strategies"]
    assert isinstance(parts, list)
    loaded = trusted_config(chain, tmp_path, {**changes, "strategies": [parts[0], {**parts[1], "allocator": equal}]}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert agent.context.store.allocations.newest("down") is None
        outcome = agent.rebalance()
        netting = outcome.decision_result.layer(StrategiesResult).netting
        assert netting is not None, outcome.reason
        chosen = agent.context.store.allocations.newest("down")
        assert chosen is not None
        assert dict(chosen.weights_bps) == {chain.tokens[symbol].address: 5_000 for symbol in TWO}
        assert agent.context.store.allocations.newest("up") is None
        wished = {adjustment.name: adjustment.acts for adjustment in netting.adjustments}
        assert wished == {"up": True, "down": False}, "30 % was wanted of it before it chose"


@pytest.mark.parametrize(
    ("names", "name", "message", "remedy"),
    [
        pytest.param(("up", "down"), "", "several strategies have an allocator", "choose from up, down", id="no name of several"),
        pytest.param(("up", "down"), "in", "'in' is not a strategy with an allocator", "choose from up, down", id="another name"),
        pytest.param((), "in", "'in' is not a strategy with an allocator", "omit it: no strategy has an allocator", id="none"),
    ],
)
def test_a_strategy_of_weights_is_asked_for_by_what_there_is(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], name: str, message: str, remedy: str
) -> None:
    split = SimpleNamespace(strategies=[SimpleNamespace(name=strategy_name, allocator=object()) for strategy_name in names])
    monkeypatch.setattr(oracle, "part_of", lambda *_: split)
    agent: Any = SimpleNamespace(context=SimpleNamespace(layers=()))
    with pytest.raises(ConfigError) as error:
        oracle.weights(agent, strategy=name)
    assert (error.value.message, error.value.remedy) == (f"--strategy: {message}", remedy)


def test_a_refused_choice_of_a_strategy__names_its_own_key(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    changes = strategies("50%", "50%")
    equal = {"kind": "equal", "every": "7d", "keep": "30d", "churn": "1%", "until_chosen": "targets"}
    parts = changes["strategies"]
    assert isinstance(parts, list)

    def refuse(*_: object) -> None:
        raise Refused("equal: no weights", remedy="check portfolio.weights.limits")

    monkeypatch.setattr(targets, "bounds_of", refuse)
    loaded = trusted_config(chain, tmp_path, {**changes, "strategies": [parts[0], {**parts[1], "allocator": equal}]}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert api.weights(agent)["fault"] == "equal: no weights (check strategies.down.allocator.limits)"
        with pytest.raises(Refused, match=r"strategies\.down\.allocator\.limits"):
            api.weights(agent, accept=lambda _: True)


def test_the_owner_accepts_a_jump_of_a_strategys_weights(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    changes = strategies("50%", "50%")
    equal = {"kind": "equal", "every": "7d", "keep": "30d", "churn": "1%", "until_chosen": "targets", "max_change": "5%"}
    parts = changes["strategies"]
    assert isinstance(parts, list)
    loaded = trusted_config(chain, tmp_path, {**changes, "strategies": [parts[0], {**parts[1], "allocator": equal}]}, TWO)
    with reopened_agent(chain, loaded) as agent:
        waiting = agent.rebalance()
        assert any(mentions(reason, "strategy down", "max_change of 5 %") for reason in waiting.step_input.targets.reasons)
        assert agent.context.store.allocations.newest("down") is None
        with pytest.raises(ConfigError, match="'up' is not a strategy with an allocator"):
            api.weights(agent, strategy="up")
        choice = api.weights(agent)
        assert (choice["strategy"], choice["now"]) == ("down", None)
        assert mentions(choice["fault"], "max_change of 5 %", "trimtab weights --accept")
        assert api.weights(agent, strategy="down", accept=lambda _: True)["accepted"]
        assert agent.context.store.allocations.newest() is None
        agent.rebalance()
        (split_part,) = [part for part in agent.step_input().config(CapitalSplit).strategies if part.name == "down"]
        assert {bps for _, bps in split_part.weights_bps} == {5_000}


def test_withdrawal_that_sells_first__is_borne_by_all(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    paying = {"wallet.payout_addresses": [HOME], "limits.payout_per_day": "off", "portfolio.max_live_value": "off"}
    with reopened_agent(chain, trusted_config(chain, tmp_path, {**strategies("60%", "40%"), **paying}, TWO)) as agent:
        agent.rebalance(send=True, confirm=yes)
        before = {strategy_book.name: (strategy_book.units, dict(strategy_book.holdings)) for strategy_book in books(agent).strategy_books}
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("24000", to=HOME), send=True, confirm=lambda _: True)
        assert done.state == "paid"
        assert chain.balance("USDC", HOME) == 24_000 * USD
        agent.rebalance(send=True, confirm=yes)
        require_sum(chain, agent)
        price = chain.deployed_world.prices_usd["WETH"] * USD / 10**18
        for strategy_book in books(agent).strategy_books:
            units, holdings = before[strategy_book.name]
            was, now = (
                Fraction(tokens[chain.tokens["USDC"].address]) + tokens[chain.tokens["WETH"].address] * price
                for tokens in (holdings, dict(strategy_book.holdings))
            )
            assert Fraction(38, 100) < now / was < Fraction(42, 100), "three fifths of all went"
            assert abs((now / strategy_book.units) / (was / units) - 1) < Fraction(1, 200), "its unit lost what selling cost, and no more"


def test_first_purchase_beyond_the_pools__goes_in_parts(chain: LocalChain, tmp_path: Path) -> None:
    """Both rest for a day after a rebalance of their own; the parts of their first purchase are one."""
    fund(chain, {"USDC": 1_000_000})
    strategies_config = strategies("60%", "40%")
    for strategy in strategies_config["strategies"]:  # type: ignore[attr-defined]  # a list of tables
        strategy["cooldown"] = "1d"
    tight = {"limits.turnover": "30%", "limits.daily_turnover": "60%", "limits.price_impact": "12bps", "limits.first_purchase": "10m"}
    loaded = trusted_config(chain, tmp_path, strategies_config | tight | {"portfolio.max_live_value": "off"}, TWO)
    with reopened_agent(chain, loaded) as agent:
        first = look(agent)
        swap_of(first)
        assert mentions(first.reason, "first purchase", "part 1")
        require_sum(chain, agent)
        assert 0 < weight(chain, agent, "down") < weight(chain, agent, "up") < Fraction(7, 10)
    for _ in range(12):
        with reopened_agent(chain, loaded) as agent:  # another process: what is left is in the store
            chain.move_market(dict(chain.deployed_world.prices_usd))
            chain.warp(601)
            outcome = look(agent)
            if outcome.kind is not OutcomeKind.DONE:
                break
            require_sum(chain, agent)
            ratio = weight(chain, agent, "up") / weight(chain, agent, "down")
            assert abs(ratio - Fraction(7, 3)) < Fraction(1, 10), "each part is shared by what each wants"
    with reopened_agent(chain, loaded) as agent:
        assert "done in" in agent.context.store.executions.purchases()[0].why
        assert abs(weight(chain, agent, "up") - Fraction(7, 10)) < 3 * NEAR
        assert abs(weight(chain, agent, "down") - Fraction(3, 10)) < 3 * NEAR
        assert agent.step_input().history.budgets.turnover_24h < 1_000 * USD, "the budget of drift is untouched"


def test_status_names_each_paused_strategy(chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    with reopened_agent(chain, trusted_config(chain, tmp_path, strategies("50%", "50%"), TWO)) as agent:
        agent.rebalance(send=True, confirm=yes)
        assert not [text for text in agent.status().warnings if "paused" in text]
        step = agent.step_input()
        strategy_books = books(agent)
        why = "the Sharpe ratio was low"
        low = tuple(
            replace(strategy_book, state=replace(strategy_book.state, health=StrategyHealth.PAUSED, reason=why))
            if strategy_book.name == "up"
            else strategy_book
            for strategy_book in strategy_books.strategy_books
        )
        changed = step.with_layer(StrategiesState(replace(strategy_books, strategy_books=low)))
        monkeypatch.setattr(agent, "step_input", lambda: changed)
        (warning,) = [text for text in agent.status().warnings if "paused" in text]
        assert mentions(warning, "up", "Sharpe ratio", "trimtab strategies")
