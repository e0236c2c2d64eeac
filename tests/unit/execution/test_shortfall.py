"""Tests of agent/execution/shortfall.py: what a mined transaction brought less of than its plan's minimums, by events and balances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent import codec
from agent.execution.shortfall import end_interrupted_steps, shortfall_by_receipt, shortfalls_by_token, with_shortfall
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import WAITING_OUTCOME
from agent.model import Holding, Intent, IntentKind, IntentState, LegPlace, Plan, Receipt, Snapshot, Transfer
from agent.policy.decide import decide
from agent.ports import TransactionStatus
from agent.store import Store
from agent.units import NATIVE
from tests.support.builders import OWNER, step_input, token
from tests.support.constants import ETHER
from tests.support.signing import USDC, USDT, WBTC, WETH, WITHDRAW_V3, grant_of, leg, plan_of
from tests.support.text import mentions
from tests.support.transactions import OTHER, START_S, bench, grant, new_store, tx

SELL = leg(WETH, USDC, ETHER, 3_000 * 10**6)
SALE = plan_of(SELL)
MIN_USDC = SELL.min_out_raw
HUB = plan_of(leg(USDT, USDC, 500, 499, sink=LegPlace.ROUTER), leg(USDC, WBTC, 499, 80, source=LegPlace.ROUTER))
MIN_WBTC = HUB.legs[1].min_out_raw
WITHDRAWAL: Plan = replace(plan_of(), layer_actions=(WITHDRAW_V3,))
TOKEN_0 = WITHDRAW_V3.token0
TOKEN_1 = WITHDRAW_V3.token1
MIN_0, MIN_1 = WITHDRAW_V3.min_raw
Moves = tuple[tuple[str, int], ...]
"""Tokens with the base units that the wallet gets; negative ones leave it."""
Shortfalls = Mapping[str, tuple[int, int]]
"""Change and least change by token."""


def snapshot(raw_by_token: Mapping[str, int]) -> Snapshot:
    return replace(step_input().snapshot, holdings=tuple(Holding(*balance) for balance in raw_by_token.items()))


def receipt(*moves: tuple[str, int]) -> Receipt:
    """Return a receipt with an event for each of these moves of the wallet."""
    transfers = tuple(Transfer(token, OTHER, OWNER, raw) if raw > 0 else Transfer(token, OWNER, OTHER, -raw) for token, raw in moves)
    return Receipt("0x", 1, 1, "0x", 1, 1, transfers)


# --- Shortfalls


@pytest.mark.parametrize(
    ("event_raw", "balance_raw", "shortfalls"),
    [
        pytest.param(MIN_USDC, MIN_USDC, {}, id="both at the minimum"),
        pytest.param(MIN_USDC + 5, MIN_USDC + 5, {}, id="both above"),
        pytest.param(MIN_USDC - 1, MIN_USDC, {USDC: (MIN_USDC - 1, MIN_USDC)}, id="events one unit short"),
        pytest.param(MIN_USDC, MIN_USDC - 1, {USDC: (MIN_USDC - 1, MIN_USDC)}, id="balances one unit short"),
        pytest.param(MIN_USDC - 3, MIN_USDC - 7, {USDC: (MIN_USDC - 7, MIN_USDC)}, id="both short"),
        pytest.param(0, 0, {USDC: (0, MIN_USDC)}, id="nothing came"),
    ],
)
def test_shortfalls_take_the_smaller_of_events_and_balances(event_raw: int, balance_raw: int, shortfalls: Shortfalls) -> None:
    before = snapshot({WETH: ETHER, USDC: 50})
    after = snapshot({WETH: 0, USDC: 50 + balance_raw})

    assert shortfalls_by_token(SALE, receipt((WETH, -ETHER), (USDC, event_raw)), before, after) == shortfalls


@pytest.mark.parametrize(
    ("plan", "moves", "shortfalls"),
    [
        pytest.param(SALE, ((WETH, -ETHER), (USDC, MIN_USDC)), {}, id="sale at its minimum"),
        pytest.param(SALE, ((WETH, -ETHER), (USDC, MIN_USDC - 1)), {USDC: (MIN_USDC - 1, MIN_USDC)}, id="sale one unit short"),
        pytest.param(SALE, ((WETH, -ETHER - 1), (USDC, MIN_USDC)), {WETH: (-ETHER - 1, -ETHER)}, id="one unit overspent"),
        pytest.param(plan_of(replace(SELL, token_out=NATIVE)), ((WETH, -ETHER),), {}, id="native coin bought"),
        pytest.param(plan_of(replace(SELL, token_in=NATIVE)), ((USDC, MIN_USDC),), {}, id="native coin sold"),
        pytest.param(HUB, ((USDT, -500), (WBTC, MIN_WBTC)), {}, id="hub in the router"),
        pytest.param(HUB, ((USDT, -500), (WBTC, MIN_WBTC - 1)), {WBTC: (MIN_WBTC - 1, MIN_WBTC)}, id="short behind a hub"),
        pytest.param(WITHDRAWAL, ((TOKEN_0, MIN_0), (TOKEN_1, MIN_1)), {}, id="withdrawal at its minimums"),
        pytest.param(WITHDRAWAL, ((TOKEN_0, MIN_0 - 1), (TOKEN_1, MIN_1)), {TOKEN_0: (MIN_0 - 1, MIN_0)}, id="first token short"),
        pytest.param(WITHDRAWAL, ((TOKEN_0, MIN_0), (TOKEN_1, MIN_1 - 1)), {TOKEN_1: (MIN_1 - 1, MIN_1)}, id="second token short"),
    ],
)
def test_shortfalls_go_by_events_without_balances(plan: Plan, moves: Moves, shortfalls: Shortfalls) -> None:
    assert shortfalls_by_token(plan, receipt(*moves), snapshot({}), None) == shortfalls


def test_shortfalls_compare_no_balance_that_was_unread_before() -> None:
    enough = receipt((WETH, -ETHER), (USDC, MIN_USDC))

    assert shortfalls_by_token(SALE, enough, snapshot({WETH: ETHER}), snapshot({WETH: 0, USDC: 0})) == {}


# --- Outcome of a step

ASSET_SALE = plan_of(replace(SELL, token_in=token("WETH").address, token_out=token("USDC").address))
"""The same sale with tokens of the portfolio."""
SOLD = (token("WETH").address, -ETHER)


def bought(raw: int) -> tuple[str, int]:
    return token("USDC").address, raw


def outcome_of(plan: Plan | None) -> StepOutcome:
    step = step_input()
    return StepOutcome("s", OutcomeKind.DONE, "done", step, decide(step), plan)


def mined_swap(block: Receipt | None) -> Intent:
    return Intent("i", "s", IntentKind.SWAP, IntentState.MINED, tx(0), "swap", 0, None, "0x", block)


def test_step_short_of_its_minimum_fails_and_names_the_token() -> None:
    outcome = with_shortfall(outcome_of(ASSET_SALE), mined_swap(receipt(SOLD, bought(MIN_USDC - 1))), None)

    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.shortfall_tokens == (token("USDC").address,)
    assert mentions(outcome.reason, "USDC changed by 2969.999999, at least 2970 was due", "daily_loss")


@pytest.mark.parametrize(
    ("plan", "block"),
    [
        pytest.param(ASSET_SALE, receipt(SOLD, bought(MIN_USDC)), id="at the minimum"),
        pytest.param(None, receipt(SOLD), id="without a plan"),
        pytest.param(ASSET_SALE, None, id="without a receipt"),
    ],
)
def test_step_that_brought_its_minimum_is_unchanged(plan: Plan | None, block: Receipt | None) -> None:
    outcome = outcome_of(plan)

    assert with_shortfall(outcome, mined_swap(block), None) is outcome


# --- Steps that were interrupted


def store_after_swap(folder: Path, brought_raw: int = MIN_USDC, plan: Plan | None = ASSET_SALE) -> Store:
    """Return a store with a step "own" without an outcome, whose swap is in a block and brought this amount."""
    setup = bench(folder)
    setup.store.steps.begin("own", START_S, codec.dumps(step_input()))
    status_of = setup.chain.status_of

    def status_with_transfers(tx_hash: str) -> TransactionStatus:
        status = status_of(tx_hash)
        assert status.receipt is not None
        return replace(status, receipt=replace(status.receipt, transfers=receipt(SOLD, bought(brought_raw)).transfers))

    setup.chain.status_of = status_with_transfers  # type: ignore[method-assign]
    setup.executor().run("own", tx(0), replace(grant(), plan=plan), "swap")
    return setup.store


@pytest.mark.parametrize(
    ("brought_raw", "plan", "outcome", "decision"),
    [
        pytest.param(MIN_USDC, ASSET_SALE, "done", "rebalance", id="at the minimum"),
        pytest.param(MIN_USDC - 1, ASSET_SALE, "failed", "rebalance", id="one unit short"),
        pytest.param(1, None, "done", "", id="without a plan"),
    ],
)
def test_interrupted_step_ends_by_what_it_brought(tmp_path: Path, brought_raw: int, plan: Plan | None, outcome: str, decision: str) -> None:
    store = store_after_swap(tmp_path, brought_raw, plan)

    end_interrupted_steps(store)

    [step] = store.steps.newest(9)
    assert (step.outcome, step.decision) == (outcome, decision)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        pytest.param("error", "the transaction was mined after the step was interrupted", id="error"),
        pytest.param(WAITING_OUTCOME, "the transaction was mined after the step was interrupted", id="proposed"),
        pytest.param("done", "sent", id="done"),
        pytest.param("failed", "sent", id="failed"),
        pytest.param("refused", "sent", id="refused"),
    ],
)
def test_only_an_interrupted_step_gets_another_outcome(tmp_path: Path, outcome: str, reason: str) -> None:
    store = store_after_swap(tmp_path)
    store.steps.end("own", "rebalance", "sent", None, outcome)

    end_interrupted_steps(store)

    [step] = store.steps.newest(9)
    assert step.reason == reason


def test_executed_proposal_is_named_as_the_reason(tmp_path: Path) -> None:
    store = store_after_swap(tmp_path)
    [intent] = store.journal.intents()
    store.proposals.mark_proposed(intent.id, 1)

    end_interrupted_steps(store)

    [step] = store.steps.newest(9)
    assert step.reason == f'executed in {intent.tx_hash}: the proposal {intent.id} ("swap")'


@pytest.mark.parametrize(
    ("raw_0", "shortfalls"),
    [pytest.param(MIN_0, {}, id="at the minimums"), pytest.param(MIN_0 - 1, {TOKEN_0: (MIN_0 - 1, MIN_0)}, id="one unit short")],
)
def test_layer_action_without_a_plan_owes_its_minimums(tmp_path: Path, raw_0: int, shortfalls: Shortfalls) -> None:
    store = new_store("memory", tmp_path)
    store.steps.begin("own", START_S, codec.dumps(step_input()))
    intent = store.journal.add_intent("own", tx(0), grant_of(WITHDRAW_V3), "withdraw", START_S, None)
    mined = replace(intent, receipt=receipt((TOKEN_0, raw_0), (TOKEN_1, MIN_1)))

    assert shortfall_by_receipt(store, mined) == shortfalls


def test_intent_without_plan_and_action_owes_nothing(tmp_path: Path) -> None:
    store = store_after_swap(tmp_path, plan=None)
    [intent] = store.journal.intents()

    assert shortfall_by_receipt(store, intent) == {}
