"""Findings about one token: what its tests say, and, where one failed, whether the token, a pool,
the wallet or a spender is at fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.chain.lens import CallItem, LensAnswer, LensPages, address_call, answer_uint
from agent.chain.rpc import RpcCall, Transport, parse_bytes
from agent.chain.screening.answers import (
    NOT_TRUE_OUTCOMES,
    SUCCESS_OUTCOMES,
    ScreenResult,
    TransferOutcome,
    TrialRecord,
    decode_record,
    is_trial_answer,
    judge_trial,
    require_answers,
    transfer_outcomes,
)
from agent.chain.screening.calls import (
    UNLISTED_ADDRESS,
    CallRole,
    SingleCall,
    balance_raw,
    transfer_call,
    transfer_from_call,
    trial_call,
)
from agent.chain.screening.moves import TokenMove, holding_pools
from agent.model import FailedPool, ScreenedToken, ScreenSubject, Snapshot, TokenFinding

_PAUSED_SELECTOR = bytes.fromhex("5c975abb")
_BLOCKLIST_VIEWS = ("fe575a87", "e47d6060", "dbac26e9", "fbac3951", "59bf1abe")
"""isBlacklisted, isBlackListed, blacklisted, isBlocked, getBlackListStatus, all (address)."""
MAX_TRIALS_PER_REQUEST = 20


@dataclass(frozen=True, slots=True)
class PoolTrial:
    """Trial of a token through the pool of `move`, the largest there."""

    move: TokenMove
    record: TrialRecord

    @property
    def result(self) -> ScreenResult:
        """Finding of the trial."""
        return judge_trial(self.record)


@dataclass(frozen=True, slots=True)
class TestedCall:
    """A single call with its outcome."""

    call: SingleCall
    outcome: TransferOutcome

    @property
    def failed(self) -> bool:
        """True if the token refused the call."""
        return self.outcome not in SUCCESS_OUTCOMES

    @property
    def account(self) -> str:
        """Account beside the pool: who is paid, or who spends; "" if the wallet itself sends."""
        move = self.call.move
        return {CallRole.PAYEE: move.payee, CallRole.SPENDER: move.spender}.get(
            self.call.role
        ) or ""


@dataclass(frozen=True, slots=True)
class TokenTests:
    """Tests of one token: a trial through each pool that the transfers use, the largest transfer's
    first, the single calls, the answers to `trait_items`, and the wallet's balance some blocks ago
    (None: not read).
    """

    token: str
    trials: tuple[PoolTrial, ...]
    tested_calls: tuple[TestedCall, ...]
    trait_answers: tuple[LensAnswer, ...] = ()
    past_balance_raw: int | None = None

    def calls_of(self, role: CallRole) -> list[TestedCall]:
        """Return the calls of one role."""
        return [tested for tested in self.tested_calls if tested.call.role is role]

    @property
    def all_passed(self) -> bool:
        """True if every pool lent the token and every transfer worked."""
        transfers = (CallRole.PAYEE, CallRole.WALLET, CallRole.SPENDER)
        return all(trial.result[0].is_tradable for trial in self.trials) and not any(
            tested.failed for role in transfers for tested in self.calls_of(role)
        )


def approval_result(tests: TokenTests) -> ScreenResult | None:
    """Return the finding if the token refuses an approval that a sale needs; None if it allows it,
    after a reset to zero or directly.
    """
    resettable_spenders = {
        tested.call.move.spender for tested in tests.calls_of(CallRole.RESET) if not tested.failed
    }
    for tested in tests.calls_of(CallRole.APPROVAL):
        if not tested.failed or tested.call.move.spender in resettable_spenders:
            continue
        if tested.outcome in NOT_TRUE_OUTCOMES:
            return TokenFinding.FALSE_RETURNING, "approve does not return true"
        return TokenFinding.HONEYPOT, "approve of the amount to sell reverts"
    return None


@dataclass(frozen=True, slots=True)
class Controls:
    """Answers that separate the causes of a failure.

    `listed_addresses` are on a blocklist of the token. `outcome_by_pool` are transfers by a pool to
    an address that no one blocks, by the pool's contract; `wallet_outcome` is one by the wallet
    (None: it holds nothing), `unlisted_outcome` one of zero by a spender that no one blocks.
    `other_results` are trials through pools that the transfers do not use.
    """

    is_paused: bool
    listed_addresses: frozenset[str]
    outcome_by_pool: Mapping[str, TransferOutcome]
    wallet_outcome: TransferOutcome | None
    unlisted_outcome: TransferOutcome
    other_results: tuple[ScreenResult, ...]


def read_controls(
    transport: Transport, snapshot: Snapshot, tests: TokenTests, block_ref: object
) -> Controls:
    """Read the controls of one token whose tests failed, in one more request, or several if it has
    many pools. Raises Retryable.
    """
    token = tests.token
    wallet = snapshot.owner
    moves = [trial.move for trial in tests.trials]
    moves += [tested.call.move for tested in tests.tested_calls]
    accounts = {wallet, *(move.pool.contract for move in moves)}
    accounts |= {account for move in moves for account in (move.payee, move.spender) if account}
    view_calls = [
        (account, CallItem(token, address_call(bytes.fromhex(view_selector), account)))
        for account in sorted(accounts)
        for view_selector in _BLOCKLIST_VIEWS
    ]
    view_pages = LensPages([CallItem(token, _PAUSED_SELECTOR), *(item for _, item in view_calls)])
    paying_move_by_contract = {
        move.pool.contract: move
        for move in sorted(moves, key=lambda move: (move.payee is not None, move.raw))
    }
    lender = tests.trials[0].move
    tested_raw = min(balance_raw(snapshot, token), lender.raw)
    calls = [
        transfer_call(token, wallet, UNLISTED_ADDRESS, tested_raw, block_ref),
        transfer_from_call(token, UNLISTED_ADDRESS, wallet, lender.pool.contract, 0, block_ref),
        *(
            transfer_call(token, contract, UNLISTED_ADDRESS, move.lent_raw, block_ref)
            for contract, move in paying_move_by_contract.items()
        ),
    ]
    page_calls = view_pages.calls(block_ref)
    answers = transport.batch([*calls, *page_calls])
    wallet_outcome, unlisted_outcome, *pool_outcomes = transfer_outcomes(
        transport, calls, answers[: len(calls)]
    )
    view_answers = [
        answer_uint(answer)
        for answer in view_pages.decode(
            view_pages.requery_unread(transport, page_calls, answers[len(calls) :])
        )
    ]
    return Controls(
        is_paused=view_answers[0] == 1,
        listed_addresses=frozenset(
            account
            for (account, _), view_answer in zip(view_calls, view_answers[1:], strict=True)
            if view_answer == 1
        ),
        outcome_by_pool=dict(zip(paying_move_by_contract, pool_outcomes, strict=True)),
        wallet_outcome=wallet_outcome if tested_raw else None,
        unlisted_outcome=unlisted_outcome,
        other_results=_other_results(transport, snapshot, tests, block_ref),
    )


def _other_results(
    transport: Transport, snapshot: Snapshot, tests: TokenTests, block_ref: object
) -> tuple[ScreenResult, ...]:
    """Return the results of trials through the token's pools that the transfers do not use, each at
    a hundredth of its depth.
    """
    tested_contracts = {trial.move.pool.contract for trial in tests.trials}
    pool_by_contract = {
        pool.contract: pool
        for pool in holding_pools(snapshot, tests.token)
        if pool.contract not in tested_contracts
    }
    calls = [
        trial_call(TokenMove(tests.token, pool, pool.depth(tests.token) // 100 or 1), block_ref)
        for pool in pool_by_contract.values()
    ]
    records = []
    for start in range(0, len(calls), MAX_TRIALS_PER_REQUEST):
        records += read_trials(transport, calls[start : start + MAX_TRIALS_PER_REQUEST])
    return tuple(map(judge_trial, records))


def read_trials(transport: Transport, calls: Sequence[RpcCall]) -> list[TrialRecord]:
    """Return the records of these trials. Raises Retryable if the node does not run one."""
    return decode_trials(transport, calls, transport.batch(list(calls)))


def decode_trials(
    transport: Transport, calls: Sequence[RpcCall], answers: Sequence[object]
) -> list[TrialRecord]:
    """Return the records of answered trials; one that the node did not run is repeated. Raises
    Retryable.
    """
    complete_answers = require_answers(transport, calls, answers, is_trial_answer)
    return [decode_record(parse_bytes(answer, "the token screen")) for answer in complete_answers]


def judge_token(wallet: str, tests: TokenTests, controls: Controls) -> ScreenedToken:
    """Return the finding of a token whose tests failed.

    A pool that fails is named and left out as long as another pool, of the transfers or not, moves
    the token; the token is at fault if none does, or if the wallet or a spender fails. A token that
    a pool moves is not paused, whatever it says.
    """
    result_by_contract = {
        trial.move.pool.contract: pool_result
        for trial in tests.trials
        if (pool_result := _pool_result(tests, trial, controls)) is not None
    }
    passed_results = [
        trial.result
        for trial in tests.trials
        if trial.move.pool.contract not in result_by_contract and trial.result[0].is_tradable
    ]
    passed_results += [result for result in controls.other_results if result[0].is_tradable]
    if controls.is_paused and not passed_results:
        return ScreenedToken(tests.token, TokenFinding.PAUSED, "paused() returns true")
    if blocked_account := _blocked_account(wallet, tests, controls, bool(passed_results)):
        return blocked_account
    if not passed_results:
        return _finding_without_pools(tests, controls, result_by_contract)
    failed_pools = tuple(
        FailedPool(contract, f"the pool {why}") for contract, (_, why) in result_by_contract.items()
    )
    subject = ScreenSubject.POOL if failed_pools else ScreenSubject.TOKEN
    return ScreenedToken(tests.token, *passed_results[0], subject, failed_pools)


def _pool_result(tests: TokenTests, trial: PoolTrial, controls: Controls) -> ScreenResult | None:
    """Return what the pool of a trial fails at; None if at nothing, or only an account may be at
    fault. A pool that only receives the token need not hold any to lend.
    """
    contract = trial.move.pool.contract
    if contract in controls.listed_addresses:
        return TokenFinding.BLOCKLISTED, "is on its blocklist"
    trial_finding, trial_detail = trial.result
    is_lent = trial_finding is not TokenFinding.UNKNOWN
    if is_lent and not trial_finding.is_tradable:
        return trial_finding, f"fails: {trial_finding.value}, {trial_detail}"
    payments = [
        tested
        for tested in tests.calls_of(CallRole.PAYEE)
        if tested.call.move.pool.contract == contract
    ]
    if payments and (not is_lent or any(tested.failed for tested in payments)):
        pool_outcome = controls.outcome_by_pool[contract]
        amount_text = f"{max(tested.call.move.raw for tested in payments)} base units of it"
        if pool_outcome is TransferOutcome.FAILED:
            return TokenFinding.BLOCKLISTED, f"cannot send {amount_text}"
        if pool_outcome in NOT_TRUE_OUTCOMES:
            return TokenFinding.FALSE_RETURNING, f"does not return true for {amount_text}"
        if not is_lent:
            return TokenFinding.UNKNOWN, f"could not be tested: {trial_detail}"
    for tested in tests.tested_calls:
        if not tested.failed or tested.call.move.pool.contract != contract:
            continue
        if tested.call.role is CallRole.WALLET and controls.wallet_outcome in SUCCESS_OUTCOMES:
            return TokenFinding.BLOCKLISTED, "cannot receive it from the wallet"
        if _works_elsewhere(tests, tested):
            return TokenFinding.BLOCKLISTED, f"cannot exchange it with {tested.account}"
    return None


def _works_elsewhere(tests: TokenTests, failed: TestedCall) -> bool:
    """Return whether the same account passes the same test with another pool."""
    return failed.call.role in (CallRole.PAYEE, CallRole.SPENDER) and any(
        not tested.failed and tested.account == failed.account
        for tested in tests.calls_of(failed.call.role)
    )


def _blocked_account(
    wallet: str, tests: TokenTests, controls: Controls, is_moved_by_a_pool: bool
) -> ScreenedToken | None:
    """Return the finding if the wallet or a spender fails with every pool; None if neither does."""
    accounts = {wallet, *(tested.account for tested in tests.tested_calls if tested.account)}
    for account in sorted(accounts & controls.listed_addresses):
        label = "the wallet" if account == wallet else account
        return _account_finding(tests.token, account, wallet, f"{label} is on its blocklist")
    failed_sales = [tested for tested in tests.calls_of(CallRole.WALLET) if tested.failed]
    if failed_sales and is_moved_by_a_pool and controls.wallet_outcome not in SUCCESS_OUTCOMES:
        return _account_finding(tests.token, wallet, wallet, "the wallet cannot send it")
    for tested in tests.calls_of(CallRole.PAYEE):
        pool_outcome = controls.outcome_by_pool[tested.call.move.pool.contract]
        if (
            tested.failed
            and not _works_elsewhere(tests, tested)
            and pool_outcome in SUCCESS_OUTCOMES
        ):
            detail = f"{tested.account} cannot receive it from pools"
            return _account_finding(tests.token, tested.account, wallet, detail)
    # A token that rejects a transfer of zero has no allowance yet to test with.
    if failed_sales or controls.unlisted_outcome not in SUCCESS_OUTCOMES:
        return None
    for tested in tests.calls_of(CallRole.SPENDER):
        if tested.failed and not _works_elsewhere(tests, tested):
            detail = f"{tested.account} cannot spend it"
            return _account_finding(tests.token, tested.account, wallet, detail)
    return None


def _account_finding(token: str, account: str, wallet: str, detail: str) -> ScreenedToken:
    subject = ScreenSubject.WALLET if account == wallet else ScreenSubject.SPENDER
    return ScreenedToken(token, TokenFinding.BLOCKLISTED, detail, subject)


def _finding_without_pools(
    tests: TokenTests, controls: Controls, result_by_contract: Mapping[str, ScreenResult]
) -> ScreenedToken:
    """Return the finding of a token that no pool moves: that of a trial that ran, else whether its
    transfers are false or blocked for all, else the first pool's.
    """
    token = tests.token
    wallet_outcome = controls.wallet_outcome
    for trial in tests.trials:
        if trial.result[0] is not TokenFinding.UNKNOWN and not trial.result[0].is_tradable:
            return ScreenedToken(token, *trial.result)
    pool_outcomes = {controls.outcome_by_pool[trial.move.pool.contract] for trial in tests.trials}
    if {wallet_outcome, *pool_outcomes} & {*NOT_TRUE_OUTCOMES}:
        detail = "a transfer returned false, or neither true nor empty data"
        return ScreenedToken(token, TokenFinding.FALSE_RETURNING, detail)
    if pool_outcomes == {TransferOutcome.FAILED} and not controls.listed_addresses:
        if wallet_outcome is TransferOutcome.FAILED:
            detail = "neither pools nor the wallet can send it"
            return ScreenedToken(token, TokenFinding.PAUSED, detail)
        if wallet_outcome is None and len(tests.trials) + len(controls.other_results) > 1:
            return ScreenedToken(token, TokenFinding.PAUSED, "pools cannot send it")
    for contract, (finding, why) in result_by_contract.items():
        return ScreenedToken(token, finding, f"pool {contract} {why}", ScreenSubject.POOL)
    first_trial = tests.trials[0]
    contract = first_trial.move.pool.contract
    if controls.outcome_by_pool[contract] is TransferOutcome.FAILED:
        detail = f"pool {contract} cannot send it"
        return ScreenedToken(token, TokenFinding.BLOCKLISTED, detail, ScreenSubject.POOL)
    return ScreenedToken(token, *first_trial.result, ScreenSubject.POOL)
