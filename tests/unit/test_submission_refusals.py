"""An exit that passes every guard and is refused when it is about to be sent: it alone is left, and nothing else is worked around."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent import engine
from agent.app.positions.orders import orders_document
from agent.chain.rpc import RpcFault, Transport
from agent.chain.sender import NodeSender
from agent.errors import Refused, UnsendableTransaction
from agent.execution import exits as late
from agent.execution.exits import TokenRefused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import BlockedExit, Intent, IntentKind, IntentState, Plan, StepInput, SubmissionRefusal, Verdict
from agent.planning import proposals
from agent.policy.orders import exits as stuck
from agent.ports import Approval, Composer, PreparedTransaction
from agent.store import Store, open_store
from agent.units import NATIVE
from tests.support.text import mentions
from tests.support.transactions import CHAIN_ID, WALLET, grant, receipt, tx
from tests.unit.test_blocked_exits import HEAVY, LINK, MARKET, OFF, SOUND, USDC, WBTC, WETH, Sees, fired, judged, moved

REVERTS = UnsendableTransaction("simulation of «swap» fails: the token said no", (Verdict("simulation", "no", "success", False),))
OTHERWISE = Refused("the plan expired", (Verdict("expiry", "block 9", "block 8", False),))
ALL = (*MARKET, SOUND)


class Composes:
    """Refuses plans as it is told; everything is approved, but what `lacks`."""

    def __init__(self, why: Callable[[set[str]], Refused | None], lacks: Sequence[str] = ()) -> None:
        self._why, self._lacks, self.tried = why, lacks, list[set[str]]()

    def approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        return [Approval(token, "router", 1, token, "router") for token in moved(plan) if token in self._lacks]

    def swap(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        sold = moved(plan) - {USDC.address}
        self.tried.append(sold)
        if (why := self._why(sold)) is not None:
            raise why
        return cast(PreparedTransaction, None)


def refuses(*tokens: str, why: Refused = REVERTS) -> Callable[[set[str]], Refused | None]:
    """Every plan that touches one of these."""
    return lambda sold: why if sold & {*tokens} else None


def left(step: StepInput, why: Refused, composes: Composes) -> set[str]:
    outcome = judged(step)
    assert outcome.kind is OutcomeKind.PLANNED and outcome.plan is not None and outcome.plan.exits
    return {one.token for one in late.exits_to_skip(why, outcome, outcome.decided.leaves, cast(Composer, composes), judged)}


def test_what_is_refused_alone_is_left_alone_and_the_others_are_not() -> None:
    step = fired("LINK", "WBTC", "WETH", pools=ALL)
    composes = Composes(refuses(LINK.address))
    assert left(step, REVERTS, composes) == {LINK.address}
    assert composes.tried == [{WETH.address}, {WBTC.address}, {LINK.address}], "each by itself, in the portfolio's order"


def test_nothing_but_what_is_of_its_legs_is_worked_around() -> None:
    step = fired("LINK", "WBTC", pools=ALL)
    assert left(step, OTHERWISE, Composes(refuses(LINK.address))) == set()
    assert left(step, REVERTS, Composes(refuses(LINK.address, why=OTHERWISE))) == set(), "tried alone it was refused for another reason"
    nonce = Refused("no", (Verdict("signer.nonce", "1", "2", False),))
    assert left(step, nonce, Composes(refuses(LINK.address))) == set()
    both = Refused("no", (Verdict("signer.floor", "1", "2", False), Verdict("signer.gas_cost", "1", "2", False)))
    assert left(step, both, Composes(refuses(LINK.address))) == set()
    assert left(step, Refused("kill switch"), Composes(refuses(LINK.address))) == set()
    floor = Refused("no", (Verdict("signer.floor", "1", "2", False),))
    assert left(step, floor, Composes(refuses(LINK.address))) == {LINK.address}


def test_where_everything_is_refused_that_can_be_tried_the_step_is_refused_as_ever() -> None:
    """The router, or an endpoint, refuses: that says nothing against an exit."""
    step = fired("LINK", values=HEAVY, pools=ALL)
    assert left(step, REVERTS, Composes(refuses(LINK.address, WETH.address, WBTC.address))) == set()
    assert left(step, REVERTS, Composes(refuses(LINK.address))) == {LINK.address}
    lacking = Composes(refuses(LINK.address, WETH.address, WBTC.address), lacks=(WETH.address,))
    assert left(step, REVERTS, lacking) == {LINK.address}, "what has no approval yet cannot be tried"


def test_exits_that_are_refused_only_together_go_one_after_the_other_and_who_failed_before_goes_last() -> None:
    step = fired("WBTC", "WETH", pools=ALL)
    together = Composes(lambda sold: REVERTS if len(sold) > 1 else None)
    assert left(step, REVERTS, together) == {WBTC.address}
    failed = replace(step, history=replace(step.history, late=(SubmissionRefusal(WETH.address, 1, 1, "no"),)))
    assert left(failed, REVERTS, together) == {WETH.address}


def test_an_exit_is_not_blamed_for_what_is_traded_where_it_alone_cannot_be_planned() -> None:
    """Alone the guards refuse LINK, and a rebalance besides would go; that one's refusal is none of LINK."""
    step = fired("LINK", "WBTC", values=HEAVY, pools=ALL)

    def alone(step: StepInput) -> StepOutcome:
        here = {one.token for one in step.stuck}
        return judged(stuck.exclude_blocked_exits(step, [BlockedExit(LINK.address, "plan_cost", "")]) if WBTC.address in here else step)

    outcome = judged(step)
    composes = cast(Composer, Composes(lambda sold: REVERTS if WETH.address in sold else None))
    assert [one.why for one in late.exits_to_skip(REVERTS, outcome, outcome.decided.leaves, composes, alone)] == [
        late.REFUSED_TOGETHER_AT_SUBMISSION
    ]


def test_a_token_that_falls_in_with_another_does_not_hold_up_a_third() -> None:
    """LINK always refuses; WETH refuses wherever WBTC is sold too."""
    step = fired("LINK", "WBTC", "WETH", pools=ALL)
    assert left(step, REVERTS, Composes(lambda sold: REVERTS if LINK.address in sold or len(sold) > 1 else None)) == {LINK.address}
    rest = stuck.exclude_blocked_exits(step, [BlockedExit(LINK.address, "no", "")])
    assert left(rest, REVERTS, Composes(lambda sold: REVERTS if len(sold) > 1 else None)) == {WBTC.address}


def test_the_end_of_a_bot_leaves_what_is_refused_late_and_nothing_that_a_guard_refuses() -> None:
    def sale(step: StepInput) -> StepOutcome:
        return engine.evaluate_input(step, proposals.sell_everything, Sees(), "abc")

    outcome = sale(fired(pools=ALL))
    assert {*outcome.decided.leaves} == {WETH.address, WBTC.address, LINK.address}
    composes = cast(Composer, Composes(refuses(LINK.address)))
    (found,) = late.exits_to_skip(REVERTS, outcome, outcome.decided.leaves, composes, sale)
    assert found.token == LINK.address
    rest = sale(stuck.exclude_blocked_exits(outcome.step_input, (found,)))
    assert {*rest.decided.leaves} == {WETH.address, WBTC.address} and LINK.address not in moved(rest.plan)
    assert sale(fired(pools=(*MARKET, OFF))).kind is OutcomeKind.REFUSED, "then nothing is begun"


def test_a_swap_by_hand_sells_for_no_order_and_none_is_left_alone_for_it() -> None:
    step = fired("LINK", pools=ALL)
    swap = proposals.manual_swap(LINK.address, USDC.address, 10**18)(step)
    assert swap.plan is not None and not swap.plan.exits and swap.decided.leaves == ()


def test_a_refused_approval_is_the_fault_of_its_token_and_of_an_exit_alone() -> None:
    outcome = judged(fired("LINK", "WBTC", pools=ALL))
    composes = cast(Composer, Composes(refuses()))
    found = late.exits_to_skip(TokenRefused((LINK.address,), "no"), outcome, outcome.decided.leaves, composes, judged)
    assert [one.token for one in found] == [LINK.address]
    assert late.exits_to_skip(TokenRefused((USDC.address,), "no"), outcome, outcome.decided.leaves, composes, judged) == ()
    ordinary = judged(fired(values=HEAVY, pools=ALL))
    assert ordinary.plan is not None and not ordinary.plan.exits
    assert late.exits_to_skip(REVERTS, ordinary, ordinary.decided.leaves, composes, judged) == ()


def test_a_token_that_does_not_tell_or_keep_its_allowance_is_named() -> None:
    outcome = judged(fired("LINK", pools=ALL))
    assert outcome.plan is not None

    class Silent(Composes):
        def approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
            raise Refused("the allowance is not in the snapshot")

    snapshot = replace(outcome.step_input.snapshot, allowances=())
    mute = replace(outcome, step_input=replace(outcome.step_input, snapshot=snapshot))
    with pytest.raises(TokenRefused) as refused:
        late.missing_approvals(cast(Composer, Silent(refuses())), mute, outcome.plan, ())
    assert refused.value.tokens == (LINK.address,)


def test_a_token_that_ignores_or_reverts_its_approval_is_named_and_one_that_no_exit_sells_is_not() -> None:
    outcome = judged(fired("LINK", pools=ALL))
    assert outcome.plan is not None
    lacks = cast(Composer, Composes(refuses(), lacks=(LINK.address,)))

    def sent(times: int, status: int = 1) -> list[Intent]:
        state = IntentState.FINAL if status else IntentState.REVERTED
        made = Intent("i", "s", IntentKind.APPROVE, state, replace(tx(1), to=LINK.address), "approve LINK", 1, None, "0x1", None)
        return [replace(made, receipt=receipt("0x1", 1, "0x01", status))] * times

    assert [one.token for one in late.missing_approvals(lacks, outcome, outcome.plan, sent(late.MAX_INEFFECTIVE_APPROVALS))] == [
        LINK.address
    ]
    with pytest.raises(TokenRefused, match="may not"):
        late.missing_approvals(lacks, outcome, outcome.plan, sent(late.MAX_INEFFECTIVE_APPROVALS + 1))
    with pytest.raises(TokenRefused, match="approve LINK"):
        late.require_approval_succeeded(sent(1, 0)[0], outcome.decided.leaves)
    late.require_approval_succeeded(sent(1, 0)[0], (WETH.address,))
    other = replace(outcome, decided=replace(outcome.decided, leaves=(WETH.address,)))
    assert late.missing_approvals(lacks, other, outcome.plan, sent(9)), "of what is no exit the engine says what it always said"


@pytest.mark.parametrize(("times", "rests_s"), [(1, 0), (3, 0), (4, 600), (5, 1_200), (6, 2_400), (7, 3_600), (90, 3_600)])
def test_what_is_refused_again_and_again_rests_longer_and_longer(times: int, rests_s: int) -> None:
    step = fired("LINK", "WBTC", pools=ALL)
    now_s = step.snapshot.head.timestamp_s
    refused = SubmissionRefusal(LINK.address, now_s, times, "the token said no")
    assert stuck.retry_at_s(refused) == now_s + rests_s
    step = replace(step, history=replace(step.history, late=(refused,)))
    found = proposals.rebalance(step)
    assert found.plan is not None and found.plan.exits
    assert (LINK.address in moved(found.plan)) is (rests_s == 0) and WBTC.address in moved(found.plan)
    if rests_s:
        assert mentions(found.decided.decision.reason, "be sold", f"{times} times", "until")
        assert "trimtab resume" in found.decided.decision.reason and "at each look" not in found.decided.decision.reason
    assert ["the token said no" in line and "trimtab orders disarm LINK" in line for line in orders_document(step)["stuck"]] == [True]
    ahead = replace(step, history=replace(step.history, late=(replace(refused, at_s=now_s + 9 * 86_400),)))
    assert proposals.rebalance(ahead).decided.stuck == (), "a header from the future makes nothing rest until that day"
    over = replace(step, history=replace(step.history, late=(replace(refused, at_s=now_s - rests_s),)))
    assert proposals.rebalance(over).decided.stuck == (), "then it is tried"


def test_it_is_counted_in_a_row_and_forgotten_once_it_is_sold_or_no_exit_any_more() -> None:
    step = fired("LINK", "WBTC", pools=ALL)
    now_s = step.snapshot.head.timestamp_s
    (first,) = stuck.update_submission_refusals(step, [BlockedExit(LINK.address, "no", "")])
    assert (first.times, first.at_s, first.why) == (1, now_s, "no")
    known = replace(step, history=replace(step.history, late=(first, replace(first, token=WETH.address))))
    assert [one.times for one in stuck.update_submission_refusals(known, [BlockedExit(LINK.address, "no", "")])] == [2, 1]
    assert stuck.open_submission_refusals(known, ()) == (first,), "no order sells WETH"
    assert stuck.open_submission_refusals(known, (LINK.address,)) == ()
    old = replace(step, history=replace(step.history, late=(replace(first, at_s=now_s - 2 * 86_400),)))
    assert [one.times for one in stuck.update_submission_refusals(old, [BlockedExit(LINK.address, "no", "")])] == [1]


def approved(store: Store, number: int, token: str) -> None:
    store.begin_step(f"s{number}", 1, "{}")
    made = store.intend(f"s{number}", IntentKind.APPROVE, replace(tx(number), to=token), grant(IntentKind.APPROVE), "", 1, None)
    store.advance(made.id, IntentState.SIGNED, 1, tx_hash=f"0x{number}")
    store.advance(made.id, IntentState.BROADCAST, 1)
    store.advance(made.id, IntentState.MINED, 1, receipt=receipt(f"0x{number}", number, "0x01"))


def test_what_was_approved_for_it_in_vain_stops_nothing_else_and_the_owner_may_have_it_tried(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET)
    for number, token in enumerate((LINK.address, LINK.address, WETH.address)):
        approved(store, number, token)
    assert store.history(1).approvals_in_row == 3
    found = (SubmissionRefusal(LINK.address, 7, 2, "no; «é» 'x'"),)
    store.mark_submission_refusals(found)
    assert store.history(1).late == found and store.history(1).approvals_in_row == 1
    approved(store, 3, LINK.address)
    assert store.history(1).approvals_in_row == 2, "what came later counts"
    store.resume("looked at it", 2)
    assert store.history(1).late == ()


HEADER = {"number": "0x9", "hash": "0x" + "9" * 64, "timestamp": "0x5", "baseFeePerGas": "0x1", "parentHash": "0x" + "8" * 64}


@pytest.mark.parametrize(
    ("fault", "reverted"),
    [
        (RpcFault(3, "execution reverted", "0x"), True),
        (RpcFault(-32000, "execution reverted: STF", ""), True),
        (RpcFault(-32000, "out of gas", ""), True),
        (RpcFault(-32000, "insufficient funds for gas * price + value", ""), False),
        (RpcFault(-32000, "gas required exceeds allowance (21000)", ""), False),
        (RpcFault(-32000, "max fee per gas less than block base fee", ""), False),
    ],
)
def test_a_simulation_says_whether_contracts_refuse(fault: RpcFault, reverted: bool) -> None:
    found = NodeSender(answers(fault, fault)).simulate(replace(tx(0), to=NATIVE, max_fee_wei=9), WETH.address)
    assert (found.ok, found.reverted) == (False, reverted)


def test_who_burns_more_gas_than_a_block_has_is_told_from_a_wallet_that_cannot_pay() -> None:
    """A call is lent more gas than an estimate may find; without a gas limit and a price no balance is asked for."""
    burns = answers("0x", RpcFault(-32000, "gas required exceeds allowance (16777216)", ""))
    assert NodeSender(burns).simulate(replace(tx(0), gas=0), WETH.address).reverted
    assert not NodeSender(burns).simulate(tx(0), WETH.address).reverted


def answers(call: object, estimate: object) -> Transport:
    class Line:
        name = "one"

        def batch(self, calls: Sequence[object]) -> list[object]:
            return ["0x1", HEADER, call, estimate]

    return cast(Transport, Line())
