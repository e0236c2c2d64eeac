"""The rounds of a step in which exits are refused when about to be sent: what follows is planned, counted and confirmed by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from agent import engine
from agent.chain.approvals import spent
from agent.errors import Refused, Unfit
from agent.execution import approving, late
from agent.execution.fresh import Eyes
from agent.execution.outcome import Hands, Outcome, OutcomeKind
from agent.model import History, Intent, IntentKind, IntentState, Order, Orders, Plan, Snapshot, StepInput, Verdict
from agent.planning import strategies
from agent.policy.order_targets import ordered
from agent.ports import Approval, Prepared
from tests.builders import step_input, token, v2_pool, with_limits
from tests.scripted import grant, receipt, tx
from tests.standing import price_of, terms
from tests.unit.test_stuck_exits import FIRED, LINK, MARKET, OFF, SOUND, STOP, USDC, WBTC, WETH, Sees, fired, moved

NO = Unfit("simulated: no", (Verdict("simulation", "no", "success", False),))
ALL = (*MARKET, SOUND)


class World:
    """A chain, a journal, a composer and an executor in one. `reverts` says of what plans sell whether sending them is refused.

    It is asked by the executor alone unless `composed`: a token may tell a look from a sending, by the price of gas.
    """

    def __init__(self, step: StepInput, reverts: Callable[[set[str]], bool], lacks: Sequence[str] = (), composed: bool = False) -> None:
        self.step, self.reverts, self.lacks, self.composed = step, reverts, {*lacks}, composed
        self.late: tuple[Any, ...] = step.history.late
        self.sold: list[set[str]] = []
        self.asked: list[Outcome] = []
        self.approved: Callable[[str, int], None] = lambda token_, raw: self.lacks.discard(token_)
        self.left: list[Approval] = []
        self.journal = MagicMock()
        self.journal.move_orders.return_value = True
        self.journal.expected_nonce.return_value = 0
        self.journal.mark_late.side_effect = self._mark

    def _mark(self, found: Sequence[Any]) -> None:
        self.late = tuple(found)

    def _sent(self, to: str, kind: IntentKind, raw: int = 0, ok: bool = True) -> Intent:
        made = Intent("i", "s", kind, IntentState.FINAL, replace(tx(1), to=to), str(raw), 1, None, "0x1", None)
        return replace(made, receipt=receipt("0x1", 1, "0x01", int(ok)))

    # composer
    def approvals(self, step: StepInput, plan: Plan) -> list[Approval]:
        return [Approval(one, "router", raw, one, "router") for one, raw in spent(plan).items() if one in self.lacks]

    def approve(self, step: StepInput, approval: Approval) -> Prepared:
        return Prepared(replace(tx(1), to=approval.token), grant(IntentKind.APPROVE), str(approval.raw))

    def swap(self, step: StepInput, plan: Plan) -> Prepared:
        if self.composed and self.reverts(moved(plan) - {USDC.address}):
            raise NO
        return Prepared(tx(1), replace(grant(), plan=plan), "swap")

    def require_fresh(self, step: StepInput, plan: Plan) -> None:
        pass

    def left_over(self, step: StepInput) -> list[Approval]:
        return self.left

    # executor
    def ready(self) -> bool:
        return True

    def run(self, step_id: str, kind: IntentKind, made: Any, granted: Any, note: str) -> Intent:
        if kind is IntentKind.APPROVE:
            self.approved(made.to, int(note))
            return self._sent(made.to, kind, int(note))
        sold = moved(granted.plan) - {USDC.address}
        if self.reverts(sold):
            raise NO
        self.sold.append(sold)
        return self._sent(made.to, kind)

    def rounds(self, monkeypatch: pytest.MonkeyPatch, propose: strategies.Proposer = strategies.rebalance) -> Outcome:
        for name in ("settle", "keep", "keep_sleeves", "record", "keep_choice"):
            monkeypatch.setattr(engine, name, lambda *_, **__: None)
        return engine._rounds(self.eyes(), propose, self.journal, self.hands())

    def eyes(self) -> Eyes:
        def assemble(snapshot: Snapshot, history: History) -> StepInput:
            return replace(self.step, history=replace(self.step.history, late=self.late))

        reader = SimpleNamespace(snapshot=lambda: self.step.snapshot, past=lambda head, blocks: ())
        clock = SimpleNamespace(now_s=lambda: 1)
        return Eyes(cast(Any, reader), assemble, lambda now_s: self.step.history, cast(Any, Sees()), cast(Any, clock), lambda: 0.5)

    def hands(self) -> Hands:
        def yes(outcome: Outcome) -> bool:
            self.asked.append(outcome)
            return True

        return Hands(cast(Any, self), cast(Any, self), yes)


def stops(symbols: Sequence[str]) -> StepInput:
    """A portfolio of these, WETH and USDC, all worth the same; the stops of these have fired."""
    share = 10_000 // (len(symbols) + 2)
    targets = dict.fromkeys((*symbols, "WETH"), share) | {"USDC": 10_000 - share * (len(symbols) + 1)}
    pools = (*MARKET, *(v2_pool(token(one), USDC, 10, 50_000_000) for one in symbols))
    step = step_input(targets, None, dict.fromkeys(symbols, 10), pools=pools)
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=None)
    wished = tuple(terms(symbol, STOP, 1) for symbol in symbols)
    orders = tuple(Order(one.token, STOP, FIRED, one, 1, price_of("T0", 20), None, price_of("T0", 10)) for one in wished)
    return ordered(replace(step, portfolio=replace(step.portfolio, orders=Orders(wished)), history=replace(step.history, orders=orders)))


def test_one_that_tells_a_look_from_a_sending_does_not_hold_up_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes every look, so that all of them look sound by themselves, and it goes first."""
    monkeypatch.setattr(late, "MOST", 3)
    symbols = [f"T{number}" for number in range(5)]
    bad = token("T0").address
    world = World(stops(symbols), lambda sold: bad in sold)
    done = world.rounds(monkeypatch)
    assert done.kind is OutcomeKind.DONE, done.reason
    assert world.sold == [{token(one).address for one in symbols[1:]}] and [one.token for one in world.late] == [bad]


def test_what_was_refused_by_itself_is_remembered_when_the_plans_of_a_step_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "MOST", 2)
    symbols = [f"T{number}" for number in range(5)]
    sound = token(symbols[-1]).address
    world = World(stops(symbols), lambda sold: sold != {sound})
    looks = 0
    while not world.sold and looks < 6:
        looks, known = looks + 1, len(world.late)
        world.rounds(monkeypatch)
        assert len(world.asked) <= looks * (late.MOST + 1) and (world.sold or len(world.late) > known)
    assert world.sold == [{sound}]


def test_where_others_wait_for_it_a_refused_rebalance_besides_says_nothing_for_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit of LINK is refused when sent; what would be traded besides is refused too; WBTC's turn comes all the same."""
    step = fired("LINK", "WBTC", values={"WETH": 5_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 1_000}, pools=ALL)
    world = World(step, lambda sold: bool(sold & {LINK.address, WETH.address}), composed=False)
    monkeypatch.setattr(late, "_in_turn", lambda step, leaves: sorted(leaves, key=lambda one: one != LINK.address))
    swap = world.swap

    def refuses_besides(step: StepInput, plan: Plan) -> Prepared:
        if WETH.address in moved(plan):
            raise NO
        return swap(step, plan)

    monkeypatch.setattr(world, "swap", refuses_besides)
    world.rounds(monkeypatch)
    assert world.sold == [{WBTC.address}]


def test_a_plan_in_place_of_a_refused_one_is_not_bound_by_what_was_approved_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither caps nor gas: with caps it would count as carried on after approvals, and go at once where it is to go in rounds."""
    step = fired("LINK", values={"WETH": 5_000, "WBTC": 2_000, "LINK": 2_000, "USDC": 1_000}, pools=ALL)
    world = World(step, lambda sold: LINK.address in sold, lacks=(LINK.address,))
    world.rounds(monkeypatch)
    first, after = world.asked
    assert first.plan is not None and first.plan.exits and after.around == (LINK.address,)
    assert (after.step_input.spend_caps, after.step_input.spent_gas_wei) == ((), 0)
    assert len(world.sold) == 1 and LINK.address not in world.sold[0]


@pytest.mark.parametrize(("symbols", "sold", "asked"), [(("LINK",), [], 1), (("LINK", "WBTC"), [{WBTC.address}], 2)])
def test_a_token_that_spoils_its_own_market_once_approved_is_left_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, symbols: tuple[str, ...], sold: list[set[str]], asked: int
) -> None:
    """Alone as well: steps that only approved, and count in the row of such, end all trading after a while."""
    world = World(fired(*symbols, pools=ALL), lambda _: False, lacks=(LINK.address,))

    def spoils(to: str, raw: int) -> None:
        world.lacks.discard(to)
        world.step = fired(*symbols, pools=(*MARKET, OFF))

    world.approved = spoils
    done = world.rounds(monkeypatch)
    assert world.sold == sold and done.around == (LINK.address,) and len(world.asked) == asked
    assert [one.token for one in world.late] == [LINK.address], "its approvals count in no row, and it rests in the end"


def test_tokens_that_lack_approvals_in_turn_are_left_and_do_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    step = stops(["T0", "T1", "T2"])
    first, second, sound = (token(one).address for one in ("T0", "T1", "T2"))
    world = World(step, lambda sold: False, lacks=(first, second))
    rounds: list[set[str]] = []

    def in_turn(to: str, raw: int) -> None:
        rounds.append({to})
        if to == [one for one in (first, second) if one in world.lacks][-1]:
            world.lacks = {second} if world.lacks == {first} else {first}

    world.approved = in_turn
    done = world.rounds(monkeypatch)
    assert sound in world.sold[0] and done.around == (first,) and len(rounds) == 4


def test_what_is_declined_after_liquidity_has_moved_is_not_told_as_approvals_only() -> None:
    approval, action = (
        World(fired("LINK", pools=ALL), lambda _: False)._sent("0x", kind) for kind in (IntentKind.APPROVE, IntentKind.LIQUIDITY)
    )
    assert [engine._nothing(sent) for sent in ([], [approval], [approval, action])] == [
        "nothing was",
        "only approvals were",
        "nothing more was",
    ]


def test_taking_back_goes_on_past_a_token_that_refuses_and_names_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approving, "settle", lambda *_, **__: None)
    step = fired("LINK", "WBTC", pools=ALL)
    world = World(step, lambda _: False)
    world.left = [Approval(one.address, "router", 0, one.symbol, "router") for one in (LINK, WBTC)]
    approve = world.approve

    def refuses(step: StepInput, approval: Approval) -> Prepared:
        if approval.token == LINK.address:
            raise Refused("the token says no")
        return approve(step, approval)

    world.approve = refuses  # type: ignore[method-assign]
    before = Outcome("s", OutcomeKind.DONE, "done", step, strategies.rebalance(step).decided, None)
    after = approving.tidy(world.eyes(), world.hands(), world.journal, before)
    assert [intent.tx.to for intent in after.transactions] == [WBTC.address]
    assert after.reason == "done; left-over allowances stay: LINK: the token says no"


def test_an_allowance_that_is_told_though_it_was_set_to_zero_again_and_again_is_left_and_costs_no_more_gas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look would send one more, and steps of approvals alone end all trading, the stops of others too."""
    monkeypatch.setattr(approving, "settle", lambda *_, **__: None)
    step, granted = fired("LINK", "WBTC", pools=ALL), list[tuple[str, str, int]]()
    world = World(step, lambda _: False)
    world.left = [Approval(one.address, "router", 0, one.symbol, "router") for one in (LINK, WBTC)]
    world.journal.intents_at.side_effect = lambda nonce: [replace(world._sent("0x", IntentKind.APPROVE), id=str(nonce))]
    world.journal.grant.side_effect = lambda number: replace(grant(IntentKind.APPROVE), approve=granted[int(number)])
    before = Outcome("s", OutcomeKind.HOLD, "holds", step, strategies.rebalance(step).decided, None)

    def taken_back(*done: tuple[str, str, int]) -> Outcome:
        granted[:] = done
        world.journal.expected_nonce.return_value = len(done)
        return approving.tidy(world.eyes(), world.hands(), world.journal, before)

    def zero(one: str, spender: str = "router", raw: int = 0) -> tuple[str, str, int]:
        return (one, spender, raw)

    link, both = LINK.address, [LINK.address, WBTC.address]
    after = taken_back(zero(link), zero(link), zero(WBTC.address), zero(link))
    assert [intent.tx.to for intent in after.transactions] == [WBTC.address]
    assert "the router may still take LINK, though it was set to zero 3 times" in after.reason
    for done in ([zero(link)] * 2, [*[zero(link)] * 2, zero(link, raw=5), zero(link)], [zero(link, "other")] * 3):
        assert [intent.tx.to for intent in taken_back(*done).transactions] == both


def test_where_what_was_to_be_sold_is_gone_what_is_traded_in_its_place_is_confirmed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes to an exit is none to the rebalance that comes to be due once its token hides its balance."""
    had, gone = ({"WETH": 3_000, "WBTC": 3_000, "LINK": value, "USDC": 2_000} for value in (2_000, 0))
    world = World(fired("LINK", values=had, pools=ALL), lambda _: False, lacks=(LINK.address,))

    def vanishes(to: str, raw: int) -> None:
        world.lacks.discard(to)
        world.step = fired("LINK", values=gone, pools=ALL)

    world.approved = vanishes
    done = world.rounds(monkeypatch)
    assert [one.plan is not None and one.plan.exits for one in world.asked] == [True, False] and done.around == (LINK.address,)
    assert "LINK was to be sold and is not there any more" in done.reason
    assert world.sold == [{WETH.address, WBTC.address}]
