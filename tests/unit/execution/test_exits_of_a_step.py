"""Exits of one step, each a transaction of its own: what is refused or reverts is skipped, and what follows is confirmed by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from agent import codec, engine, guards
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution import approvals, evaluation
from agent.execution.cycle_outcome import unsent_phrase
from agent.execution.resumption import new_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts
from agent.layers.futures.state import FuturesCycle, FuturesProgress, futures_progress
from agent.layers.liquidity.state import LiquidityCycle, liquidity_progress
from agent.model import (
    AgentCycle,
    ConditionalOrder,
    Evidence,
    ExitFailures,
    Intent,
    IntentKind,
    OrdersConfig,
    Plan,
    StepInput,
    SubmissionRefusal,
    UnsignedTx,
    Verdict,
)
from agent.planning import proposals, requests
from agent.policy.decide import decide
from agent.policy.orders.exits import apply_orders
from agent.ports import Approval, Grant, PreparedTransaction
from agent.store import open_store
from agent.store.accounts.budgets import BudgetStore
from tests.support.builders import NOW_S, OWNER, token, v2_pool, with_history, with_limits
from tests.support.decisions.exits import FIRED, LINK, MARKET, OFF, SOUND, STOP, USDC, WBTC, WETH
from tests.support.decisions.exits import GuardEvidence as Sees
from tests.support.decisions.exits import outcome_of as judged
from tests.support.decisions.exits import sold_symbols as moved
from tests.support.decisions.exits import step_with_stops as fired
from tests.support.decisions.exits import step_with_unpriced_stop as unpriced
from tests.support.decisions.exits_of_a_step import HEAVIER
from tests.support.decisions.exits_of_a_step import step_with_equal_stops as stops
from tests.support.lp_worlds import paired, quiet, ranged, v2_at, v3_at
from tests.support.lp_worlds import wanted as wanted_liquidity
from tests.support.lp_worlds import world as world_with
from tests.support.plans import evidence
from tests.support.refusal_worlds import NO, World
from tests.support.standing_orders import price_of, terms
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, grant, tx

ALL = (*MARKET, SOUND)
Worlds = Callable[..., World]


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Worlds]:
    """Worlds, each with a store of its own."""
    with ExitStack() as stores:

        def made(step: StepInput, *rest: Any, **more: Any) -> World:
            store = open_store(f"sqlite:///{tmp_path / f'{next(number)}.db'}", CHAIN_ID, OWNER, step.portfolio.wrapped_native)
            stores.callback(store.close)
            return World(store, step, *rest, **more)

        number = count()
        yield made


def addresses(*symbols: str) -> list[set[str]]:
    return [{token(symbol).address} for symbol in symbols]


def test_exits_are_sold_one_by_one_and_each_is_confirmed(worlds: Worlds) -> None:
    world = worlds(stops(["T0", "T1", "T2"]), lambda _: False)
    done = world.rounds()
    assert done.kind is OutcomeKind.DONE
    assert world.sold == addresses("T0", "T1", "T2")
    assert [one.decision_result.exit_token for one in world.asked] == [token(one).address for one in ("T0", "T1", "T2")]
    assert [len(one.exits_tried) for one in world.asked] == [0, 1, 2], "a confirmation given once does not cover the next exit"
    assert len({intent.step_id for intent in done.transactions}) == 3, "each has a step of its own in the journal"
    assert mentions(done.reason, "exits", "T0, T1, T2")
    assert world.rounds().kind is OutcomeKind.HOLD
    assert len(world.sold) == 3


def test_one_that_tells_a_look_from_a_sending_does_not_hold_up_many_others(worlds: Worlds) -> None:
    world = worlds(stops([f"T{number}" for number in range(5)]), lambda sold: token("T0").address in sold)
    done = world.rounds()
    assert done.kind is OutcomeKind.DONE, done.reason
    assert world.sold == addresses("T1", "T2", "T3", "T4")
    assert [one.token for one in world.late] == [one.token for one in done.decision_result.blocked_exits] == [token("T0").address]
    assert mentions(done.reason, "T0", "refused")


def test_every_exit_is_tried_in_one_step_however_many_are_refused(worlds: Worlds) -> None:
    world = worlds(stops([f"T{number}" for number in range(9)]), lambda sold: sold != {token("T8").address})
    world.rounds()
    assert world.sold == addresses("T8")
    assert len(world.late) == 8


def test_an_exit_that_reverts_does_not_hold_up_the_next_and_fails_the_step(worlds: Worlds) -> None:
    step = fired("LINK", "WBTC", values=HEAVIER, pools=ALL)
    world = worlds(step, lambda _: False)
    world.fails = {WBTC.address}
    done = world.rounds()
    assert world.sold == [{WBTC.address}, {LINK.address}]
    assert done.kind is OutcomeKind.FAILED
    assert mentions(done.reason, "exits", "LINK")
    assert len(world.asked) == 2, "a rebalance waits for the next cycle"
    assert world.late == (), "a revert is no refusal"


def test_what_the_limits_leave_of_an_exit_waits_for_the_next_cycle(worlds: Worlds) -> None:
    shallow = (MARKET[0], v2_pool(WBTC, USDC, 60_000, 1_000_000), SOUND)
    world = worlds(with_limits(fired("LINK", "WBTC", pools=shallow), price_impact_bps=50), lambda _: False)
    done = world.rounds()
    assert world.sold == [{WBTC.address}, {LINK.address}], "once in each step"
    assert done.kind is OutcomeKind.DONE
    assert done.decision_result.blocked_exits == (), "it was sold as far as it could be"
    world.rounds()
    assert world.sold[2:] == [{WBTC.address}]


def test_what_is_sold_proves_that_a_refused_exit_is_refused_for_itself(worlds: Worlds) -> None:
    """LINK is refused when sent, what is rebalanced besides is refused too, and WBTC is sold."""
    step = fired("LINK", "WBTC", values=HEAVIER, pools=ALL)
    world = worlds(step, lambda sold: bool(sold & {LINK.address, WETH.address}))
    done = world.rounds()
    assert world.sold == [{WBTC.address}]
    assert [one.token for one in world.late] == [LINK.address]
    assert done.kind is OutcomeKind.DONE
    assert "simulated: no" in done.reason


def test_where_everything_is_refused_no_exit_is_blamed(worlds: Worlds) -> None:
    """The router, or an endpoint, refuses: that says nothing against an exit."""
    step = fired("LINK", "WBTC", values=HEAVIER, pools=ALL)
    world = worlds(step, lambda _: True)
    before = (SubmissionRefusal(WBTC.address, NOW_S - 60, 2, "earlier"),)
    world.store.budgets.mark_submission_refusals(before)
    done = world.rounds()
    assert done.kind is OutcomeKind.REFUSED
    assert world.sold == []
    assert world.late == before
    assert [one.decision_result.exit_token for one in world.asked] == [LINK.address, WBTC.address, ""], "refused less often first"


def test_cycle__records_of_refusals_fail_after_an_error__raises_the_error(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_from_here_on(*_: object) -> None:
        monkeypatch.setattr(BudgetStore, "mark_submission_refusals", Mock(side_effect=OperatorNeeded("store: no room")))
        raise Retryable("no endpoint answers")

    world = worlds(fired("LINK", pools=ALL), lambda _: True)
    monkeypatch.setattr(world, "reconcile", lambda: None, raising=False)
    monkeypatch.setattr(approvals, "revoke_leftovers", fail_from_here_on)
    with pytest.raises(Retryable, match="no endpoint answers"):
        engine.run_cycle(world.readers(), AgentCycle(), world.store, world.transactor())


def test_where_nothing_else_can_be_tried_a_refused_exit_is_blamed(worlds: Worlds) -> None:
    world = worlds(fired("LINK", pools=ALL), lambda _: True)
    world.rounds()
    assert [one.token for one in world.late] == [LINK.address]


def test_a_plan_in_place_of_a_refused_one_is_not_bound_by_what_was_approved_for_that(worlds: Worlds) -> None:
    """Neither caps nor gas: with caps it would count as carried on after approvals, and go at once where it is to go in rounds."""
    step = fired("LINK", values=HEAVIER, pools=ALL)
    world = worlds(step, lambda sold: LINK.address in sold, lacks=(LINK.address,))
    world.rounds()
    first, after = world.asked
    assert first.plan is not None
    assert first.plan.is_exit
    assert after.exits_tried == (LINK.address,)
    assert (after.step_input.progress.spend_caps, after.step_input.progress.spent_gas_wei) == ((), 0)
    assert len(world.sold) == 1
    assert LINK.address not in world.sold[0]


@pytest.mark.parametrize(("symbols", "sold"), [(("LINK",), []), (("LINK", "WBTC"), [{WBTC.address}])])
def test_a_token_that_spoils_its_own_market_once_approved_is_left_and_holds_up_no_other(
    worlds: Worlds, symbols: tuple[str, ...], sold: list[set[str]]
) -> None:
    """Alone as well: steps that only approved, and count in the row of such, end all trading after a while."""
    world = worlds(fired(*symbols, pools=ALL), lambda _: False, lacks=(LINK.address,))

    def spoils(to: str, raw: int) -> None:
        world.lacks.discard(to)
        world.step = fired(*symbols, pools=(*MARKET, OFF))

    world.approved = spoils
    done = world.rounds()
    assert world.sold == sold
    assert LINK.address in done.exits_tried
    assert len(world.asked) == len(symbols)
    assert [one.token for one in world.late] == [LINK.address], "its approvals count in no row, and it rests in the end"


def test_tokens_that_ignore_their_approvals_are_left_and_do_not_end_the_run(worlds: Worlds) -> None:
    first, second = (token(one).address for one in ("T0", "T1"))
    world = worlds(stops(["T0", "T1", "T2"]), lambda _: False, lacks=(first, second))
    tries: list[str] = []
    world.approved = lambda to, raw: tries.append(to)
    done = world.rounds()
    assert world.sold == addresses("T2")
    assert done.exits_tried == (token("T2").address, first, second)
    assert tries == [first] * 2 + [second] * 2
    assert len(world.late) == 2


def test_an_exit_that_fires_meanwhile_is_confirmed_before_one_that_was_approved(worlds: Worlds) -> None:
    world = worlds(fired("LINK", pools=ALL), lambda _: False, lacks=(LINK.address,))

    def fires(to: str, raw: int) -> None:
        world.lacks.discard(to)
        world.step = fired("LINK", "WBTC", pools=ALL)
        assert world.store.orders.replace_orders(world.step.history.orders.states, None, world.store.budgets.history(NOW_S).orders.version)

    world.approved = fires
    world.rounds()
    assert world.sold == [{WBTC.address}, {LINK.address}]
    assert [one.decision_result.exit_token for one in world.asked] == [one.address for one in (LINK, WBTC, LINK)]
    assert world.asked[1].step_input.progress.spend_caps == ()


def test_what_is_declined_after_liquidity_has_moved_is_not_told_as_approvals_only(worlds: Worlds) -> None:
    world = worlds(fired("LINK", pools=ALL), lambda _: False)
    world.store.steps.begin("s", NOW_S, codec.dumps(world.step))
    approval, action = (
        world.store.journal.add_intent("s", kind, tx(nonce), grant(kind), "", 0, None)
        for nonce, kind in enumerate((IntentKind.APPROVE, IntentKind.LIQUIDITY))
    )
    none, approved, moved = (unsent_phrase([one.kind for one in sent]) for sent in ([], [approval], [approval, action]))
    assert "approvals" in approved
    assert "approvals" not in none + moved
    assert none != moved


def test_taking_back_goes_on_past_a_token_that_refuses_and_names_what_stays(worlds: Worlds) -> None:
    step = fired("LINK", "WBTC", pools=ALL)
    world = worlds(step, lambda _: False)
    world.left = [Approval(one.address, "router", 0, one.symbol, "router") for one in (LINK, WBTC)]
    approve = world.approval_transaction

    def refuses(step: StepInput, approval: Approval) -> PreparedTransaction:
        if approval.token == LINK.address:
            raise Refused("the token says no")
        return approve(step, approval)

    world.approval_transaction = refuses  # type: ignore[method-assign]
    after = world.tidy(OutcomeKind.DONE, "done")
    assert [intent.tx.to for intent in after.transactions] == [WBTC.address]
    assert mentions(after.reason, "done", "allowances", "LINK")


@pytest.mark.parametrize("sent_before", [False, True], ids=["nothing was sent", "a swap was sent"])
def test_gas_for_taking_allowances_back_is_in_the_budgets_before_the_step_ends(worlds: Worlds, sent_before: bool) -> None:
    world = worlds(fired("LINK", pools=ALL), lambda _: False)
    if sent_before:
        world.step = world.rounds().step_input
    world.left = [Approval(LINK.address, "router", 0, LINK.symbol, "router")]
    after = world.tidy(OutcomeKind.HOLD, "holds")
    assert [intent.tx.to for intent in after.transactions] == [LINK.address]
    assert list(world.store.journal.unbooked_intents()) == []


def test_an_allowance_that_is_told_though_it_was_set_to_zero_again_and_again_is_left_and_costs_no_more_gas(worlds: Worlds) -> None:
    """Each look would send one more, and steps of approvals alone end all trading, the stops of others too."""

    def taken_back(*done: tuple[str, str, int]) -> StepOutcome:
        world = worlds(fired("LINK", "WBTC", pools=ALL), lambda _: False)
        world.left = [Approval(one.address, "router", 0, one.symbol, "router") for one in (LINK, WBTC)]
        world.store.steps.begin("before", NOW_S, codec.dumps(world.step))
        for one in done:
            world.mined("before", IntentKind.APPROVE, replace(tx(0), to=one[0]), replace(grant(IntentKind.APPROVE), approval_terms=one), "")
        return world.tidy(OutcomeKind.HOLD, "holds")

    def zero(one: str, spender: str = "router", raw: int = 0) -> tuple[str, str, int]:
        return (one, spender, raw)

    link, both = LINK.address, [LINK.address, WBTC.address]
    after = taken_back(zero(link), zero(link), zero(WBTC.address), zero(link))
    assert [intent.tx.to for intent in after.transactions] == [WBTC.address]
    assert mentions(after.reason, "router", "LINK", "3 times")
    for done in ([zero(link)] * 2, [*[zero(link)] * 2, zero(link, raw=5), zero(link)], [zero(link, "other")] * 3):
        assert [intent.tx.to for intent in taken_back(*done).transactions] == both


@pytest.mark.parametrize("watched", [False, True])
def test_where_what_was_to_be_sold_is_gone_what_is_traded_in_its_place_is_confirmed_anew(worlds: Worlds, watched: bool) -> None:
    """A yes to an exit is none to the rebalance that comes to be due once its token hides its balance; where limits watch for that,
    nothing but exits goes on.
    """
    off = {} if watched else {"balance_jump_bps": None, "daily_loss_bps": None}
    had, gone = (
        with_limits(fired("LINK", values={"WETH": 3_000, "WBTC": 3_000, "LINK": value, "USDC": 2_000}, pools=ALL), **off)
        for value in (2_000, 0)
    )
    world = worlds(had, lambda _: False, lacks=(LINK.address,))

    def vanishes(to: str, raw: int) -> None:
        world.lacks.discard(to)
        world.step = gone

    world.approved = vanishes
    done = world.rounds()
    assert done.exits_tried == (LINK.address,)
    assert mentions(done.reason, "LINK", "wallet")
    if watched:
        assert done.kind is OutcomeKind.HALT
        assert mentions(done.reason, "LINK", "200")
        assert len(world.asked) == 1
        assert not world.sold
        return
    assert [one.plan is not None and one.plan.is_exit for one in world.asked] == [True, False]
    assert world.sold == [{WETH.address, WBTC.address}]


def test_reverts_move_an_exit_behind_one_that_was_refused_before() -> None:
    """LINK was refused at submission an hour ago and is sound again; WBTC reverts every time: LINK has its turn."""
    step = fired("LINK", "WBTC", pools=ALL)
    refused = (SubmissionRefusal(LINK.address, NOW_S - 7_200, 1, "refused"),)
    begun = []
    for reverts in range(4):
        failed = (ExitFailures(WBTC.address, reverts, 0, NOW_S - 7_200),)
        begun.append(decide(with_history(step, failed_exits=failed, submission_refusals=refused)).exit_token)
    assert begun == [WBTC.address, WBTC.address, LINK.address, LINK.address]


def test_three_exits_that_revert_in_one_step_silence_no_other(worlds: Worlds) -> None:
    symbols = [f"T{number}" for number in range(5)]
    world = worlds(stops(symbols), lambda _: False)
    world.fails = {token(one).address for one in symbols[:3]}
    done = world.rounds()
    assert world.sold == addresses(*symbols)
    assert done.kind is OutcomeKind.FAILED
    found = world.store.budgets.history(NOW_S)
    assert found.failures.is_stopped
    assert [one.revert_count for one in found.failures.failed_exits] == [1, 1, 1], "rebalances wait, exits do not"


def at(world: World, now_s: int) -> None:
    """The same market later, with fresh feeds."""
    feeds = tuple(replace(one, updated_at_s=now_s - 60, started_at_s=now_s - 60) for one in world.step.snapshot.feeds)
    head = replace(world.step.snapshot.head, timestamp_s=now_s)
    world.step = replace(world.step, snapshot=replace(world.step.snapshot, now_s=now_s, head=head, feeds=feeds))


def test_a_token_that_reverts_again_and_again_does_not_delay_another_s_stop(worlds: Worlds) -> None:
    """WBTC reverts in every cycle; LINK's first two tries are refused, then it is sound: its next try sells it."""
    cycle = 0
    world = worlds(fired("LINK", "WBTC", values=HEAVIER, pools=ALL), lambda sold: cycle < 2 and LINK.address in sold)
    world.fails = {WBTC.address}
    for cycle in range(6):  # the world reads it
        at(world, NOW_S + 60 * cycle)
        world.rounds()
    assert world.sold[:4] == [{WBTC.address}] * 3 + [{LINK.address}], "in its third cycle"
    assert world.sold[4:] == [{WBTC.address}] * 2, "WBTC waits after its third revert"


class Withdrawn(Exception):
    """Liquidity was about to be withdrawn."""


def in_pool_and_wallet() -> StepInput:
    """Stops of WETH, all in a pool, and of LINK, all in the wallet, have fired."""
    values, prices = {"WETH": 0, "LINK": 4_000, "USDC": 4_000}, {"LINK": 10}
    targets = {"WETH": 3_000, "LINK": 3_000, "USDC": 4_000}
    pooled, aim = [ranged(2_000, 1_600, 2_500)], [wanted_liquidity(2_000)]
    step = world_with(pooled, aim, values=values, trigger=quiet(), targets_bps=targets, prices=prices)
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None, price_impact_bps=500)
    wished = terms("WETH", STOP, 2_100), terms("LINK", STOP, 1)
    gone = tuple(
        ConditionalOrder(one.token, STOP, FIRED, one, 1, price_of(symbol, high), None, price_of(symbol, low))
        for one, symbol, high, low in zip(wished, ("WETH", "LINK"), (2_500, 20), (2_000, 10), strict=True)
    )
    portfolio = replace(step.portfolio, orders=OrdersConfig(wished))
    return apply_orders(replace(with_history(step, states=gone), portfolio=portfolio))


@pytest.mark.parametrize("earlier", [0, 5])
def test_the_stop_of_an_asset_in_a_pool_follows_an_exit_that_reverts(worlds: Worlds, earlier: int) -> None:
    world = worlds(in_pool_and_wallet(), lambda _: False)
    world.fails = {LINK.address}

    def withdraws(step: StepInput, plan: Plan) -> PreparedTransaction:
        raise Withdrawn

    world.layer_transaction = withdraws  # type: ignore[attr-defined]
    for _ in range(earlier):
        plan = judged(in_pool_and_wallet()).plan
        world.store.steps.begin(f"e{len(world.store.steps.newest(100))}", NOW_S, "{}")
        world.mined("e0", IntentKind.SWAP, tx(0), replace(grant(), plan=plan), "swap")
    with pytest.raises(Withdrawn):
        world.rounds()
    assert len(world.sold) == (0 if earlier else 1), "LINK waits after five reverts, the pool does not"


@pytest.mark.parametrize("limits", [{"lp_max_weight_bps": 100}, {"impermanent_loss_bps": 1}])
def test_liquidity_above_its_limits_refuses_no_exit(worlds: Worlds, limits: dict[str, int]) -> None:
    """Exits come before its withdrawal, so that neither would ever be sent; a blocked exit alone lifts the share of liquidity."""
    step = with_limits(in_pool_and_wallet(), **limits)
    found = judged(step)
    assert found.kind is OutcomeKind.PLANNED
    assert found.decision_result.exit_token == LINK.address
    assert found.plan is not None
    assert all(one.passed for one in found.plan.verdicts)
    (name,) = (one.removesuffix("_bps") for one in limits)
    assert any(one.guard == name and "not applied to an exit" in one.measured_text for one in found.plan.verdicts)
    alone = replace(found.plan, decision=replace(found.plan.decision, is_exit=False))  # type: ignore[type-var]  # a rebalance
    verdicts = guards.judge(found.step_input, alone, evidence(found.step_input, alone))
    assert not next(one for one in verdicts if one.guard == name).passed, "a rebalance waits for it"


@pytest.mark.parametrize("reverts", [False, True])
def test_a_withdrawal_that_fails_does_not_hold_up_that_of_another_pool(worlds: Worlds, reverts: bool) -> None:
    first, second = v3_at(), v2_at()
    aims = [wanted_liquidity(2_000), wanted_liquidity(1_000, second)]
    step = world_with([ranged(2_000, 1_600, 2_500), paired(1_000)], aims, values={"WETH": 0, "USDC": 7_000}, trigger=quiet())
    stop = terms("WETH", STOP, 2_100)
    gone = ConditionalOrder(stop.token, STOP, FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
    step = replace(with_history(step, states=(gone,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,))))
    world, tried = worlds(apply_orders(step), lambda _: False), []
    sold = judged(fired("LINK", pools=ALL)).plan

    def withdraws(step: StepInput, plan: Plan) -> PreparedTransaction:
        tried.append(plan.layer_actions[0].pool)
        if tried[-1] == second.address:
            raise Refused("no price", (Verdict("signer.min_out", "1", "2", False),))
        return PreparedTransaction(tx(step.snapshot.nonce_latest), replace(grant(IntentKind.LIQUIDITY), plan=plan), "withdrawal")

    def sends(step_id: str, kind: IntentKind, made: UnsignedTx, granted: Grant, note: str) -> Intent:
        if not reverts:
            raise NO
        return world.mined(step_id, kind, made, replace(granted, plan=sold), note)

    world.layer_transaction, world.run, world.fails = withdraws, sends, {LINK.address}  # type: ignore[attr-defined, method-assign]
    done = world.rounds()
    assert tried == [first.address, second.address]
    assert done.kind is OutcomeKind.REFUSED
    assert mentions(done.reason, "no price", "ended reverted" if reverts else "simulated: no")


def test_everything_in_the_wallet_is_sold_while_liquidity_cannot_be_withdrawn() -> None:
    """A stranger pushes its pool; `stop --to-stable` sells the rest and then says so."""
    step = in_pool_and_wallet()
    pushed = v3_at(Fraction(11, 10))
    pools = tuple(pushed if one.address == pushed.address else one for one in step.snapshot.pools)
    position = ranged(2_000, 1_600, 2_500, pool=pushed)
    step = replace(with_history(step, states=()), snapshot=replace(step.snapshot, pools=pools, positions=(position,)))
    found = evaluation.evaluate_input(step, requests.propose_selling_everything, Sees(), "abc")
    assert found.kind is OutcomeKind.PLANNED
    assert found.decision_result.exit_token == LINK.address
    held = tuple(replace(one, raw=0) if one.token == LINK.address else one for one in step.snapshot.holdings)
    step = replace(step, snapshot=replace(step.snapshot, holdings=held))
    left = evaluation.evaluate_input(step, requests.propose_selling_everything, Sees(), "abc")
    assert left.kind is OutcomeKind.REFUSED
    assert mentions(left.reason, "not withdrawn: its pool", "off the reference")


def test_an_endpoint_s_failure_with_one_exit_does_not_end_the_step(worlds: Worlds) -> None:
    world = worlds(fired("LINK", "WBTC", values=HEAVIER, pools=ALL), lambda _: False)
    failing_with(world, WBTC.address, Retryable("endpoints disagree"))
    done = world.rounds()
    assert world.sold == [{LINK.address}], "nothing is bought after it"
    assert done.kind is OutcomeKind.FAILED
    assert mentions(done.reason, "WBTC", "endpoints disagree", "LINK")
    assert world.late == (), "an endpoint's failure is no refusal"


def test_an_endpoint_s_failure_with_the_evidence_of_one_exit_does_not_end_the_step(worlds: Worlds) -> None:
    """Its token answers each endpoint otherwise, already when its transfers are tried out."""

    class Disputed(Sees):
        """Evidence that no two endpoints agree on for WBTC."""

        def gather(self, step: StepInput, plan: Plan) -> Evidence:
            """Evidence, unless WBTC is sold."""
            if any(leg.token_in == WBTC.address for leg in plan.legs):
                raise Retryable("no quorum on WBTC")
            return super().gather(step, plan)

    world = worlds(fired("LINK", "WBTC", values=HEAVIER, pools=ALL), lambda _: False)
    readers = replace(world.readers(), evidence_source=Disputed())
    done = engine.repeat_steps(StepPorts(readers, world.store, world.transactor()), AgentCycle())[1]
    assert world.sold == [{LINK.address}]
    assert done.kind is OutcomeKind.FAILED
    assert mentions(done.reason, "WBTC", "no quorum")
    with pytest.raises(Retryable, match="no quorum"):
        engine.repeat_steps(StepPorts(readers, world.store, world.transactor()), AgentCycle())[1]


def test_an_endpoint_s_failure_is_raised_where_nothing_was_sent(worlds: Worlds) -> None:
    world = worlds(fired("LINK", "WBTC", values=HEAVIER, pools=ALL), lambda _: False)
    failing_with(world, WBTC.address, Retryable("the first"))
    failing_with(world, LINK.address, Retryable("the second"))
    with pytest.raises(Retryable, match="the first"):
        world.rounds()
    assert world.sold == []
    assert len(world.asked) == 2


def test_an_endpoint_s_failure_ends_the_step_while_a_transaction_is_unfinished(worlds: Worlds) -> None:
    world = worlds(fired("LINK", "WBTC", values=HEAVIER, pools=ALL), lambda _: False)
    failing_with(world, WBTC.address, Retryable("sent, and not mined"))
    world.may_send = lambda: False  # type: ignore[method-assign]
    with pytest.raises(Retryable, match="not mined"):
        world.rounds()
    assert world.sold == []
    assert len(world.asked) == 1


def failing_with(world: World, token_in: str, why: Exception) -> None:
    """Make the executor fail with the sale of this token."""
    run = world.run

    def fails(step_id: str, kind: IntentKind, made: UnsignedTx, granted: Grant, note: str) -> Intent:
        if granted.plan is not None and any(leg.token_in == token_in for leg in granted.plan.legs):
            raise why
        return run(step_id, kind, made, granted, note)

    world.run = fails  # type: ignore[method-assign]


@pytest.mark.parametrize("guard", ["native_floor", "signer.gas_cost"])
def test_an_exit_whose_simulation_burns_too_much_gas_is_skipped_and_not_blamed(worlds: Worlds, guard: str) -> None:
    world = worlds(fired("LINK", "WBTC", values=HEAVIER, pools=ALL), lambda _: False)
    failing_with(world, WBTC.address, Refused("too much gas", (Verdict(guard, "9", "1", False),)))
    done = world.rounds()
    assert world.sold == [{LINK.address}]
    assert done.kind is OutcomeKind.DONE
    assert mentions(done.reason, "WBTC", "too much gas")
    assert world.late == ()
    assert world.rounds().kind is OutcomeKind.REFUSED, "with nothing else to sell"


def test_declining_one_exit_asks_about_the_next(worlds: Worlds) -> None:
    world = worlds(stops(["T0", "T1", "T2"]), lambda _: False)
    done = asked_about(world, lambda outcome: outcome.decision_result.exit_token != token("T0").address)
    assert world.sold == addresses("T1", "T2")
    assert done.kind is OutcomeKind.DONE
    assert [one.decision_result.exit_token for one in world.asked] == [token(one).address for one in ("T0", "T1", "T2")]
    assert mentions(done.reason, "T0", "confirmed")


def test_prices_that_are_confirmed_keep_the_progress_of_the_step(worlds: Worlds) -> None:
    """The preceding blocks change an order, so that the input is assembled again."""
    step = fired("LINK", values=HEAVIER, pools=ALL)
    fresh = replace(step.history, orders=replace(step.history.orders, states=()))
    world = worlds(replace(step, history=fresh, policy=replace(step.policy, confirm_blocks=1)), lambda _: False)
    asked: list[int] = []
    world.past_prices = lambda head, blocks: asked.append(blocks) or ()
    own = FuturesCycle(
        reduced_markets=("ETH",), order_divisors=(("ETH", 4),), reduction_goals=(("ETH", 5),), refused_s_by_market=(("BTC", NOW_S),)
    )
    cycle = new_cycle(AgentCycle(), NOW_S).with_layer(own).with_layer(LiquidityCycle(failed_withdrawal_pools=("pool",)))
    found, _ = engine._settle_and_read(world.readers(), world.store, cycle)
    assert asked == [1]
    assert futures_progress(found) == FuturesProgress(("ETH",), (("ETH", 5),), (("ETH", 4),))
    assert liquidity_progress(found).failed_withdrawal_pools == ("pool",)
    assert [one.exit_name for one in found.history.failures.failed_exits] == ["BTC"]


def test_declining_every_exit_sends_nothing_and_buys_nothing(worlds: Worlds) -> None:
    world = worlds(fired("LINK", "WBTC", values=HEAVIER, pools=ALL), lambda _: False)
    done = asked_about(world, lambda outcome: not outcome.decision_result.exit_token)
    assert world.sold == []
    assert done.kind is OutcomeKind.DECLINED
    assert mentions(done.reason, "confirmed", "nothing")
    assert len(world.asked) == 2, "what follows declined exits waits for the next cycle"


def asked_about(world: World, answer: Callable[[StepOutcome], bool]) -> StepOutcome:
    """The step with an owner who gives this answer."""

    def confirm(outcome: StepOutcome) -> bool:
        world.asked.append(outcome)
        return answer(outcome)

    return engine.repeat_steps(replace(world.ports(), transactor=replace(world.transactor(), confirm=confirm)), AgentCycle())[1]


def test_an_exit_follows_a_reverted_one_while_another_asset_has_no_price(worlds: Worlds) -> None:
    world = worlds(unpriced("WETH", "WBTC", values=HEAVIER), lambda _: False)
    world.fails = {WETH.address}
    done = world.rounds()
    assert world.sold == [{WETH.address}, {WBTC.address}]
    assert done.kind is OutcomeKind.FAILED
    assert mentions(done.reason, "LINK", "no reference price")


THROUGH = v2_pool(LINK, WBTC, Fraction(1, 5_950), 800)
"""Pays more for LINK, in WBTC, than SOUND pays in USDC."""


def through() -> StepInput:
    """The stop of LINK has fired, and is sold through WBTC at first."""
    step = fired("LINK", pools=(*MARKET, THROUGH, SOUND))
    assert moved(judged(step).plan) == {LINK.address, WBTC.address, USDC.address}
    return step


def test_a_token_on_the_route_of_an_exit_does_not_hold_it_up(worlds: Worlds) -> None:
    """It refuses the router, reverts where endpoints look, or burns gas; LINK is sold past it in the same step."""
    refused = worlds(through(), lambda sold: WBTC.address in sold)
    others = [refused]
    for why in (Retryable("no answer"), Refused("too much gas", (Verdict("native_floor", "9", "1", False),))):
        others.append(worlds(through(), lambda _: False))
        failing_with(others[-1], WBTC.address, why)
    for world in others:
        done = world.rounds()
        assert done.kind is OutcomeKind.DONE
        assert world.sold == [{LINK.address}]
        assert world.late == ()
        assert [one.decision_result.exit_token for one in world.asked] == [LINK.address] * 2, "what replaces it is confirmed"
    own = worlds(through(), lambda _: True)
    assert own.rounds().kind is OutcomeKind.HOLD
    assert len(own.asked) == 2, "LINK refuses as well"
    assert [(one.token, one.refusal_count) for one in own.late] == [(LINK.address, 1)], "counted once for both tries"


def test_an_exit_that_reverted_goes_past_the_token_on_its_route(worlds: Worlds) -> None:
    world = worlds(through(), lambda _: False)
    world.fails = {WBTC.address}
    assert [world.rounds().kind for _ in range(2)] == [OutcomeKind.FAILED, OutcomeKind.DONE]
    assert world.sold == [{LINK.address, WBTC.address}, {LINK.address}]


def test_guards_that_refuse_a_route_of_an_exit_leave_it_the_direct_one() -> None:
    pushed = v2_pool(WBTC, USDC, 66_000, 50_000_000)
    step = fired("LINK", pools=(MARKET[0], pushed, THROUGH, SOUND))
    first = evaluation.evaluate_input_once(step, proposals.propose_rebalance, Sees(), "abc")
    assert first.kind is OutcomeKind.REFUSED
    assert WBTC.address in moved(first.plan)
    found = judged(step)
    assert found.kind is OutcomeKind.PLANNED
    assert moved(found.plan) == {LINK.address, USDC.address}
    again = codec.loads(StepInput, codec.dumps(found.step_input))
    assert evaluation.evaluate_input_once(again, proposals.propose_rebalance, Sees(), "abc").plan == found.plan, "a replay plans the same"


def test_a_disputed_token_on_the_route_of_an_exit_does_not_hold_it_up(worlds: Worlds) -> None:
    """Endpoints answer differently already when its transfers are tried out."""

    class Disputed(Sees):
        """Evidence that no two endpoints agree on for WBTC."""

        def gather(self, step: StepInput, plan: Plan) -> Evidence:
            """Evidence, unless WBTC is touched."""
            if WBTC.address in moved(plan):
                raise Retryable("no quorum on WBTC")
            return super().gather(step, plan)

    world = worlds(through(), lambda _: False)
    readers = replace(world.readers(), evidence_source=Disputed())
    done = engine.repeat_steps(StepPorts(readers, world.store, world.transactor()), AgentCycle())[1]
    assert done.kind is OutcomeKind.DONE
    assert world.sold == [{LINK.address}]
