"""A withdrawal that pools do not give at once within price_impact: raised part by part over looks, then paid once, on real contracts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.api import withdrawing
from agent.api.agent import Agent
from agent.config.load import LoadedConfig
from agent.errors import ConfigError, Refused
from agent.execution.outcome import Outcome, OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentKind, RequestState
from tests.agents import USD, again, fund, swap_of, trusted, yes
from tests.cases.test_gifts_before_exits import give
from tests.cases.test_withdrawing import HOME, OPEN, TARGETS, ended, sure

LARGE = {"WETH": 2_500_000, "WBTC": 1_000_000, "USDC": 1_500_000}
ASKED = "3000000"
PARTS = {
    **OPEN,
    "limits.first_purchase": "10m",
    "limits.price_impact": "10bps",
    "limits.payout_per_day": "off",
    "portfolio.max_live_value": "20000000",
}
TEN_MINUTES = 600


@contextmanager
def rich(chain: LocalChain, loaded: LoadedConfig) -> Iterator[Agent]:
    with again(chain, loaded) as agent:
        yield agent


def look(agent: Agent) -> Outcome:
    """One look of a run."""
    found = next(iter(agent.run(send=True, confirm=yes, once=True)))
    assert isinstance(found, Outcome), found
    return found


def back(chain: LocalChain, seconds: int) -> None:
    """Others bring the pools back to their prices, and time goes by."""
    chain.move_market(dict(chain.books.prices_usd))
    chain.warp(seconds)


def test_sixty_percent_is_raised_over_looks_and_paid_once_by_the_run(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    loaded = trusted(chain, tmp_path, PARTS, TARGETS)
    with again(chain, loaded) as agent:
        shown = withdrawing.withdraw(agent, ASKED, to=HOME, confirm=sure)
        assert shown.state == "planned" and shown.sale is not None and "part 1 of about" in shown.sale.reason, shown.reason
        first = withdrawing.withdraw(agent, ASKED, to=HOME, send=True, confirm=sure)
        assert first.state == "part", first.reason
        assert "part 1 of about" in first.reason and "next at" in first.reason
        assert chain.balance("USDC", HOME) == 0, "nothing is paid before all of it is there"
        prices = chain.books.prices_usd
        sold = {one: LARGE[one] - chain.balance(one) * prices[one] / 10 ** chain.tokens[one].decimals for one in ("WETH", "WBTC")}
        assert min(sold.values()) > 1_000, "every asset that is sold gives a part"
        early = look(agent)
        assert early.kind is OutcomeKind.HOLD and "part 2 of about" in early.reason and "next at" in early.reason, early.reason
        assert "part 2 of about" in agent.status().decided.decision.reason

    parts, paid = 1, None
    while paid is None and parts < 40:
        back(chain, TEN_MINUTES)
        with again(chain, loaded) as agent:  # a run that was ended in between goes on
            found = look(agent)
            assert found.kind is OutcomeKind.DONE, found.reason
            parts += any(one.kind is IntentKind.SWAP for one in found.transactions)
            paid = next((one for one in found.transactions if one.kind is IntentKind.PAYOUT), None)
    assert parts > 2 and chain.balance("USDC", HOME) == 3_000_000 * USD
    with again(chain, loaded) as agent:
        assert ended(agent, first.request) is RequestState.DONE
        assert agent.step_input().history.turnover_24h < 20 * USD, "no part is drift"
        look(agent)
        assert chain.balance("USDC", HOME) == 3_000_000 * USD, "paid once"
        assert agent.step_input().history.claims == ()


def test_the_owner_goes_on_with_it_himself_or_takes_it_back(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    loaded = trusted(chain, tmp_path, PARTS, TARGETS)
    with again(chain, loaded) as agent:
        first = withdrawing.withdraw(agent, ASKED, to=HOME, send=True, confirm=sure)
        number = first.request or 0
        with pytest.raises(Refused, match="next at"):
            withdrawing.resume(agent, number, send=True, confirm=sure)
        back(chain, TEN_MINUTES)
        second = withdrawing.resume(agent, number, send=True, confirm=sure)
        assert second.state == "part" and "part 2 of about" in second.reason, second.reason
        withdrawing.release(agent, number)
        assert ended(agent, number) is RequestState.RELEASED and agent.step_input().history.claims == ()
        back(chain, TEN_MINUTES)
        assert "withdrawal" not in look(agent).reason and chain.balance("USDC", HOME) == 0


def test_a_withdrawal_in_parts_ends_after_its_time_and_waits_for_its_owner(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    loaded = trusted(chain, tmp_path, PARTS, TARGETS)
    with again(chain, loaded) as agent:
        first = withdrawing.withdraw(agent, ASKED, to=HOME, send=True, confirm=sure)
    back(chain, 8 * 86_400)
    with again(chain, loaded) as agent:
        late = look(agent)
        assert late.kind is OutcomeKind.HALT and f"trimtab withdraw --resume {first.request}" in late.reason, late.reason
        assert chain.balance("USDC", HOME) == 0, "a command of long ago pays nothing by itself"
        assert withdrawing.resume(agent, first.request or 0, send=True, confirm=sure).state == "part"


def test_where_parts_are_off_it_is_refused_whole_with_the_remedy(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    loaded = trusted(chain, tmp_path, {**PARTS, "limits.first_purchase": "off"}, TARGETS)
    with again(chain, loaded) as agent:
        refused = withdrawing.withdraw(agent, ASKED, to=HOME, confirm=sure)
        assert refused.state == "refused" and "less than asked for can be raised now" in refused.reason
        with pytest.raises(ConfigError):
            withdrawing.resume(agent, 1, send=True, confirm=sure)


def test_an_exit_goes_before_the_next_part(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    changes = {**PARTS, "portfolio.assets.0.stop_loss": "2500", "policy.confirm_blocks": 2}
    loaded = trusted(chain, tmp_path, changes, TARGETS)
    with again(chain, loaded) as agent:
        assert withdrawing.withdraw(agent, ASKED, to=HOME, send=True, confirm=sure).state == "part"
        back(chain, TEN_MINUTES)
        chain.move_market({"WETH": 2_400})
        chain.mine(3)
        fired = look(agent)
        plan, _, _ = swap_of(fired)
        assert plan.exits and "stop_loss" in fired.reason


def test_a_gift_that_holds_purchases_back_stops_no_part(anvil_chain: LocalChain, tmp_path: Path) -> None:
    chain = anvil_chain
    fund(chain, LARGE)
    loaded = trusted(chain, tmp_path, PARTS, TARGETS)
    with again(chain, loaded) as agent:
        assert withdrawing.withdraw(agent, ASKED, to=HOME, send=True, confirm=sure).state == "part"
        back(chain, TEN_MINUTES)
        give(chain, "WETH", 400_000)
        found = look(agent)
        assert found.kind is OutcomeKind.DONE and "part 2 of about" in found.reason, found.reason
        assert [flow.holds for flow in agent.step_input().history.flows] == [True]
