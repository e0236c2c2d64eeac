"""Exits of one step, each a transaction of its own: what is refused or reverts is skipped, and what follows is confirmed by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import Mock

import pytest

from agent import codec, engine, guards
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.execution import approvals, evaluation
from agent.execution.confirmation import confirmation_of, require_exit_possible
from agent.execution.cycle_outcome import unsent_phrase
from agent.execution.resumption import new_cycle
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.state import FuturesCycle, FuturesProgress, futures_progress
from agent.layers.liquidity.state import LiquidityCycle, liquidity_progress
from agent.model import (
    AgentCycle,
    ConditionalOrder,
    Confirmation,
    Evidence,
    ExitFailures,
    Holding,
    Intent,
    IntentKind,
    OrdersConfig,
    Plan,
    StepInput,
    TokenRefusal,
    UnsignedTx,
    Verdict,
)
from agent.planning import proposals, requests
from agent.policy.decide import decide
from agent.policy.orders.exits import apply_orders
from agent.ports import Approval, Grant, PreparedTransaction
from agent.store import open_store
from agent.store.accounts.budgets import BudgetStore
from agent.units import Token
from tests.support.builders import NOW_S, OWNER, token, v2_pool, with_history, with_limits, with_snapshot
from tests.support.decisions.exits import (
    FIRED,
    LINK,
    MARKET,
    OFF,
    SOUND,
    STOP,
    USDC,
    WBTC,
    WETH,
    outcome_of,
    sold_symbols,
    step_with_stops,
    step_with_unpriced_stop,
)
from tests.support.decisions.exits_of_a_step import HEAVIER, step_with_equal_stops
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.lp_worlds import lp_target, paired, quiet, ranged, v2_at, v3_at
from tests.support.lp_worlds import world as world_with
from tests.support.plans import evidence
from tests.support.refusal_worlds import NO, World
from tests.support.standing_orders import price_of, terms
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, grant, tx

ALL = (*MARKET, SOUND)
LINK_STOP = step_with_stops("LINK", pools=ALL)
TWO_STOPS = step_with_stops("LINK", "WBTC", pools=ALL)
HEAVY_STOPS = step_with_stops("LINK", "WBTC", values=HEAVIER, pools=ALL)
"""The stops of LINK and WBTC have fired, and WETH is to be sold besides."""
T0, T1, T2, T3, T4 = (token(f"T{number}").address for number in range(5))
REBALANCE = ""
Worlds = Callable[..., World]


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Worlds]:
    """Worlds, each with a store of its own; no simulation reverts by default."""
    with ExitStack() as stores:

        def world_of(step: StepInput, reverts: Callable[[set[str]], bool] = lambda _: False, lacks: Sequence[str] = ()) -> World:
            store = open_store(f"sqlite:///{tmp_path / f'{next(number)}.db'}", CHAIN_ID, OWNER, step.portfolio.wrapped_native)
            stores.callback(store.close)
            return World(store, step, reverts, lacks)

        number = count()
        yield world_of


def sales(*tokens: str) -> list[set[str]]:
    """Return transactions that each sell one of these tokens."""
    return [{token} for token in tokens]


def confirmed_exits(world: World) -> list[str]:
    """Return the token of each exit that the owner confirmed, "" for a rebalance."""
    return [outcome.decision_result.exit_token for outcome in world.asked]


def refused_tokens(world: World) -> list[str]:
    return [refusal.token for refusal in world.late]


def fail_sale_of(world: World, token_in: str, error: Exception) -> None:
    """Make the executor fail with the sale of this token."""
    run = world.run

    def run_or_fail(step_id: str, unsigned: UnsignedTx, granted: Grant, note: str) -> Intent:
        if granted.plan is not None and any(leg.token_in == token_in for leg in granted.plan.legs):
            raise error
        return run(step_id, unsigned, granted, note)

    world.run = run_or_fail  # type: ignore[method-assign]


def run_cycle(
    world: World, evidence_source: FakeEvidenceSource | None = None, confirm: Callable[[StepOutcome], bool] | None = None
) -> StepOutcome:
    """Run a cycle with this evidence, or with an owner who answers so."""
    ports = world.ports()
    if evidence_source is not None:
        ports = replace(ports, readers=replace(ports.readers, evidence_source=evidence_source))
    if confirm is not None:

        def record_and_confirm(outcome: StepOutcome) -> bool:
            world.asked.append(outcome)
            return confirm(outcome)

        ports = replace(ports, transactor=replace(ports.transactor, confirm=record_and_confirm))
    return engine.repeat_steps(ports, AgentCycle())[1]


def on_approval(world: World, change: Callable[[], None]) -> None:
    """Let an approval take effect and then change the world."""

    def approve(token: str, _raw: int) -> None:
        world.lacks.discard(token)
        change()

    world.approved = approve


# --- One after another


def test_exits_are_sold_and_confirmed_one_by_one(worlds: Worlds) -> None:
    world = worlds(step_with_equal_stops(["T0", "T1", "T2"]))

    outcome = world.rounds()

    assert outcome.kind is OutcomeKind.DONE
    assert world.sold == sales(T0, T1, T2)
    assert confirmed_exits(world) == [T0, T1, T2]
    assert [len(outcome.exits_tried) for outcome in world.asked] == [0, 1, 2], "each confirmation covers one exit"
    assert len({intent.step_id for intent in outcome.transactions}) == 3, "each has a step of its own in the journal"
    assert mentions(outcome.reason, "exits", "T0, T1, T2")
    assert world.rounds().kind is OutcomeKind.HOLD
    assert len(world.sold) == 3


def test_exit_refused_at_submission_does_not_delay_others(worlds: Worlds) -> None:
    world = worlds(step_with_equal_stops(["T0", "T1", "T2", "T3", "T4"]), lambda sold: T0 in sold)

    outcome = world.rounds()

    assert outcome.kind is OutcomeKind.DONE, outcome.reason
    assert world.sold == sales(T1, T2, T3, T4)
    assert refused_tokens(world) == [T0]
    assert [blocked_exit.token for blocked_exit in outcome.decision_result.blocked_exits] == [T0]
    assert mentions(outcome.reason, "T0", "refused")


def test_exits_are_all_tried_though_many_are_refused(worlds: Worlds) -> None:
    last = token("T8").address
    world = worlds(step_with_equal_stops([f"T{number}" for number in range(9)]), lambda sold: sold != {last})

    world.rounds()

    assert world.sold == sales(last)
    assert len(world.late) == 8


def test_exit_that_reverts_fails_the_step_but_not_the_next(worlds: Worlds) -> None:
    world = worlds(HEAVY_STOPS)
    world.fails = {WBTC.address}

    outcome = world.rounds()

    assert world.sold == sales(WBTC.address, LINK.address)
    assert outcome.kind is OutcomeKind.FAILED
    assert mentions(outcome.reason, "exits", "LINK")
    assert len(world.asked) == 2, "a rebalance waits for the next cycle"
    assert world.late == (), "a revert is no refusal"


def test_exit_rest_above_the_limits_waits_for_the_next_cycle(worlds: Worlds) -> None:
    shallow = (MARKET[0], v2_pool(WBTC, USDC, 60_000, 1_000_000), SOUND)
    world = worlds(with_limits(step_with_stops("LINK", "WBTC", pools=shallow), price_impact_bps=50))

    outcome = world.rounds()

    assert world.sold == sales(WBTC.address, LINK.address), "once in each step"
    assert outcome.kind is OutcomeKind.DONE
    assert outcome.decision_result.blocked_exits == (), "it was sold as far as it could be"
    world.rounds()
    assert world.sold[2:] == sales(WBTC.address)


# --- Who is blamed


def test_sold_exit_proves_that_another_refused_itself(worlds: Worlds) -> None:
    """LINK is refused when sent, what is rebalanced besides is refused too, and WBTC is sold."""
    world = worlds(HEAVY_STOPS, lambda sold: bool(sold & {LINK.address, WETH.address}))

    outcome = world.rounds()

    assert world.sold == sales(WBTC.address)
    assert refused_tokens(world) == [LINK.address]
    assert outcome.kind is OutcomeKind.DONE
    assert "simulated: no" in outcome.reason


def test_exits_all_refused_are_not_blamed(worlds: Worlds) -> None:
    """The router, or an endpoint, refuses: that says nothing against an exit."""
    world = worlds(HEAVY_STOPS, lambda _: True)
    earlier = (TokenRefusal(WBTC.address, NOW_S - 60, 2, "earlier"),)
    world.store.budgets.mark_submission_refusals(earlier)

    outcome = world.rounds()

    assert outcome.kind is OutcomeKind.REFUSED
    assert world.sold == []
    assert world.late == earlier
    assert confirmed_exits(world) == [LINK.address, WBTC.address, REBALANCE], "refused less often first"


def test_cycle_raises_the_error_not_that_of_its_records_after(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_from_here_on(*_: object) -> None:
        monkeypatch.setattr(BudgetStore, "mark_submission_refusals", Mock(side_effect=OperatorNeeded("store: no room")))
        raise Retryable("no endpoint answers")

    world = worlds(LINK_STOP, lambda _: True)
    monkeypatch.setattr(world, "reconcile", lambda: None, raising=False)
    monkeypatch.setattr(approvals, "revoke_leftovers", fail_from_here_on)

    with pytest.raises(Retryable, match="no endpoint answers"):
        engine.run_cycle(world.readers(), AgentCycle(), world.store, world.transactor())


def test_only_exit_refused_is_blamed(worlds: Worlds) -> None:
    world = worlds(LINK_STOP, lambda _: True)

    world.rounds()

    assert refused_tokens(world) == [LINK.address]


def test_reverts_move_an_exit_behind_a_refused_one() -> None:
    """LINK was refused at submission an hour ago and is sound again; WBTC reverts every time: LINK has its turn."""
    refusals = (TokenRefusal(LINK.address, NOW_S - 7_200, 1, "refused"),)

    first_exits = [
        decide(
            with_history(
                TWO_STOPS,
                failed_exits=(ExitFailures(WBTC.address, reverts, 0, NOW_S - 7_200),),
                submission_refusals=refusals,
            )
        ).exit_token
        for reverts in range(4)
    ]

    assert first_exits == [WBTC.address, WBTC.address, LINK.address, LINK.address]


def test_three_reverted_exits_silence_no_other(worlds: Worlds) -> None:
    world = worlds(step_with_equal_stops(["T0", "T1", "T2", "T3", "T4"]))
    world.fails = {T0, T1, T2}

    outcome = world.rounds()

    assert world.sold == sales(T0, T1, T2, T3, T4)
    assert outcome.kind is OutcomeKind.FAILED
    failures = world.store.budgets.history(NOW_S).failures
    assert failures.is_stopped
    assert [failure.revert_count for failure in failures.failed_exits] == [1, 1, 1], "rebalances wait, exits do not"


def set_time(world: World, now_s: int) -> None:
    """Show the same market later, with fresh feeds."""
    snapshot = world.step.snapshot
    feeds = tuple(replace(feed, updated_at_s=now_s - 60, started_at_s=now_s - 60) for feed in snapshot.feeds)
    world.step = replace(world.step, snapshot=replace(snapshot, now_s=now_s, head=replace(snapshot.head, timestamp_s=now_s), feeds=feeds))


def test_token_that_keeps_reverting_delays_no_other_stop(worlds: Worlds) -> None:
    """WBTC reverts in every cycle; LINK's first two tries are refused, then it is sound: its next try sells it."""
    cycle = 0
    world = worlds(HEAVY_STOPS, lambda sold: cycle < 2 and LINK.address in sold)
    world.fails = {WBTC.address}

    for cycle in range(6):  # the world reads it
        set_time(world, NOW_S + 60 * cycle)
        world.rounds()

    assert world.sold[:4] == [*sales(WBTC.address) * 3, {LINK.address}], "in its third cycle"
    assert world.sold[4:] == sales(WBTC.address) * 2, "WBTC waits after its third revert"


# --- Approvals


def test_plan_after_a_refused_exit_has_no_caps_of_it(worlds: Worlds) -> None:
    """Neither caps nor gas: with caps it would count as continued after approvals, and go at once where it is to go in rounds."""
    step = step_with_stops("LINK", values=HEAVIER, pools=ALL)
    world = worlds(step, lambda sold: LINK.address in sold, lacks=(LINK.address,))

    world.rounds()

    first, second = world.asked
    assert first.plan.is_exit
    assert second.exits_tried == (LINK.address,)
    assert second.step_input.progress.spend_caps == ()
    assert second.step_input.progress.spent_gas_wei == 0
    assert len(world.sold) == 1
    assert LINK.address not in world.sold[0]


@pytest.mark.parametrize(
    ("symbols", "sold"),
    [pytest.param(("LINK",), [], id="alone"), pytest.param(("LINK", "WBTC"), sales(WBTC.address), id="with another")],
)
def test_token_that_spoils_its_market_is_left_out(worlds: Worlds, symbols: tuple[str, ...], sold: list[set[str]]) -> None:
    """Alone as well: steps that only approved, and count in a row of such, end all trading after a while."""
    world = worlds(step_with_stops(*symbols, pools=ALL), lacks=(LINK.address,))
    on_approval(world, lambda: setattr(world, "step", step_with_stops(*symbols, pools=(*MARKET, OFF))))

    outcome = world.rounds()

    assert world.sold == sold
    assert LINK.address in outcome.exits_tried
    assert len(world.asked) == len(symbols)
    assert refused_tokens(world) == [LINK.address], "its approvals count in no row, and it rests in the end"


def test_tokens_that_ignore_approvals_are_left_out(worlds: Worlds) -> None:
    world = worlds(step_with_equal_stops(["T0", "T1", "T2"]), lacks=(T0, T1))
    approved_tokens: list[str] = []
    world.approved = lambda token, _raw: approved_tokens.append(token)

    outcome = world.rounds()

    assert world.sold == sales(T2)
    assert outcome.exits_tried == (T2, T0, T1)
    assert approved_tokens == [T0, T0, T1, T1]
    assert len(world.late) == 2


def test_exit_fired_meanwhile_is_confirmed_first(worlds: Worlds) -> None:
    world = worlds(LINK_STOP, lacks=(LINK.address,))

    def fire_second_stop() -> None:
        world.step = TWO_STOPS
        version = world.store.budgets.history(NOW_S).orders.version
        assert world.store.orders.replace_orders(TWO_STOPS.history.orders.states, None, version)

    on_approval(world, fire_second_stop)
    world.rounds()

    assert world.sold == sales(WBTC.address, LINK.address)
    assert confirmed_exits(world) == [LINK.address, WBTC.address, LINK.address]
    assert world.asked[1].step_input.progress.spend_caps == ()


@pytest.mark.parametrize(
    ("sent_kinds", "phrase"),
    [
        pytest.param([], "nothing was", id="nothing"),
        pytest.param([IntentKind.APPROVE], "only approvals were", id="an approval"),
        pytest.param([IntentKind.APPROVE, IntentKind.LIQUIDITY], "nothing more was", id="an approval and an action"),
        pytest.param([IntentKind.SWAP], "nothing more was", id="a swap"),
    ],
)
def test_unsent_phrase_tells_approvals_from_actions(sent_kinds: list[IntentKind], phrase: str) -> None:
    assert unsent_phrase(sent_kinds) == phrase


@pytest.mark.parametrize(
    ("limits", "kind", "confirmed", "sold"),
    [
        pytest.param({}, OutcomeKind.HALT, [LINK.address], [], id="with limits that watch"),
        pytest.param(
            {"balance_jump_bps": None, "daily_loss_bps": None},
            OutcomeKind.DONE,
            [LINK.address, REBALANCE],
            [{WETH.address, WBTC.address}],
            id="without limits that watch",
        ),
    ],
)
def test_plan_after_a_vanished_exit_is_confirmed_anew(
    worlds: Worlds, limits: dict[str, None], kind: OutcomeKind, confirmed: list[str], sold: list[set[str]]
) -> None:
    """A yes to an exit is none to the rebalance that comes to be due once its token hides its balance; where limits watch for that,
    nothing but exits goes on.
    """
    with_link, without_link = (
        with_limits(step_with_stops("LINK", values={"WETH": 3_000, "WBTC": 3_000, "LINK": value, "USDC": 2_000}, pools=ALL), **limits)
        for value in (2_000, 0)
    )
    world = worlds(with_link, lacks=(LINK.address,))
    on_approval(world, lambda: setattr(world, "step", without_link))

    outcome = world.rounds()

    assert outcome.exits_tried == (LINK.address,)
    assert mentions(outcome.reason, "LINK", "wallet")
    assert confirmed_exits(world) == confirmed
    assert world.sold == sold
    assert outcome.kind is kind


# --- Allowances that are taken back


def open_allowances(*assets: Token) -> list[Approval]:
    return [Approval(asset.address, "router", 0, asset.symbol, "router") for asset in assets]


def test_revocation_goes_on_past_a_refusing_token(worlds: Worlds) -> None:
    world = worlds(TWO_STOPS)
    world.left = open_allowances(LINK, WBTC)
    approve = world.approval_transaction

    def approve_or_refuse(step: StepInput, approval: Approval) -> PreparedTransaction:
        if approval.token == LINK.address:
            raise Refused("the token says no")
        return approve(step, approval)

    world.approval_transaction = approve_or_refuse  # type: ignore[method-assign]
    outcome = world.tidy(OutcomeKind.DONE, "done")

    assert [intent.tx.to for intent in outcome.transactions] == [WBTC.address]
    assert mentions(outcome.reason, "done", "allowances", "LINK")


@pytest.mark.parametrize("cycles_before", [0, 1], ids=["nothing was sent", "a swap was sent"])
def test_revocation_gas_is_booked_before_the_step_ends(worlds: Worlds, cycles_before: int) -> None:
    world = worlds(LINK_STOP)
    for _ in range(cycles_before):
        world.step = world.rounds().step_input
    world.left = open_allowances(LINK)

    outcome = world.tidy(OutcomeKind.HOLD, "holds")

    assert [intent.tx.to for intent in outcome.transactions] == [LINK.address]
    assert list(world.store.journal.unbooked_intents()) == []


ZERO_OF_LINK = (LINK.address, "router", 0)
ZERO_OF_WBTC = (WBTC.address, "router", 0)


@pytest.mark.parametrize(
    ("earlier_terms", "revoked"),
    [
        pytest.param([ZERO_OF_LINK, ZERO_OF_LINK, ZERO_OF_WBTC, ZERO_OF_LINK], [WBTC.address], id="three times"),
        pytest.param([ZERO_OF_LINK] * 2, [LINK.address, WBTC.address], id="twice"),
        pytest.param(
            [*[ZERO_OF_LINK] * 2, (LINK.address, "router", 5), ZERO_OF_LINK], [LINK.address, WBTC.address], id="another amount between"
        ),
        pytest.param([(LINK.address, "other", 0)] * 3, [LINK.address, WBTC.address], id="of another spender"),
    ],
)
def test_allowance_reset_three_times_in_vain_is_left(worlds: Worlds, earlier_terms: list[tuple[str, str, int]], revoked: list[str]) -> None:
    """Each look would send one more, and steps of approvals alone end all trading, the stops of others too."""
    world = worlds(TWO_STOPS)
    world.left = open_allowances(LINK, WBTC)
    world.store.steps.begin("before", NOW_S, codec.dumps(world.step))
    for approval_terms in earlier_terms:
        granted = replace(grant(IntentKind.APPROVE), approval_terms=approval_terms)
        world.mined("before", replace(tx(0), to=approval_terms[0]), granted, "")

    outcome = world.tidy(OutcomeKind.HOLD, "holds")

    assert [intent.tx.to for intent in outcome.transactions] == revoked
    assert mentions(outcome.reason, "router", "LINK", "3 times") is (LINK.address not in revoked)


# --- Liquidity


class Withdrawn(Exception):
    """Liquidity was about to be withdrawn."""


def pool_and_wallet_step() -> StepInput:
    """Return a step in which the stops of WETH, all in a pool, and of LINK, all in the wallet, have fired."""
    step = world_with(
        [ranged(2_000, 1_600, 2_500)],
        [lp_target(2_000)],
        values={"WETH": 0, "LINK": 4_000, "USDC": 4_000},
        trigger=quiet(),
        targets_bps={"WETH": 3_000, "LINK": 3_000, "USDC": 4_000},
        prices={"LINK": 10},
    )
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None, price_impact_bps=500)
    order_terms = (terms("WETH", STOP, 2_100), terms("LINK", STOP, 1))
    orders = tuple(
        ConditionalOrder(order.token, STOP, FIRED, order, 1, price_of(symbol, high), None, price_of(symbol, low))
        for order, symbol, high, low in zip(order_terms, ("WETH", "LINK"), (2_500, 20), (2_000, 10), strict=True)
    )
    portfolio = replace(step.portfolio, orders=OrdersConfig(order_terms))
    return apply_orders(replace(with_history(step, states=orders), portfolio=portfolio))


@pytest.mark.parametrize(("earlier_reverts", "sale_count"), [(0, 1), (5, 0)], ids=["first revert", "after five reverts"])
def test_stop_of_a_pooled_asset_follows_a_reverted_exit(worlds: Worlds, earlier_reverts: int, sale_count: int) -> None:
    """LINK waits after five reverts, the pool does not."""
    world = worlds(pool_and_wallet_step())
    world.fails = {LINK.address}

    def withdraw(_step: StepInput, _plan: Plan) -> PreparedTransaction:
        raise Withdrawn

    world.layer_transaction = withdraw  # type: ignore[attr-defined]
    plan = outcome_of(pool_and_wallet_step()).plan
    for number in range(earlier_reverts):
        world.store.steps.begin(f"e{number}", NOW_S, "{}")
        world.mined("e0", tx(0), replace(grant(), plan=plan), "swap")

    with pytest.raises(Withdrawn):
        world.rounds()
    assert len(world.sold) == sale_count


@pytest.mark.parametrize(
    ("guard", "limit_bps"),
    [pytest.param("lp_max_weight", 100, id="share of liquidity"), pytest.param("impermanent_loss", 1, id="impermanent loss")],
)
def test_liquidity_above_its_limits_refuses_no_exit(guard: str, limit_bps: int) -> None:
    """Exits come before its withdrawal, so that neither would ever be sent; a blocked exit alone lifts the share of liquidity."""
    outcome = outcome_of(with_limits(pool_and_wallet_step(), **{f"{guard}_bps": limit_bps}))

    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.decision_result.exit_token == LINK.address
    assert all(verdict.passed for verdict in outcome.plan.verdicts)
    assert ["not applied to an exit" in verdict.measured_text for verdict in outcome.plan.verdicts if verdict.guard == guard] == [True]
    rebalance = replace(outcome.plan, decision=replace(outcome.plan.decision, is_exit=False))  # type: ignore[type-var]  # a rebalance
    verdicts = guards.judge(outcome.step_input, rebalance, evidence(outcome.step_input, rebalance))
    assert [verdict.passed for verdict in verdicts if verdict.guard == guard] == [False], "a rebalance waits for it"


def refuse(*_: object) -> Intent:
    raise NO


def revert(world: World, step_id: str, unsigned: UnsignedTx, granted: Grant, note: str) -> Intent:
    """Mine the transaction of a world in which sales of LINK fail as such a sale."""
    return world.mined(step_id, unsigned, replace(granted, plan=outcome_of(LINK_STOP).plan), note)


@pytest.mark.parametrize(("fail", "words"), [(refuse, "simulated: no"), (revert, "ended reverted")], ids=["refused", "reverted"])
def test_failed_withdrawal_does_not_delay_another_pool(worlds: Worlds, fail: Callable[..., Intent], words: str) -> None:
    first_pool = v3_at()
    second_pool = v2_at()
    step = world_with(
        [ranged(2_000, 1_600, 2_500), paired(1_000)],
        [lp_target(2_000), lp_target(1_000, second_pool)],
        values={"WETH": 0, "USDC": 7_000},
        trigger=quiet(),
    )
    stop = terms("WETH", STOP, 2_100)
    order = ConditionalOrder(stop.token, STOP, FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
    step = replace(with_history(step, states=(order,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,))))
    world = worlds(apply_orders(step))
    tried_pools: list[str] = []

    def withdraw(step: StepInput, plan: Plan) -> PreparedTransaction:
        tried_pools.append(plan.layer_actions[0].pool)
        if tried_pools[-1] == second_pool.address:
            raise Refused("no price", (Verdict("signer.min_out", "1", "2", False),))
        return PreparedTransaction(tx(step.snapshot.nonce_latest), replace(grant(IntentKind.LIQUIDITY), plan=plan), "withdrawal")

    world.layer_transaction = withdraw  # type: ignore[attr-defined]
    world.run = partial(fail, world)  # type: ignore[method-assign]
    world.fails = {LINK.address}
    outcome = world.rounds()

    assert tried_pools == [first_pool.address, second_pool.address]
    assert outcome.kind is OutcomeKind.REFUSED
    assert mentions(outcome.reason, "no price", words)


def test_wallet_is_sold_while_liquidity_cannot_be_withdrawn() -> None:
    """A stranger pushes its pool; `stop --to-stable` sells the rest and then says so."""
    step = pool_and_wallet_step()
    pushed_pool = v3_at(Fraction(11, 10))
    pools = tuple(pushed_pool if pool.address == pushed_pool.address else pool for pool in step.snapshot.pools)
    position = ranged(2_000, 1_600, 2_500, pool=pushed_pool)
    step = replace(with_history(step, states=()), snapshot=replace(step.snapshot, pools=pools, positions=(position,)))

    sale = evaluation.evaluate_input(step, requests.propose_selling_everything, FakeEvidenceSource(), "abc")
    last = evaluation.evaluate_input(without_balance(step, LINK), requests.propose_selling_everything, FakeEvidenceSource(), "abc")

    assert sale.kind is OutcomeKind.PLANNED
    assert sale.decision_result.exit_token == LINK.address
    assert last.kind is OutcomeKind.REFUSED
    assert mentions(last.reason, "not withdrawn: its pool", "off the reference")


def without_balance(step: StepInput, asset: Token) -> StepInput:
    holdings = tuple(replace(holding, raw=0) if holding.token == asset.address else holding for holding in step.snapshot.holdings)
    return replace(step, snapshot=replace(step.snapshot, holdings=holdings))


# --- Endpoints that fail


def disputed_evidence(disputes: Callable[[Plan], bool]) -> FakeEvidenceSource:
    """Return evidence on which no two endpoints agree for the plans that `disputes` finds."""

    def require_quorum(plan: Plan, plain: Evidence) -> Evidence:
        if disputes(plan):
            raise Retryable("no quorum on WBTC")
        return plain

    return FakeEvidenceSource(require_quorum)


def test_endpoint_failure_with_one_exit_spares_the_others(worlds: Worlds) -> None:
    world = worlds(HEAVY_STOPS)
    fail_sale_of(world, WBTC.address, Retryable("endpoints disagree"))

    outcome = world.rounds()

    assert world.sold == sales(LINK.address), "nothing is bought after it"
    assert outcome.kind is OutcomeKind.FAILED
    assert mentions(outcome.reason, "WBTC", "endpoints disagree", "LINK")
    assert world.late == (), "an endpoint's failure is no refusal"


def test_evidence_failure_of_one_exit_spares_the_others(worlds: Worlds) -> None:
    """Its token answers each endpoint otherwise, already when its transfers are tried out."""
    disputed = disputed_evidence(lambda plan: any(leg.token_in == WBTC.address for leg in plan.legs))
    world = worlds(HEAVY_STOPS)

    outcome = run_cycle(world, disputed)

    assert world.sold == sales(LINK.address)
    assert outcome.kind is OutcomeKind.FAILED
    assert mentions(outcome.reason, "WBTC", "no quorum")
    with pytest.raises(Retryable, match="no quorum"):
        run_cycle(world, disputed)


def test_endpoint_failure_is_raised_if_nothing_was_sent(worlds: Worlds) -> None:
    world = worlds(HEAVY_STOPS)
    fail_sale_of(world, WBTC.address, Retryable("the first"))
    fail_sale_of(world, LINK.address, Retryable("the second"))

    with pytest.raises(Retryable, match="the first"):
        world.rounds()
    assert world.sold == []
    assert len(world.asked) == 2


def test_endpoint_failure_ends_the_step_beside_an_open_one(worlds: Worlds) -> None:
    world = worlds(HEAVY_STOPS)
    fail_sale_of(world, WBTC.address, Retryable("sent, and not mined"))
    world.may_send = lambda: False  # type: ignore[method-assign]

    with pytest.raises(Retryable, match="not mined"):
        world.rounds()
    assert world.sold == []
    assert len(world.asked) == 1


@pytest.mark.parametrize("guard", ["native_floor", "signer.gas_cost"])
def test_exit_that_burns_too_much_gas_is_skipped_unblamed(worlds: Worlds, guard: str) -> None:
    world = worlds(HEAVY_STOPS)
    fail_sale_of(world, WBTC.address, Refused("too much gas", (Verdict(guard, "9", "1", False),)))

    outcome = world.rounds()

    assert world.sold == sales(LINK.address)
    assert outcome.kind is OutcomeKind.DONE
    assert mentions(outcome.reason, "WBTC", "too much gas")
    assert world.late == ()
    assert world.rounds().kind is OutcomeKind.REFUSED, "with nothing else to sell"


# --- Confirmations


def test_declined_exit_is_followed_by_the_next(worlds: Worlds) -> None:
    world = worlds(step_with_equal_stops(["T0", "T1", "T2"]))

    outcome = run_cycle(world, confirm=lambda outcome: outcome.decision_result.exit_token != T0)

    assert world.sold == sales(T1, T2)
    assert outcome.kind is OutcomeKind.DONE
    assert confirmed_exits(world) == [T0, T1, T2]
    assert mentions(outcome.reason, "T0", "confirmed")


def test_declined_exits_send_and_buy_nothing(worlds: Worlds) -> None:
    world = worlds(HEAVY_STOPS)

    outcome = run_cycle(world, confirm=lambda outcome: not outcome.decision_result.exit_token)

    assert world.sold == []
    assert outcome.kind is OutcomeKind.DECLINED
    assert mentions(outcome.reason, "confirmed", "nothing")
    assert len(world.asked) == 2, "what follows declined exits waits for the next cycle"


def test_confirmed_prices_keep_the_progress_of_the_step(worlds: Worlds) -> None:
    """The preceding blocks change an order, so that the input is assembled again."""
    step = step_with_stops("LINK", values=HEAVIER, pools=ALL)
    without_orders = replace(step.history, orders=replace(step.history.orders, states=()))
    world = worlds(replace(step, history=without_orders, policy=replace(step.policy, confirm_blocks=1)))
    block_counts: list[int] = []
    world.past_prices = lambda head, blocks: block_counts.append(blocks) or ()
    futures = FuturesCycle(
        reduced_markets=("ETH",), order_divisors=(("ETH", 4),), reduction_goals=(("ETH", 5),), refused_s_by_market=(("BTC", NOW_S),)
    )
    cycle = new_cycle(AgentCycle(), NOW_S).with_layer(futures).with_layer(LiquidityCycle(failed_withdrawal_pools=("pool",)))

    step_input, _ = engine._settle_and_read(world.readers(), world.store, cycle)

    assert block_counts == [1]
    assert futures_progress(step_input) == FuturesProgress(("ETH",), (("ETH", 5),), (("ETH", 4),))
    assert liquidity_progress(step_input).failed_withdrawal_pools == ("pool",)
    assert [failure.exit_name for failure in step_input.history.failures.failed_exits] == ["BTC"]


# --- Routes


def test_exit_follows_a_reverted_one_beside_an_unpriced_asset(worlds: Worlds) -> None:
    world = worlds(step_with_unpriced_stop("WETH", "WBTC", values=HEAVIER))
    world.fails = {WETH.address}

    outcome = world.rounds()

    assert world.sold == sales(WETH.address, WBTC.address)
    assert outcome.kind is OutcomeKind.FAILED
    assert mentions(outcome.reason, "LINK", "no reference price")


THROUGH = v2_pool(LINK, WBTC, Fraction(1, 5_950), 800)
"""Pays more for LINK, in WBTC, than SOUND pays in USDC."""
ROUTED_STOP = step_with_stops("LINK", pools=(*MARKET, THROUGH, SOUND))
"""The stop of LINK has fired, and is sold through WBTC at first."""


def test_exit_is_routed_through_the_better_pool() -> None:
    assert sold_symbols(outcome_of(ROUTED_STOP).plan) == {LINK.address, WBTC.address, USDC.address}


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(NO, id="refused"),
        pytest.param(Retryable("no answer"), id="no answer"),
        pytest.param(Refused("too much gas", (Verdict("native_floor", "9", "1", False),)), id="too much gas"),
    ],
)
def test_refusing_token_on_the_route_does_not_delay_an_exit(worlds: Worlds, error: Exception) -> None:
    world = worlds(ROUTED_STOP)
    fail_sale_of(world, WBTC.address, error)

    outcome = world.rounds()

    assert outcome.kind is OutcomeKind.DONE
    assert world.sold == sales(LINK.address)
    assert world.late == ()
    assert confirmed_exits(world) == [LINK.address] * 2, "what replaces it is confirmed"


def test_exit_refused_on_both_routes_counts_once(worlds: Worlds) -> None:
    world = worlds(ROUTED_STOP, lambda _: True)

    assert world.rounds().kind is OutcomeKind.HOLD

    assert len(world.asked) == 2
    assert [(refusal.token, refusal.refusal_count) for refusal in world.late] == [(LINK.address, 1)]


def test_reverted_exit_goes_past_the_token_on_its_route(worlds: Worlds) -> None:
    world = worlds(ROUTED_STOP)
    world.fails = {WBTC.address}

    kinds = [world.rounds().kind for _ in range(2)]

    assert kinds == [OutcomeKind.FAILED, OutcomeKind.DONE]
    assert world.sold == [{LINK.address, WBTC.address}, {LINK.address}]


def test_refused_route_leaves_an_exit_the_direct_one() -> None:
    pushed_pool = v2_pool(WBTC, USDC, 66_000, 50_000_000)
    step = step_with_stops("LINK", pools=(MARKET[0], pushed_pool, THROUGH, SOUND))

    first = evaluation.evaluate_input_once(step, proposals.propose_rebalance, FakeEvidenceSource(), "abc")
    outcome = outcome_of(step)

    assert first.kind is OutcomeKind.REFUSED
    assert WBTC.address in sold_symbols(first.plan)
    assert outcome.kind is OutcomeKind.PLANNED
    assert sold_symbols(outcome.plan) == {LINK.address, USDC.address}
    stored_step = codec.loads(StepInput, codec.dumps(outcome.step_input))
    replayed = evaluation.evaluate_input_once(stored_step, proposals.propose_rebalance, FakeEvidenceSource(), "abc")
    assert replayed.plan == outcome.plan, "a replay plans the same"


def test_disputed_token_on_the_route_does_not_delay_an_exit(worlds: Worlds) -> None:
    """Endpoints answer differently already when its transfers are tried out."""
    world = worlds(ROUTED_STOP)

    outcome = run_cycle(world, disputed_evidence(lambda plan: WBTC.address in sold_symbols(plan)))

    assert outcome.kind is OutcomeKind.DONE
    assert world.sold == sales(LINK.address)


(SOLD_RAW,) = (holding.raw for holding in step_with_stops("WBTC").snapshot.holdings if holding.token == WBTC.address)


def look_after_confirming(holdings: Sequence[Holding]) -> tuple[Confirmation, StepOutcome]:
    """Return the confirmation of an exit from WBTC, and the next outcome, of a wallet with these holdings of it."""
    sold = outcome_of(step_with_stops("WBTC"))
    assert sold.plan is not None
    confirmation = confirmation_of(sold, sold.plan)
    others = [holding for holding in sold.step_input.snapshot.holdings if holding.token != WBTC.address]
    step = with_snapshot(sold.step_input, holdings=(*others, *holdings))
    return confirmation, replace(sold, step_input=step, decision_result=replace(sold.decision_result, exit_token=""))


@pytest.mark.parametrize(
    ("holdings", "reason"),
    [
        pytest.param([], "its balance cannot be read", id="unread"),
        pytest.param([Holding(WBTC.address, 0)], "is no longer in the wallet", id="gone"),
        pytest.param([Holding(WBTC.address, SOLD_RAW - 1)], "is no longer in the wallet", id="a unit less"),
    ],
)
def test_confirmed_exit__needs_its_balance(holdings: list[Holding], reason: str) -> None:
    with pytest.raises(evaluation.ExitRefused, match=reason):
        require_exit_possible(*look_after_confirming(holdings))


@pytest.mark.parametrize("left_raw", [SOLD_RAW, 10**30], ids=["what it sells", "more"])
def test_confirmed_exit__is_possible_with_a_balance(left_raw: int) -> None:
    require_exit_possible(*look_after_confirming([Holding(WBTC.address, left_raw)]))
