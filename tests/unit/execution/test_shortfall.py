"""What a mined transaction brought less of than its plan's minimums, by its events and by the balances before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent import codec
from agent.execution.shortfall import end_interrupted_steps, shortfalls_by_token, with_shortfall
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import Holding, Intent, IntentKind, IntentState, LegPlace, Plan, Receipt, Snapshot, Transfer
from agent.policy.decide import decide
from agent.ports import TransactionStatus
from agent.units import NATIVE
from tests.support.builders import OWNER, step_input, token
from tests.support.signing import TOKENS, USDC, USDT, WBTC, WETH, WITHDRAW_V3, leg, plan_of
from tests.support.transactions import OTHER, START_S, Bench, bench, grant, tx

SELL = leg(WETH, USDC, 10**18, 3_000 * 10**6)
LEAST = SELL.min_out_raw


def snapshot(**raws: int) -> Snapshot:
    addresses = {"weth": WETH, "usdc": USDC, "usdt": USDT, "wbtc": WBTC}
    holdings = tuple(Holding(addresses[name], raw) for name, raw in raws.items())
    return replace(step_input().snapshot, holdings=holdings)


def receipt(*moves: tuple[str, int]) -> Receipt:
    """A receipt in which the wallet gets these amounts; negative ones leave it."""
    transfers = tuple(Transfer(token, OTHER, OWNER, raw) if raw > 0 else Transfer(token, OWNER, OTHER, -raw) for token, raw in moves)
    return Receipt("0x", 1, 1, "0x", 1, 1, transfers)


@pytest.mark.parametrize(
    ("brought", "after", "short"),
    [
        (LEAST, LEAST, {}),
        (LEAST + 5, LEAST + 5, {}),
        (LEAST - 1, LEAST, {USDC: (LEAST - 1, LEAST)}),
        (LEAST, LEAST - 1, {USDC: (LEAST - 1, LEAST)}),
        (LEAST - 3, LEAST - 7, {USDC: (LEAST - 7, LEAST)}),
        (0, 0, {USDC: (0, LEAST)}),
    ],
)
def test_shortfalls_take_the_smaller_of_events_and_balances(brought: int, after: int, short: dict[str, tuple[int, int]]) -> None:
    before, now = snapshot(weth=10**18, usdc=50), snapshot(weth=0, usdc=50 + after)
    moved = receipt((WETH, -(10**18)), *([(USDC, brought)] if brought else []))
    assert shortfalls_by_token(plan_of(SELL), moved, before, now) == short


def test_shortfalls_go_by_events_without_balances() -> None:
    before, right = snapshot(weth=10**18, usdc=0), receipt((WETH, -(10**18)), (USDC, LEAST))
    assert shortfalls_by_token(plan_of(SELL), right, before, None) == {}
    assert shortfalls_by_token(plan_of(SELL), receipt((WETH, -(10**18)), (USDC, LEAST - 1)), before, None) == {USDC: (LEAST - 1, LEAST)}
    assert shortfalls_by_token(plan_of(SELL), right, snapshot(weth=10**18), snapshot(weth=0, usdc=0)) == {}, (
        "not held before, so not compared"
    )


def test_shortfalls_count_overspending_and_no_gas() -> None:
    before, now = snapshot(weth=2 * 10**18, usdc=0), snapshot(weth=10**18 - 1, usdc=LEAST)
    spent = receipt((WETH, -(10**18) - 1), (USDC, LEAST))
    assert shortfalls_by_token(plan_of(SELL), spent, before, now) == {WETH: (-(10**18) - 1, -(10**18))}
    coin = plan_of(replace(SELL, token_in=NATIVE))
    assert shortfalls_by_token(coin, receipt((USDC, LEAST)), before, None) == {}


def test_shortfalls_leave_hubs_out() -> None:
    first = leg(USDT, USDC, 500, 499, sink=LegPlace.ROUTER)
    hub = plan_of(first, leg(USDC, WBTC, 499, 80, source=LegPlace.ROUTER))
    least = hub.legs[1].min_out_raw
    assert shortfalls_by_token(hub, receipt((USDT, -500), (WBTC, least)), snapshot(), None) == {}
    assert shortfalls_by_token(hub, receipt((USDT, -500), (WBTC, least - 1)), snapshot(), None) == {WBTC: (least - 1, least)}


def test_shortfalls_of_a_withdrawal_go_by_its_minimums() -> None:
    plan: Plan = replace(plan_of(), layer_actions=(WITHDRAW_V3,))
    least = dict(zip(TOKENS, WITHDRAW_V3.min_raw, strict=True))
    assert shortfalls_by_token(plan, receipt(*least.items()), snapshot(), None) == {}
    for withdrawn in TOKENS:
        lower = {**least, withdrawn: least[withdrawn] - 1}
        assert shortfalls_by_token(plan, receipt(*lower.items()), snapshot(), None) == {withdrawn: (least[withdrawn] - 1, least[withdrawn])}


SOLD, BOUGHT = token("WETH").address, token("USDC").address
SALE = plan_of(replace(SELL, token_in=SOLD, token_out=BOUGHT))


def done(plan: Plan | None) -> StepOutcome:
    step = step_input()
    return StepOutcome("s", OutcomeKind.DONE, "done", step, decide(step), plan)


def swap(mined: Receipt | None) -> Intent:
    return Intent("i", "s", IntentKind.SWAP, IntentState.MINED, tx(0), "swap", 0, None, "0x", mined)


def test_step_short_of_its_minimum_fails_and_names_the_token() -> None:
    short = with_shortfall(done(SALE), swap(receipt((SOLD, -(10**18)), (BOUGHT, LEAST - 1))), None)
    assert (short.kind, short.shortfall_tokens) == (OutcomeKind.FAILED, (BOUGHT,))


def test_step_at_its_minimum_is_done() -> None:
    outcome = done(SALE)
    assert with_shortfall(outcome, swap(receipt((SOLD, -(10**18)), (BOUGHT, LEAST))), None) is outcome


@pytest.mark.parametrize("case", ["without a plan", "without a receipt"])
def test_step_without_plan_or_receipt_is_never_short(case: str) -> None:
    outcome = done(None if case == "without a plan" else SALE)
    sent = swap(None if case == "without a receipt" else receipt((SOLD, -(10**18))))
    assert with_shortfall(outcome, sent, None) is outcome


def interrupted(folder: Path, brought: int, plan: Plan | None = SALE) -> Bench:
    """A step that was interrupted once its transaction was sent, which brought this amount."""
    setup = bench(folder)
    setup.store.steps.begin("own", START_S, codec.dumps(step_input()))
    status_of = setup.chain.status_of

    def with_transfers(tx_hash: str) -> TransactionStatus:
        status = status_of(tx_hash)
        assert status.receipt is not None
        transfers = receipt((SOLD, -(10**18)), (BOUGHT, brought)).transfers
        return replace(status, receipt=replace(status.receipt, transfers=transfers))

    setup.chain.status_of = with_transfers  # type: ignore[method-assign]
    setup.executor().run("own", IntentKind.SWAP, tx(0), replace(grant(), plan=plan), "swap")
    return setup


@pytest.mark.parametrize(("brought", "outcome"), [(LEAST, "done"), (LEAST - 1, "failed")])
def test_interrupted_step_ends_by_what_it_brought(tmp_path: Path, brought: int, outcome: str) -> None:
    store = interrupted(tmp_path, brought).store
    end_interrupted_steps(store)
    [step] = store.steps.newest(9)
    assert (step.outcome, step.decision) == (outcome, "rebalance")


def test_interrupted_step_without_a_plan_is_done(tmp_path: Path) -> None:
    store = interrupted(tmp_path, 1, plan=None).store
    end_interrupted_steps(store)
    [step] = store.steps.newest(9)
    assert (step.outcome, step.decision) == ("done", "")


def test_ended_step_keeps_its_outcome(tmp_path: Path) -> None:
    store = interrupted(tmp_path, LEAST - 1).store
    store.steps.end("own", "rebalance", "sent", None, "done")
    end_interrupted_steps(store)
    [step] = store.steps.newest(9)
    assert (step.outcome, step.reason) == ("done", "sent")
