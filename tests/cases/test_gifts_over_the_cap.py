"""Coins that a stranger sends above portfolio.max_live_value stop nothing that the owner's own money does, on real contracts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from agent.app.agent import Agent
from agent.app.documents import plans
from agent.app.documents.status import status_document
from agent.app.money import shutdown, transfers
from agent.app.money.transfers import InvestmentReport
from agent.app.settings import editing
from agent.config.writing.edits import ConfigChanges, apply_changes
from agent.errors import Refused
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import ExternalTransferKind
from tests.support.agents import ROOMY, USD, fund, reopened_agent, swap_of, trusted_config, yes
from tests.support.on_chain.gifts import DAY_S, HOME, TWO, give, look
from tests.support.on_chain.limit_orders import place
from tests.support.on_chain.strategies import books, strategies
from tests.support.text import mentions, raises_code

CAP = {**ROOMY, "limits.price_impact": "2%"}


@contextmanager
def balanced(chain: LocalChain, folder: Path, ceiling: str) -> Iterator[Agent]:
    """10,000 dollars in two halves, below a ceiling."""
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, folder, {**CAP, "portfolio.max_live_value": ceiling}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        yield agent


@contextmanager
def gifted(chain: LocalChain, folder: Path, changes: Mapping[str, object], ceiling: str = "10050", symbol: str = "USDC") -> Iterator[Agent]:
    """10,000 dollars in two halves, and a gift above the ceiling that has waited for limits.balance_jump_wait."""
    fund(chain, {"WETH": 5_000, "USDC": 5_000})
    loaded = trusted_config(chain, folder, {**CAP, **changes, "portfolio.max_live_value": ceiling}, TWO)
    with reopened_agent(chain, loaded) as agent:
        assert look(agent).kind is OutcomeKind.HOLD
        give(chain, symbol, 1_100)
        look(agent)
    chain.warp(DAY_S)
    with reopened_agent(chain, loaded) as agent:
        (excluded,) = status_document(agent.status())["excluded"]
        assert excluded["symbol"] == symbol
        assert mentions(look(agent).reason, f"{excluded['amount']} {symbol}", "excluded")
        yield agent


def test_strategies_rebalance_without_a_gift_above_the_cap(chain: LocalChain, tmp_path: Path) -> None:
    with gifted(chain, tmp_path, strategies("50%", "50%")) as agent:
        own = {
            symbol: sum(strategy_book.balance_raw(chain.tokens[symbol].address) for strategy_book in books(agent).strategy_books)
            for symbol in TWO
        }
        assert own["USDC"] == chain.balance("USDC") - 1_100 * USD, "no strategy holds the gift"
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(9, 10)})
        done = look(agent)
        plan, _, _ = swap_of(done)
        assert plan.legs
        assert mentions(done.reason, "1100 USDC", "excluded")
        assert all(verdict.passed for verdict in plan.verdicts)
        total = sum(drift.value for drift in done.decision_result.drifts)
        assert total <= 10_050 * USD, "no more is managed than may be"
        assert not books(agent).fault
        agent.context.store.balances.classify(1, None, chain.now_s())
        own = {
            symbol: sum(strategy_book.balance_raw(chain.tokens[symbol].address) for strategy_book in books(agent).strategy_books)
            for symbol in TWO
        }
        assert own["USDC"] == chain.balance("USDC"), "what its owner confirmed is theirs"


def test_order_at_its_price__is_filled_beside_a_gift_over_the_cap(chain: LocalChain, tmp_path: Path) -> None:
    with gifted(chain, tmp_path, {}) as agent:
        weth = chain.balance("WETH")
        order, outcome = place(agent, "2900")
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert mentions(outcome.reason, "1100 USDC", "excluded")
        assert weth - chain.balance("WETH") == 5 * 10**16
        (limit_orders,) = agent.context.store.executions.limit_orders()
        assert limit_orders.id == order.id
        assert limit_orders.state == "filled"


def test_manual_swap__goes_on_beside_a_gift_and_spends_none(chain: LocalChain, tmp_path: Path) -> None:
    with gifted(chain, tmp_path, {}) as agent:
        done = agent.swap("WETH", "USDC", "0.05", send=True, confirm=lambda _: True)
        assert done.kind is OutcomeKind.DONE, done.reason
        assert mentions(done.reason, "1100 USDC", "excluded"), done.reason
        beyond = agent.swap("USDC", "WETH", "5500")
        assert beyond.kind is OutcomeKind.REFUSED
        assert "excluded" in beyond.reason, "the gift is nobody's to spend"


def test_wobble_around_the_ceiling__trades_nothing_of_a_gift(chain: LocalChain, tmp_path: Path) -> None:
    """Without memory each crossing bought with 600 of the 1,100 dollars, or sold for them."""
    with gifted(chain, tmp_path, {}, ceiling="11050") as agent:
        price = chain.deployed_world.prices_usd["WETH"]
        for percent in (98, 102, 98):
            chain.move_market({"WETH": price * Fraction(percent, 100)})
            quiet = look(agent)
            assert quiet.kind is OutcomeKind.HOLD, quiet.reason
            assert mentions(quiet.reason, "1100 USDC", "excluded"), quiet.reason
            assert mentions(agent.status().decision_result.decision.reason, "1100 USDC", "excluded")
        chain.move_market({"WETH": price * Fraction(98, 100)})
        agent.context.store.balances.classify(1, None, chain.now_s())
        assert look(agent).kind is OutcomeKind.DONE, "what its owner confirmed is managed below the ceiling"


def test_status_names_what_is_left_alone_whatever_is_decided(chain: LocalChain, tmp_path: Path) -> None:
    def decision_beside_a_gift(agent: Agent) -> str:
        status = agent.status()
        (excluded,) = status_document(status)["excluded"]
        assert (excluded["symbol"], excluded["amount"]) == ("USDC", "1100")
        assert "max_live_value" in excluded["why"]
        assert mentions(status.decision_result.decision.reason, "1100 USDC", "excluded")
        return type(status.decision_result.decision).__name__

    with balanced(chain, tmp_path, "10050") as agent:
        loaded = agent.context.loaded_config
        give(chain, "USDC", 1_100)
        assert decision_beside_a_gift(agent) == "Halt", "a dry look says it at once"
        look(agent)
        assert decision_beside_a_gift(agent) == "Halt", "and while it holds purchases back"
    chain.warp(DAY_S)
    with reopened_agent(chain, loaded) as agent:
        look(agent)
        assert decision_beside_a_gift(agent) == "Hold"
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * Fraction(8, 10)})
        assert decision_beside_a_gift(agent) == "Rebalance"
        chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * 3})
        refused = agent.plan()
        assert refused.kind is OutcomeKind.REFUSED
        assert mentions(plans.plan_document(refused)["decision"]["reason"], "1100 USDC", "excluded")
        assert decision_beside_a_gift(agent) == "Rebalance"


def test_an_edit_is_shown_beside_a_gift_above_the_cap(chain: LocalChain, tmp_path: Path) -> None:
    with gifted(chain, tmp_path, {}) as agent:
        changed = partial(apply_changes, changes=ConfigChanges(targets=(("WETH", "30%"), ("USDC", "70%"))))
        path = agent.context.loaded_config.path
    edit_report = editing.edit(path, editing.TextEdit(changed), confirm=None, transports=[chain.transport], clock=chain.clock)
    assert edit_report.transition is not None, edit_report
    assert edit_report.transition.kind is OutcomeKind.PLANNED, edit_report.transition
    assert mentions(edit_report.transition.reason, "1100 USDC", "excluded")


def test_a_gift_in_the_way_refuses_no_investment_of_its_owner(chain: LocalChain, tmp_path: Path) -> None:
    with gifted(chain, tmp_path, {}, ceiling="11000") as agent:
        chain.set_balance("USDC", chain.balance("USDC") + 600 * USD)
        investment_reports: list[InvestmentReport] = []
        done = transfers.invest(agent, send=True, confirm=lambda report: bool(investment_reports.append(report)) or True)
        assert done.outcome is not None, done
        assert done.outcome.kind is OutcomeKind.DONE, done.outcome
        assert [flow.delta_raw for flow in done.deposits] == [600 * USD], "what fits below the ceiling"
        assert [flow.delta_raw for flow in investment_reports[0].uninvested_deposits] == [1_100 * USD], "its owner saw what is left alone"
        kinds = {flow.delta_raw: flow.kind for flow in agent.context.store.balances.transfers()}
        assert kinds == {600 * USD: ExternalTransferKind.DEPOSIT, 1_100 * USD: None}
        assert mentions(done.outcome.reason, "1100 USDC", "excluded")
        assert look(agent).kind is OutcomeKind.HOLD


def test_a_later_gift_takes_no_room_from_a_deposit_of_before(chain: LocalChain, tmp_path: Path) -> None:
    with balanced(chain, tmp_path, "11000") as agent:
        for usd in (600, 700):  # its owner's, then a stranger's
            chain.set_balance("USDC", chain.balance("USDC") + usd * USD)
            transfers.list_transfers(agent)
        done = transfers.invest(agent, send=True, confirm=yes)
        assert done.outcome is not None, done
        assert done.outcome.kind is OutcomeKind.DONE, done.outcome
        assert [flow.delta_raw for flow in done.deposits] == [600 * USD]
        assert [flow.delta_raw for flow in done.uninvested_deposits] == [700 * USD]


def test_fresh_gift__refuses_no_investment(chain: LocalChain, tmp_path: Path) -> None:
    with balanced(chain, tmp_path, "11000") as agent:
        give(chain, "WETH", 4_000)
        assert look(agent).kind is OutcomeKind.HALT
        weth = chain.balance("WETH")
        chain.set_balance("USDC", chain.balance("USDC") + 600 * USD)
        done = transfers.invest(agent, send=True, confirm=yes)
        assert done.outcome is not None, done
        assert done.outcome.kind is OutcomeKind.DONE, done.outcome
        assert chain.balance("WETH") > weth, "the gift is not sold"
        assert look(agent).kind is OutcomeKind.HALT, "the gift still holds purchases back for its day"


@pytest.mark.parametrize("send", [False, True], ids=["dry", "sent"])
def test_investment_above_the_owner_s_ceiling__is_refused_first(chain: LocalChain, tmp_path: Path, send: bool) -> None:
    with balanced(chain, tmp_path, "11000") as agent:
        chain.set_balance("USDC", chain.balance("USDC") + 1_500 * USD)
        with raises_code(Refused, "max_live_value", "portfolio.max_live_value") as refused:
            transfers.invest(agent, send=send, confirm=yes)
        assert "trimtab edit --set portfolio.max_live_value" in refused.value.remedy
        assert [flow.kind for flow in agent.context.store.balances.transfers()] == [None], "nothing is taken for a deposit"


HOMEWARD = {"wallet.payout_addresses": [HOME], "limits.payout_per_day": "off"}


def test_withdrawal__takes_the_gift_too(chain: LocalChain, tmp_path: Path) -> None:
    with gifted(chain, tmp_path, HOMEWARD) as agent:
        weth = chain.balance("WETH")
        done = transfers.withdraw(agent, transfers.WithdrawalRequest("5500", to=HOME), send=True, confirm=lambda _: True)
        assert done.state == "paid", done.reason
        assert chain.balance("WETH") == weth, "the gift pays what the other USDC do not"


def test_end__sells_the_gift_too(chain: LocalChain, tmp_path: Path) -> None:
    with gifted(chain, tmp_path, HOMEWARD, symbol="WETH") as agent:
        ended = shutdown.stop(agent, to_stable=True, send=True, confirm=lambda _: True)
        assert ended.state == "stopped", ended.reason
        assert chain.balance("WETH") * chain.deployed_world.prices_usd["WETH"] < 10 * 10**18
