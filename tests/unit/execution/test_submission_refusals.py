"""An exit that passes every guard and is refused when it is about to be sent: it alone is left, and nothing else is worked around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent.app.positions.orders import orders_document
from agent.chain.rpc import RpcFault, Transport
from agent.chain.sender import NodeSender
from agent.errors import Refused, UnsendableTransaction
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import BlockedExit, IntentKind, IntentState, Plan, StepInput, SubmissionRefusal, Verdict
from agent.planning import proposals, requests
from agent.policy import quarantine
from agent.policy.orders import blocked_exits
from agent.ports import Approval, Composer
from agent.store import Store, open_store
from agent.units import NATIVE
from tests.support.builders import with_history
from tests.support.decisions.exits import (
    DEAR,
    HEAVY,
    LINK,
    MARKET,
    SOUND,
    USDC,
    WBTC,
    WETH,
    GuardEvidence,
    outcome_of,
    sold_symbols,
    step_with_stops,
)
from tests.support.text import mentions, raises_code
from tests.support.transactions import CHAIN_ID, WALLET, grant, receipt, tx

REVERT_DESCRIPTIONS = UnsendableTransaction(
    'simulation of "swap" fails: the token said no', (Verdict("simulation", "no", "success", False),)
)
ALL = (*MARKET, SOUND)


class Composes:
    """Everything is approved, but what `lacks`."""

    def __init__(self, lacks: Sequence[str] = ()) -> None:
        self._lacks = lacks

    def missing_approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        return [Approval(token, "router", 1, token, "router") for token in sold_symbols(plan) if token in self._lacks]


@pytest.mark.parametrize(
    ("guards", "blocks"),
    [
        (["simulation"], False),
        (["expiry"], False),
        (["signer.nonce"], False),
        (["signer.floor", "signer.gas_cost"], False),
        ([], False),
        (["signer.floor"], True),
        (["signer.min_out", "signer.tokens"], True),
    ],
)
def test_only_a_refusal_of_the_trade_blocks_an_exit(guards: list[str], blocks: bool) -> None:
    why = Refused("no", [Verdict(guard, "1", "2", False) for guard in guards])
    assert evaluation.concerns_trade(why) is blocks
    assert evaluation.concerns_trade(REVERT_DESCRIPTIONS)
    assert evaluation.concerns_trade(evaluation.ExitRefused("no"))


def test_manual_swap_is_no_exit() -> None:
    step = step_with_stops("LINK", pools=ALL)
    swap = proposals.manual_swap_proposer(LINK.address, USDC.address, 10**18)(step)
    assert swap.plan is not None
    assert not swap.plan.is_exit
    assert not swap.decision_result.exit_token


def test_selling_everything_sells_one_asset_a_plan() -> None:
    def sale(step: StepInput) -> StepOutcome:
        return evaluation.evaluate_input(step, requests.propose_selling_everything, GuardEvidence(), "abc")

    step, sold = step_with_stops(pools=(MARKET[0], DEAR, SOUND)), []
    while (outcome := sale(step)).plan is not None:
        sold.append((outcome.decision_result.exit_token, sold_symbols(outcome.plan)))
        step = blocked_exits.exclude_blocked_exits(outcome.step_input, [BlockedExit(outcome.decision_result.exit_token, "sold", "")])
    assert sold == [(asset.address, {asset.address, USDC.address}) for asset in (WETH, LINK)]
    assert outcome.kind is OutcomeKind.HOLD
    assert next(
        blocked_exit.why for blocked_exit in outcome.decision_result.blocked_exits if blocked_exit.token == WBTC.address
    ).startswith("refused: oracle_deviation")


def test_asset_with_a_refused_pool_is_not_sold_out() -> None:
    step = step_with_stops(pools=(MARKET[0], DEAR, SOUND))
    outcome = evaluation.evaluate_input(step, requests.sell_out_proposer(WBTC.address), GuardEvidence(), "abc")
    assert outcome.kind is OutcomeKind.HOLD
    assert mentions(outcome.reason, "WBTC", "oracle_deviation")


def test_token_without_a_readable_allowance_is_blocked() -> None:
    outcome = outcome_of(step_with_stops("LINK", pools=ALL))
    assert outcome.plan is not None

    class Silent(Composes):
        def missing_approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
            raise Refused("the allowance is not in the snapshot")

    snapshot = replace(outcome.step_input.snapshot, allowances=())
    mute = replace(outcome, step_input=replace(outcome.step_input, snapshot=snapshot))
    with pytest.raises(evaluation.ExitRefused):
        evaluation.missing_approvals(cast(Composer, Silent()), mute, outcome.plan, lambda _: 0, is_by_owner=False)


@pytest.mark.parametrize("is_by_owner", [False, True])
def test_missing_approvals__token_ignores_two__is_refused_alone(is_by_owner: bool) -> None:
    """As an exit it is blocked; in another plan it is named, so that the others trade without it."""
    outcome = outcome_of(step_with_stops("LINK", pools=ALL))
    plan = outcome.plan
    assert plan is not None
    lacks = cast(Composer, Composes(lacks=(LINK.address,)))
    rebalance = replace(outcome, decision_result=replace(outcome.decision_result, exit_token=""))

    def missing(outcome: StepOutcome, attempts: int) -> Sequence[Approval]:
        return evaluation.missing_approvals(lacks, outcome, plan, lambda _: attempts, is_by_owner=is_by_owner)

    for step_outcome in (outcome, rebalance):
        assert [approval.token for approval in missing(step_outcome, evaluation.MAX_INEFFECTIVE_APPROVALS - 1)] == [LINK.address]
    with raises_code(evaluation.ExitRefused, "allowance"):
        missing(outcome, evaluation.MAX_INEFFECTIVE_APPROVALS)
    with raises_code(evaluation.ApprovalIgnored, "allowance"):
        missing(rebalance, evaluation.MAX_INEFFECTIVE_APPROVALS)


@pytest.mark.parametrize(("times", "waits_s"), [(1, 600), (2, 1_200), (7, 38_400), (8, 43_200), (90, 43_200)])
def test_ignored_approval_is_not_paid_again_before_its_wait(times: int, waits_s: int) -> None:
    """A plan without an exit leaves the token out, one that cannot is refused; an exit and the owner's command go on."""
    outcome = outcome_of(step_with_stops("LINK", pools=ALL))
    plan = outcome.plan
    assert plan is not None
    lacks = cast(Composer, Composes(lacks=(LINK.address,)))
    now_s = outcome.step_input.snapshot.head.timestamp_s

    def at(age_s: int, exit_token: str = "") -> StepOutcome:
        refusal = SubmissionRefusal(LINK.address, now_s - age_s, times, "its allowance is still too small")
        step = with_history(outcome.step_input, ignored_approvals=(refusal,))
        return replace(outcome, step_input=step, decision_result=replace(outcome.decision_result, exit_token=exit_token))

    for age_s in (0, waits_s - 1):
        with raises_code(evaluation.ApprovalIgnored, "allowance"):
            evaluation.missing_approvals(lacks, at(age_s), plan, lambda _: 0, is_by_owner=False)
    for waiting, is_by_owner in ((at(waits_s), False), (at(-1), False), (at(0), True), (at(0, LINK.address), False)):
        assert evaluation.missing_approvals(lacks, waiting, plan, lambda _: 0, is_by_owner=is_by_owner)
    refused = at(0).step_input
    assert quarantine.quarantine_ignored_approvals(refused) is refused, "its stop is due"
    calm = replace(refused, history=replace(refused.history, orders=replace(refused.history.orders, states=())))
    assert [item.token for item in quarantine.quarantine_ignored_approvals(calm).targets.quarantined_tokens] == [LINK.address]


@pytest.mark.parametrize(("times", "rests_s"), [(1, 0), (3, 0), (4, 600), (5, 1_200), (6, 2_400), (7, 3_600), (90, 3_600)])
def test_refused_exit_rests_longer_each_time(times: int, rests_s: int) -> None:
    step = step_with_stops("LINK", values=HEAVY, pools=ALL)
    now_s = step.snapshot.head.timestamp_s
    refused = SubmissionRefusal(LINK.address, now_s, times, "the token said no")
    assert blocked_exits.retry_at_s(refused) == now_s + rests_s
    step = with_history(step, submission_refusals=(refused,))
    proposal = proposals.propose_rebalance(step)
    assert proposal.plan is not None
    assert proposal.plan.is_exit is (rests_s == 0)
    assert (LINK.address in sold_symbols(proposal.plan)) is (rests_s == 0)
    if rests_s:
        assert mentions(proposal.decision_result.decision.reason, "be sold", f"{times} times", "until")
        assert "trimtab resume" in proposal.decision_result.decision.reason
        assert "each cycle" not in proposal.decision_result.decision.reason
    assert ["the token said no" in line and "trimtab orders disarm LINK" in line for line in orders_document(step)["blocked_exits"]] == [
        True
    ]
    ahead = with_history(step, submission_refusals=(replace(refused, at_s=now_s + 9 * 86_400),))
    assert proposals.propose_rebalance(ahead).decision_result.blocked_exits == (), (
        "a header from the future makes nothing rest until that day"
    )
    over = with_history(step, submission_refusals=(replace(refused, at_s=now_s - rests_s),))
    assert proposals.propose_rebalance(over).decision_result.blocked_exits == (), "then it is tried"


def test_sale_by_the_owner_never_rests() -> None:
    step = step_with_stops("LINK", pools=ALL)
    refused = SubmissionRefusal(LINK.address, step.snapshot.head.timestamp_s, 90, "the token said no")
    proposal = requests.sell_out_proposer(LINK.address)(with_history(step, submission_refusals=(refused,)))
    assert proposal.plan is not None
    assert sold_symbols(proposal.plan) == {LINK.address, USDC.address}


def test_refusals_count_in_a_row_until_sold_or_no_exit() -> None:
    step = step_with_stops("LINK", "WBTC", pools=ALL)
    now_s, refused = step.snapshot.head.timestamp_s, BlockedExit(LINK.address, "no", "")
    (first,) = blocked_exits.add_submission_refusal(step.snapshot, step.history.failures, refused)
    assert (first.refusal_count, first.at_s, first.why) == (1, now_s, "no")
    step_after = with_history(step, submission_refusals=(first, replace(first, token=WETH.address)))
    assert [
        refusal.refusal_count for refusal in blocked_exits.add_submission_refusal(step_after.snapshot, step_after.history.failures, refused)
    ] == [2, 1]
    assert blocked_exits.open_submission_refusals(step_after.history, "") == (first,), "no order sells WETH"
    assert blocked_exits.open_submission_refusals(step_after.history, LINK.address) == ()
    for age_s, count in ((86_400, 2), (86_401, 1)):
        old = with_history(step, submission_refusals=(replace(first, at_s=now_s - age_s),))
        assert [refusal.refusal_count for refusal in blocked_exits.add_submission_refusal(old.snapshot, old.history.failures, refused)] == [
            count
        ]


def approved(store: Store, number: int, token: str) -> None:
    store.steps.begin(f"s{number}", 1, "{}")
    intent = store.journal.add_intent(
        f"s{number}", IntentKind.APPROVE, replace(tx(number), to=token), grant(IntentKind.APPROVE), "", 1, None
    )
    store.journal.advance(intent.id, IntentState.SIGNED, 1, tx_hash=f"0x{number}")
    store.journal.advance(intent.id, IntentState.BROADCAST, 1)
    store.journal.advance(intent.id, IntentState.MINED, 1, receipt=receipt(f"0x{number}", number, "0x01"))


def test_approvals_of_a_refused_exit_count_in_no_row(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/books.db", CHAIN_ID, WALLET)
    for number, token in enumerate((LINK.address, LINK.address, WETH.address)):
        approved(store, number, token)
    assert store.budgets.history(1).failures.approval_cycles_in_row == 3
    refusals = (SubmissionRefusal(LINK.address, 7, 2, "no; «é» 'x'"),)
    store.budgets.mark_submission_refusals(refusals)
    assert store.budgets.history(1).failures.submission_refusals == refusals
    assert store.budgets.history(1).failures.approval_cycles_in_row == 1
    approved(store, 3, LINK.address)
    assert store.budgets.history(1).failures.approval_cycles_in_row == 2, "what came later counts"
    store.budgets.mark_ignored_approvals(refusals)
    assert store.budgets.history(1).failures.ignored_approvals == refusals
    assert store.budgets.history(1).failures.approval_cycles_in_row == 1
    store.pause_switch.resume("looked at it", 2)
    assert store.budgets.history(1).failures.submission_refusals == ()
    assert store.budgets.history(1).failures.ignored_approvals == ()


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
def test_simulation_says_whether_contracts_refuse(fault: RpcFault, reverted: bool) -> None:
    simulation = NodeSender(answers(fault, fault)).simulate(replace(tx(0), to=NATIVE, max_fee_wei=9), WETH.address)
    assert (simulation.ok, simulation.reverted) == (False, reverted)


def test_simulation_tells_burnt_gas_from_an_empty_wallet() -> None:
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
