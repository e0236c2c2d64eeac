"""The rounds of a step in which exits are refused when about to be sent: what follows is planned, counted and confirmed by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent import codec, engine
from agent.errors import Refused
from agent.execution import exits
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import ConditionalOrder, IntentKind, OrdersConfig, Plan, StepInput
from agent.policy.orders.exits import apply_orders
from agent.ports import Approval, PreparedTransaction
from agent.store import open_store
from tests.support.builders import NOW_S, OWNER, step_input, token, v2_pool, with_limits
from tests.support.refusal_worlds import NO, World
from tests.support.standing_orders import price_of, terms
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, grant, tx
from tests.unit.test_blocked_exits import FIRED, LINK, MARKET, OFF, SOUND, STOP, USDC, WBTC, WETH, fired, moved

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


def stops(symbols: Sequence[str]) -> StepInput:
    """A portfolio of these, WETH and USDC, all worth the same; the stops of these have fired."""
    share = 10_000 // (len(symbols) + 2)
    targets = dict.fromkeys((*symbols, "WETH"), share) | {"USDC": 10_000 - share * (len(symbols) + 1)}
    pools = (*MARKET, *(v2_pool(token(one), USDC, 10, 50_000_000) for one in symbols))
    step = step_input(targets, None, dict.fromkeys(symbols, 10), pools=pools)
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None)
    wished = tuple(terms(symbol, STOP, 1) for symbol in symbols)
    orders = tuple(ConditionalOrder(one.token, STOP, FIRED, one, 1, price_of("T0", 20), None, price_of("T0", 10)) for one in wished)
    return apply_orders(
        replace(step, portfolio=replace(step.portfolio, orders=OrdersConfig(wished)), history=replace(step.history, orders=orders))
    )


def test_one_that_tells_a_look_from_a_sending_does_not_hold_up_many_others(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes every look, so that all of them look sound by themselves, and it goes first."""
    monkeypatch.setattr(exits, "MAX_REPLANS", 3)
    symbols = [f"T{number}" for number in range(5)]
    bad = token("T0").address
    world = worlds(stops(symbols), lambda sold: bad in sold)
    done = world.rounds()
    assert done.kind is OutcomeKind.DONE, done.reason
    assert world.sold == [{token(one).address for one in symbols[1:]}] and [one.token for one in world.late] == [bad]


def test_what_was_refused_by_itself_is_remembered_when_the_plans_of_a_step_are_used_up(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "MAX_REPLANS", 2)
    symbols = [f"T{number}" for number in range(5)]
    sound = token(symbols[-1]).address
    world = worlds(stops(symbols), lambda sold: sold != {sound})
    looks = 0
    while not world.sold and looks < 6:
        looks, known = looks + 1, len(world.late)
        world.rounds()
        assert len(world.asked) <= looks * (exits.MAX_REPLANS + 1) and (world.sold or len(world.late) > known)
    assert world.sold == [{sound}]


def test_where_others_wait_for_it_a_refused_rebalance_besides_says_nothing_for_the_exit(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit of LINK is refused when sent; what would be traded besides is refused too; WBTC's turn comes all the same."""
    step = fired("LINK", "WBTC", values={"WETH": 5_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 1_000}, pools=ALL)
    world = worlds(step, lambda sold: bool(sold & {LINK.address, WETH.address}), composed=False)
    monkeypatch.setattr(exits, "_least_refused_first", lambda step, leaves: sorted(leaves, key=lambda one: one != LINK.address))
    swap = world.swap

    def refuses_besides(step: StepInput, plan: Plan) -> PreparedTransaction:
        if WETH.address in moved(plan):
            raise NO
        return swap(step, plan)

    monkeypatch.setattr(world, "swap", refuses_besides)
    world.rounds()
    assert world.sold == [{WBTC.address}]


def test_a_plan_in_place_of_a_refused_one_is_not_bound_by_what_was_approved_for_that(worlds: Worlds) -> None:
    """Neither caps nor gas: with caps it would count as carried on after approvals, and go at once where it is to go in rounds."""
    step = fired("LINK", values={"WETH": 5_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 1_000}, pools=ALL)
    world = worlds(step, lambda sold: LINK.address in sold, lacks=(LINK.address,))
    world.rounds()
    first, after = world.asked
    assert first.plan is not None and first.plan.exits and after.around == (LINK.address,)
    assert (after.step_input.spend_caps, after.step_input.spent_gas_wei) == ((), 0)
    assert len(world.sold) == 1 and LINK.address not in world.sold[0]


@pytest.mark.parametrize(("symbols", "sold", "asked"), [(("LINK",), [], 1), (("LINK", "WBTC"), [{WBTC.address}], 2)])
def test_a_token_that_spoils_its_own_market_once_approved_is_left_and_holds_up_no_other(
    worlds: Worlds, symbols: tuple[str, ...], sold: list[set[str]], asked: int
) -> None:
    """Alone as well: steps that only approved, and count in the row of such, end all trading after a while."""
    world = worlds(fired(*symbols, pools=ALL), lambda _: False, lacks=(LINK.address,))

    def spoils(to: str, raw: int) -> None:
        world.lacks.discard(to)
        world.step = fired(*symbols, pools=(*MARKET, OFF))

    world.approved = spoils
    done = world.rounds()
    assert world.sold == sold and done.around == (LINK.address,) and len(world.asked) == asked
    assert [one.token for one in world.late] == [LINK.address], "its approvals count in no row, and it rests in the end"


def test_tokens_that_lack_approvals_in_turn_are_left_and_do_not_end_the_run(worlds: Worlds) -> None:
    step = stops(["T0", "T1", "T2"])
    first, second, sound = (token(one).address for one in ("T0", "T1", "T2"))
    world = worlds(step, lambda sold: False, lacks=(first, second))
    rounds: list[set[str]] = []

    def in_turn(to: str, raw: int) -> None:
        rounds.append({to})
        if to == [one for one in (first, second) if one in world.lacks][-1]:
            world.lacks = {second} if world.lacks == {first} else {first}

    world.approved = in_turn
    done = world.rounds()
    assert sound in world.sold[0] and done.around == (first,) and len(rounds) == 4


def test_what_is_declined_after_liquidity_has_moved_is_not_told_as_approvals_only(worlds: Worlds) -> None:
    world = worlds(fired("LINK", pools=ALL), lambda _: False)
    world.store.begin_step("s", NOW_S, codec.dumps(world.step))
    approval, action = (
        world.store.intend("s", kind, tx(nonce), grant(kind), "", 0, None)
        for nonce, kind in enumerate((IntentKind.APPROVE, IntentKind.LIQUIDITY))
    )
    assert [engine._nothing(sent) for sent in ([], [approval], [approval, action])] == [
        "nothing was",
        "only approvals were",
        "nothing more was",
    ]


def test_taking_back_goes_on_past_a_token_that_refuses_and_names_what_stays(worlds: Worlds) -> None:
    step = fired("LINK", "WBTC", pools=ALL)
    world = worlds(step, lambda _: False)
    world.left = [Approval(one.address, "router", 0, one.symbol, "router") for one in (LINK, WBTC)]
    approve = world.approve

    def refuses(step: StepInput, approval: Approval) -> PreparedTransaction:
        if approval.token == LINK.address:
            raise Refused("the token says no")
        return approve(step, approval)

    world.approve = refuses  # type: ignore[method-assign]
    after = world.tidy(OutcomeKind.DONE, "done")
    assert [intent.tx.to for intent in after.transactions] == [WBTC.address]
    assert mentions(after.reason, "done", "allowances", "LINK")


def test_an_allowance_that_is_told_though_it_was_set_to_zero_again_and_again_is_left_and_costs_no_more_gas(worlds: Worlds) -> None:
    """Each look would send one more, and steps of approvals alone end all trading, the stops of others too."""

    def taken_back(*done: tuple[str, str, int]) -> StepOutcome:
        world = worlds(fired("LINK", "WBTC", pools=ALL), lambda _: False)
        world.left = [Approval(one.address, "router", 0, one.symbol, "router") for one in (LINK, WBTC)]
        world.store.begin_step("before", NOW_S, codec.dumps(world.step))
        for one in done:
            world.mined("before", IntentKind.APPROVE, replace(tx(0), to=one[0]), replace(grant(IntentKind.APPROVE), approve=one), "")
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
    assert done.around == (LINK.address,) and mentions(done.reason, "LINK", "not there")
    if watched:
        assert done.kind is OutcomeKind.HALT and mentions(done.reason, "LINK", "200") and len(world.asked) == 1 and not world.sold
        return
    assert [one.plan is not None and one.plan.exits for one in world.asked] == [True, False]
    assert world.sold == [{WETH.address, WBTC.address}]
