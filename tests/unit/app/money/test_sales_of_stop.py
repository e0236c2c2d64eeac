"""What keeps a stop open: quarantine of something that the wallet holds, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import cast

import pytest

from agent.app.money.sales_of_stop import is_sale_delayed, planned_sales, sale_wait_reason, step_after_sales, total_of_sales
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.model import BlockedExit, ScreenedToken, StepInput, TokenFinding, UnreadableItem
from agent.planning import requests
from agent.policy.orders.blocked_exits import exclude_blocked_exits
from agent.policy.quarantine import quarantine_tokens
from agent.ports import Reader
from agent.units import Token
from tests.support.builders import price_of, step_input, token, v2_pool, with_snapshot
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.tokens import USDC, WBTC, WETH

TARGETS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
WITHOUT_WBTC = {"WETH": 5, "WBTC": 0, "USDC": 9_000}


def quarantined(*tokens: Token) -> Callable[[StepInput], StepInput]:
    screened_tokens = [ScreenedToken(token.address, TokenFinding.CODE_CHANGED) for token in tokens]
    return lambda step: quarantine_tokens(step, screened_tokens)


def failed_pools(of: Token) -> Callable[[StepInput], StepInput]:
    def fail(step: StepInput) -> StepInput:
        pools = [pool for pool in step.snapshot.pools if of.address in (pool.token0, pool.token1)]
        assert pools
        return with_snapshot(step, unreadable_items=tuple(UnreadableItem("pool", pool.address, "it cannot pay") for pool in pools))

    return fail


def quarantined_of_unknown_balance(token: Token) -> Callable[[StepInput], StepInput]:
    def fail(step: StepInput) -> StepInput:
        holdings = tuple(holding for holding in step.snapshot.holdings if holding.token != token.address)
        return with_snapshot(quarantined(token)(step), holdings=holdings)

    return fail


CASES = {
    "nothing failed": (lambda step: step, False),
    "token that is held": (quarantined(WETH), True),
    "token that is not held": (quarantined(WBTC), False),
    "token of unknown balance": (quarantined_of_unknown_balance(WBTC), True),
    "both": (quarantined(WETH, WBTC), True),
    "numeraire": (quarantined(USDC), True),
    "pool of a token that is held": (failed_pools(WETH), True),
    "pool of a token that is not held": (failed_pools(WBTC), False),
}


@pytest.mark.parametrize(("fail", "is_delayed"), CASES.values(), ids=CASES)
def test_is_sale_delayed__by_quarantine_of_what_the_wallet_holds(fail: Callable[[StepInput], StepInput], is_delayed: bool) -> None:
    outcome = cast(StepOutcome, SimpleNamespace(step_input=fail(step_input(TARGETS, WITHOUT_WBTC))))
    assert is_sale_delayed(outcome) is is_delayed


@pytest.mark.parametrize("held_token", [WETH, WBTC], ids=["held", "not held"])
def test_sale_of_everything__goes_on_later_for_a_quarantined_token_that_is_held(held_token: Token) -> None:
    """Whatever the words of the hold are."""
    step = quarantined(held_token)(step_input(TARGETS, {"WETH": 5_000, "WBTC": 0, "USDC": 5_000}))
    sold_step = exclude_blocked_exits(step, [BlockedExit(WETH.address, "", "")])
    hold = evaluation.evaluate_input(sold_step, requests.propose_selling_everything, FakeEvidenceSource())
    assert hold.kind is OutcomeKind.HOLD
    wait_reason = sale_wait_reason(replace(hold, reason="the sale is over"))
    assert wait_reason == ("WETH stays: in quarantine: its code differs from the pinned code" if held_token == WETH else "")


def stop_readers(step: StepInput) -> StepReaders:
    reader = cast(Reader, SimpleNamespace(snapshot=lambda: step.snapshot, with_more_ticks=lambda snapshot, _: snapshot))
    return StepReaders(
        reader, lambda snapshot, _: replace(step, snapshot=snapshot), lambda _: step.history, FakeEvidenceSource(), FakeClock(), lambda: 0.5
    )


HELD = {"WETH": 5_000, "USDT": 300, "USDC": 4_700}
SALES = {
    "all are allowed": (HELD, {}, {}, ["planned", "planned"], ""),
    "a depegged one is refused": (HELD, {"USDT": Fraction(97, 100)}, {}, ["planned", "refused"], "depeg"),
    "the first one is refused": ({"WETH": 0, "USDT": 300, "USDC": 9_700}, {"USDT": Fraction(97, 100)}, {}, ["refused"], "depeg"),
    "a pool that lies blocks one": (HELD, {}, {"USDT": Fraction(12, 10)}, ["planned"], "USDT"),
}


@pytest.mark.parametrize(("value_by_symbol", "prices", "pool_prices", "kinds", "wait_reason"), SALES.values(), ids=SALES)
def test_planned_sales__count_only_what_guards_let_sell(
    value_by_symbol: dict[str, int], prices: dict[str, Fraction], pool_prices: dict[str, Fraction], kinds: list[str], wait_reason: str
) -> None:
    price_by_symbol = {symbol: pool_prices.get(symbol, price_of(symbol, prices)) for symbol in value_by_symbol if symbol != "USDC"}
    pools = [v2_pool(token(symbol), USDC, price, 1_000_000) for symbol, price in price_by_symbol.items()]
    step = step_input(value_by_symbol, value_by_symbol, prices, pools=pools)
    sales, _, reason = planned_sales(stop_readers(step))
    assert [sale.kind.value for sale in sales] == kinds
    assert wait_reason in reason
    assert bool(reason) is bool(wait_reason)
    sold_plans = [sale.plan for sale in sales if sale.kind is OutcomeKind.PLANNED]
    assert not any(skipped.why.endswith(": ") for sale in sales if sale.plan is not None for skipped in sale.plan.skipped)
    total = total_of_sales(sales)
    assert (Fraction(0) if total is None else total.turnover) == sum(plan.turnover for plan in sold_plans if plan is not None)
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    raw_after = {holding.token: holding.raw for holding in step_after_sales(step, sales).snapshot.holdings}
    usdt = token("USDT").address
    assert raw_after[usdt] == (raw_by_token[usdt] if wait_reason else 0)
