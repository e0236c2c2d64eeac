"""An exit that passes every guard and is refused when it is about to be sent: it alone is left, and nothing else is worked around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import pytest

from agent.app.positions.orders import orders_document
from agent.chain.rpc import RpcFault
from agent.chain.sender import NodeSender
from agent.errors import Refused, UnsendableTransaction
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import BlockedExit, IntentKind, Plan, StepInput, TokenRefusal, UnsignedTx, Verdict
from agent.planning import proposals, requests
from agent.policy import quarantine
from agent.policy.orders import blocked_exits
from agent.ports import Approval, Composer, Simulation
from agent.store import Store
from agent.units import NATIVE
from tests.support.builders import with_history
from tests.support.constants import DAY_S
from tests.support.decisions.exits import (
    DEAR,
    HEAVY,
    LINK,
    MARKET,
    SOUND,
    USDC,
    WBTC,
    WETH,
    outcome_of,
    sold_symbols,
    step_with_stops,
)
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.fakes.transport import ScriptedTransport
from tests.support.stores import store_fixture
from tests.support.text import mentions, raises_code
from tests.support.transactions import grant, receipt, record_sent, tx

ALL = (*MARKET, SOUND)
LINK_STOP = step_with_stops("LINK", pools=ALL)
LINK_SALE = outcome_of(LINK_STOP)
"""A planned exit of LINK."""
NOW_S = LINK_STOP.snapshot.head.timestamp_s


@dataclass(frozen=True)
class FakeComposer:
    """A composer for which these tokens lack an approval, or that raises this error."""

    lacks: tuple[str, ...] = ()
    error: Exception | None = None

    def missing_approvals(self, _step: StepInput, plan: Plan) -> Sequence[Approval]:
        if self.error is not None:
            raise self.error
        return [Approval(token, "router", 1, token, "router") for token in sold_symbols(plan) if token in self.lacks]


def missing_tokens(
    outcome: StepOutcome, attempts: int = 0, *, is_by_owner: bool = False, composer: FakeComposer | None = None
) -> list[str]:
    """Return the tokens that the sale of LINK still has to approve, after so many approvals without effect."""
    assert LINK_SALE.plan is not None
    fake = cast(Composer, composer or FakeComposer(lacks=(LINK.address,)))
    approvals = evaluation.missing_approvals(fake, outcome, LINK_SALE.plan, lambda _: attempts, is_by_owner=is_by_owner)
    return [approval.token for approval in approvals]


def with_exit_token(outcome: StepOutcome, exit_token: str) -> StepOutcome:
    return replace(outcome, decision_result=replace(outcome.decision_result, exit_token=exit_token))


REBALANCE = with_exit_token(LINK_SALE, "")


def refusal_of(token: str = LINK.address, at_s: int = NOW_S, count: int = 1) -> TokenRefusal:
    return TokenRefusal(token, at_s, count, "the token said no")


# --- What concerns an exit


def refused_by(*guards: str) -> Refused:
    return Refused("no", [Verdict(guard, "1", "2", False) for guard in guards])


@pytest.mark.parametrize(
    ("refusal", "concerns"),
    [
        pytest.param(refused_by("simulation"), False, id="simulation that says nothing"),
        pytest.param(refused_by("expiry"), False, id="expiry"),
        pytest.param(refused_by("signer.nonce"), False, id="nonce"),
        pytest.param(refused_by("signer.floor", "signer.gas_cost"), False, id="a minimum and gas"),
        pytest.param(refused_by(), False, id="no guard"),
        pytest.param(refused_by("signer.floor"), True, id="a minimum"),
        pytest.param(refused_by("signer.min_out", "signer.tokens"), True, id="minimum and tokens"),
        pytest.param(UnsendableTransaction("it reverts", (Verdict("simulation", "no", "success", False),)), True, id="revert"),
        pytest.param(evaluation.ExitRefused("no"), True, id="the token"),
    ],
)
def test_only_a_refusal_of_the_trade_blocks_an_exit(refusal: Refused, concerns: bool) -> None:
    assert evaluation.concerns_trade(refusal) is concerns


@pytest.mark.parametrize(
    ("guards", "is_wallet_limit"),
    [
        pytest.param(("native_floor",), True, id="native floor"),
        pytest.param(("native_floor", "signer.gas_cost"), True, id="two of them"),
        pytest.param(("native_floor", "signer.floor"), False, id="one and another"),
        pytest.param((), False, id="no guard"),
    ],
)
def test_wallet_limit_refusal_is_of_such_guards_alone(guards: tuple[str, ...], is_wallet_limit: bool) -> None:
    assert evaluation.is_wallet_limit_refusal(refused_by(*guards)) is is_wallet_limit


def test_manual_swap_is_no_exit() -> None:
    swap = proposals.manual_swap_proposer(LINK.address, USDC.address, 10**18)(LINK_STOP)

    assert not swap.plan.is_exit
    assert not swap.decision_result.exit_token


def test_selling_everything_sells_one_asset_a_plan() -> None:
    step = step_with_stops(pools=(MARKET[0], DEAR, SOUND))
    sales: list[tuple[str, set[str]]] = []
    outcome = evaluation.evaluate_input(step, requests.propose_selling_everything, FakeEvidenceSource(), "abc")
    while outcome.plan is not None:
        exit_token = outcome.decision_result.exit_token
        sales.append((exit_token, sold_symbols(outcome.plan)))
        step = blocked_exits.exclude_blocked_exits(outcome.step_input, [BlockedExit(exit_token, "sold", "")])
        outcome = evaluation.evaluate_input(step, requests.propose_selling_everything, FakeEvidenceSource(), "abc")

    assert sales == [(asset.address, {asset.address, USDC.address}) for asset in (WETH, LINK)]
    assert outcome.kind is OutcomeKind.HOLD
    why_by_token = {blocked_exit.token: blocked_exit.why for blocked_exit in outcome.decision_result.blocked_exits}
    assert why_by_token[WBTC.address].startswith("refused: oracle_deviation")


def test_asset_with_a_refused_pool_is_not_sold_out() -> None:
    step = step_with_stops(pools=(MARKET[0], DEAR, SOUND))

    outcome = evaluation.evaluate_input(step, requests.sell_out_proposer(WBTC.address), FakeEvidenceSource(), "abc")

    assert outcome.kind is OutcomeKind.HOLD
    assert mentions(outcome.reason, "WBTC", "oracle_deviation")


# --- Approvals that a token ignores


def test_token_without_a_readable_allowance_is_blocked() -> None:
    snapshot = replace(LINK_SALE.step_input.snapshot, allowances=())
    unread = replace(LINK_SALE, step_input=replace(LINK_SALE.step_input, snapshot=snapshot))

    with pytest.raises(evaluation.ExitRefused):
        missing_tokens(unread, composer=FakeComposer(error=Refused("the allowance is not in the snapshot")))


@pytest.mark.parametrize("is_by_owner", [False, True], ids=["by the policy", "by the owner"])
@pytest.mark.parametrize(
    ("outcome", "error_type"),
    [pytest.param(LINK_SALE, evaluation.ExitRefused, id="exit"), pytest.param(REBALANCE, evaluation.ApprovalIgnored, id="rebalance")],
)
def test_token_that_ignores_two_approvals_is_refused_alone(outcome: StepOutcome, error_type: type[Refused], is_by_owner: bool) -> None:
    """As an exit it is blocked; in another plan it is named, so that the others trade without it."""
    assert missing_tokens(outcome, evaluation.MAX_INEFFECTIVE_APPROVALS - 1, is_by_owner=is_by_owner) == [LINK.address]

    with raises_code(error_type, "allowance"):
        missing_tokens(outcome, evaluation.MAX_INEFFECTIVE_APPROVALS, is_by_owner=is_by_owner)


def after_ignored(outcome: StepOutcome, age_s: int, count: int = 1) -> StepOutcome:
    """Return the outcome of a step whose token ignored approvals so long ago."""
    refusal = refusal_of(at_s=NOW_S - age_s, count=count)
    return replace(outcome, step_input=with_history(outcome.step_input, ignored_approvals=(refusal,)))


@pytest.mark.parametrize(("count", "wait_s"), [(1, 600), (2, 1_200), (7, 38_400), (8, 43_200), (90, 43_200)])
def test_ignored_approval_is_not_paid_again_before_its_wait(count: int, wait_s: int) -> None:
    for age_s in (0, wait_s - 1):
        with raises_code(evaluation.ApprovalIgnored, "allowance"):
            missing_tokens(after_ignored(REBALANCE, age_s, count))

    assert missing_tokens(after_ignored(REBALANCE, wait_s, count)) == [LINK.address]


@pytest.mark.parametrize(
    ("outcome", "is_by_owner"),
    [
        pytest.param(after_ignored(REBALANCE, -1), False, id="time from the future"),
        pytest.param(after_ignored(REBALANCE, 0), True, id="command of the owner"),
        pytest.param(after_ignored(LINK_SALE, 0), False, id="exit"),
    ],
)
def test_ignored_approval_delays_neither_exit_nor_owner(outcome: StepOutcome, is_by_owner: bool) -> None:
    assert missing_tokens(outcome, is_by_owner=is_by_owner) == [LINK.address]


def test_ignored_approval_quarantines_unless_a_stop_is_due() -> None:
    due = after_ignored(REBALANCE, 0).step_input
    calm = replace(due, history=replace(due.history, orders=replace(due.history.orders, states=())))

    assert quarantine.quarantine_ignored_approvals(due) is due
    assert [item.token for item in quarantine.quarantine_ignored_approvals(calm).targets.quarantined_tokens] == [LINK.address]


# --- Rest of a refused exit

HEAVY_STOP = step_with_stops("LINK", values=HEAVY, pools=ALL)
RESTS = [(1, 0), (3, 0), (4, 600), (5, 1_200), (6, 2_400), (7, 3_600), (90, 3_600)]
"""Refusals in a row, and the seconds that the exit rests."""


@pytest.mark.parametrize(("count", "rest_s"), RESTS)
def test_refused_exit_rests_longer_each_time(count: int, rest_s: int) -> None:
    assert blocked_exits.retry_at_s(refusal_of(count=count)) == NOW_S + rest_s


@pytest.mark.parametrize(
    ("count", "age_s", "is_sold"),
    [
        pytest.param(3, 0, True, id="three refusals"),
        pytest.param(4, 0, False, id="four refusals"),
        pytest.param(4, 599, False, id="one second before its end"),
        pytest.param(4, 600, True, id="at its end"),
        pytest.param(90, 3_599, False, id="the longest rest"),
        pytest.param(90, -9 * DAY_S, True, id="a header from the future"),
    ],
)
def test_refused_exit_is_sold_once_it_has_rested(count: int, age_s: int, is_sold: bool) -> None:
    step = with_history(HEAVY_STOP, submission_refusals=(refusal_of(at_s=NOW_S - age_s, count=count),))

    proposal = proposals.propose_rebalance(step)

    assert proposal.plan.is_exit is is_sold
    assert (LINK.address in sold_symbols(proposal.plan)) is is_sold
    assert [blocked_exit.token for blocked_exit in proposal.decision_result.blocked_exits] == ([] if is_sold else [LINK.address])


def test_resting_exit_is_named_with_its_remedy() -> None:
    step = with_history(HEAVY_STOP, submission_refusals=(refusal_of(count=4),))

    reason = proposals.propose_rebalance(step).decision_result.decision.reason
    (line,) = orders_document(step)["blocked_exits"]

    assert mentions(reason, "be sold", "4 times", "until", "trimtab resume")
    assert "each cycle" not in reason
    assert mentions(line, "the token said no", "trimtab orders disarm LINK")


def test_sale_by_the_owner_never_rests() -> None:
    step = with_history(LINK_STOP, submission_refusals=(refusal_of(count=90),))

    proposal = requests.sell_out_proposer(LINK.address)(step)

    assert proposal.plan is not None
    assert sold_symbols(proposal.plan) == {LINK.address, USDC.address}


# --- Refusals in a row

NO_SALE = BlockedExit(LINK.address, "no", "")


@pytest.mark.parametrize(
    ("refusals", "counts"),
    [
        pytest.param((), [1], id="the first"),
        pytest.param((refusal_of(), refusal_of(WETH.address)), [2, 1], id="the second, beside another token"),
        pytest.param((refusal_of(at_s=NOW_S - DAY_S),), [2], id="a day later"),
        pytest.param((refusal_of(at_s=NOW_S - DAY_S - 1),), [1], id="a day and a second later"),
    ],
)
def test_refusals_count_in_a_row_within_a_day(refusals: tuple[TokenRefusal, ...], counts: list[int]) -> None:
    step = with_history(LINK_STOP, submission_refusals=refusals)

    added = blocked_exits.add_submission_refusal(step.snapshot, step.history.failures, NO_SALE)

    assert [refusal.refusal_count for refusal in added] == counts
    assert (added[0].token, added[0].at_s, added[0].why) == (LINK.address, NOW_S, "no")


@pytest.mark.parametrize(
    ("sold_token", "open_tokens"), [("", [LINK.address]), (LINK.address, [])], ids=["nothing was sold", "LINK was sold"]
)
def test_refusals_end_once_sold_or_without_an_order(sold_token: str, open_tokens: list[str]) -> None:
    """No order sells WETH."""
    step = with_history(LINK_STOP, submission_refusals=(refusal_of(), refusal_of(WETH.address)))

    open_refusals = blocked_exits.open_submission_refusals(step.history, sold_token)

    assert [refusal.token for refusal in open_refusals] == open_tokens


store = store_fixture("memory")


def approve(store: Store, nonce: int, token: str) -> None:
    """Record a step that only approved this token."""
    unsigned = replace(tx(nonce), to=token)
    store.steps.begin(f"s{nonce}", 1, "{}")
    intent = store.journal.add_intent(f"s{nonce}", unsigned, grant(IntentKind.APPROVE), "", 1, None)
    record_sent(store.journal, intent, f"0x{nonce}", 1, receipt=receipt(f"0x{nonce}", nonce, "0x01"))


@pytest.mark.parametrize("mark", ["mark_submission_refusals", "mark_ignored_approvals"])
def test_approvals_of_a_refused_exit_count_in_no_row(store: Store, mark: str) -> None:
    for nonce, token in enumerate((LINK.address, LINK.address, WETH.address)):
        approve(store, nonce, token)
    assert store.budgets.history(1).failures.approval_cycles_in_row == 3

    getattr(store.budgets, mark)((refusal_of(),))
    assert store.budgets.history(1).failures.approval_cycles_in_row == 1

    approve(store, 3, LINK.address)
    assert store.budgets.history(1).failures.approval_cycles_in_row == 2, "what came later counts"


def test_refusals_are_stored_until_the_owner_resumes(store: Store) -> None:
    refusals = (TokenRefusal(LINK.address, 7, 2, "no; «é» 'x'"),)
    store.budgets.mark_submission_refusals(refusals)
    store.budgets.mark_ignored_approvals(refusals)
    failures = store.budgets.history(1).failures
    assert failures.submission_refusals == failures.ignored_approvals == refusals

    store.pause_switch.resume("looked at it", 2)

    failures = store.budgets.history(1).failures
    assert failures.submission_refusals == failures.ignored_approvals == ()


# --- What a node's fault says about a contract


def simulation_of(unsigned: UnsignedTx, call: object, estimate: object) -> Simulation:
    node = ScriptedTransport(eth_call=call, eth_estimateGas=estimate)
    return NodeSender(node).simulate(unsigned, WETH.address)


@pytest.mark.parametrize(
    ("code", "message", "is_reverted"),
    [
        pytest.param(3, "execution reverted", True, id="revert with data"),
        pytest.param(-32000, "execution reverted: STF", True, id="revert with a reason"),
        pytest.param(-32000, "out of gas", True, id="out of gas"),
        pytest.param(-32000, "insufficient funds for gas * price + value", False, id="empty wallet"),
        pytest.param(-32000, "gas required exceeds allowance (21000)", False, id="gas above the wallet's"),
        pytest.param(-32000, "max fee per gas less than block base fee", False, id="fee below the base fee"),
    ],
)
def test_simulation_says_whether_contracts_refuse(code: int, message: str, is_reverted: bool) -> None:
    fault = RpcFault(code, message, "")

    simulation = simulation_of(replace(tx(0), to=NATIVE, max_fee_wei=9), fault, fault)

    assert not simulation.ok
    assert simulation.reverted is is_reverted


@pytest.mark.parametrize(("gas", "is_reverted"), [(0, True), (100_000, False)], ids=["no gas limit", "a gas limit"])
def test_simulation_tells_burnt_gas_from_an_empty_wallet(gas: int, is_reverted: bool) -> None:
    """A call is lent more gas than an estimate may find; without a gas limit and a price no balance is asked for."""
    burnt = RpcFault(-32000, "gas required exceeds allowance (16777216)", "")

    assert simulation_of(replace(tx(0), gas=gas), "0x", burnt).reverted is is_reverted
