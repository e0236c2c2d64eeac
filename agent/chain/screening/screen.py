"""The token screen: which tokens and pools of a plan transfer exact amounts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.chain.lens import BALANCE_OF, CallItem, LensPages, address_call
from agent.chain.rpc import Transport
from agent.chain.screening.answers import transfer_outcomes
from agent.chain.screening.calls import approval_calls, single_calls, trial_call
from agent.chain.screening.findings import (
    PoolTrial,
    TestedCall,
    TokenTests,
    approval_result,
    decode_trials,
    judge_token,
    read_controls,
)
from agent.chain.screening.moves import TokenMove, plan_token_moves, pool_moves
from agent.chain.screening.traits import (
    TRAIT_COUNT,
    earlier_balances,
    earlier_block,
    find_rebasing,
    judge_traits,
    trait_items,
)
from agent.model import Plan, ScreenedToken, Snapshot, StepInput


@dataclass(frozen=True, slots=True)
class TokenScreen:
    """Screens tokens through one transport. `wrapped_native` may change balances by deposits,
    without a transfer.
    """

    transport: Transport
    wrapped_native: str

    def __call__(self, step: StepInput, plan: Plan) -> tuple[ScreenedToken, ...]:
        """Return a finding for each token that the plan transfers, usually with one request. Raises
        Retryable.
        """
        return self.screen(step, plan_token_moves(step, plan))

    def screen(self, step: StepInput, moves: tuple[TokenMove, ...]) -> tuple[ScreenedToken, ...]:
        """Return a finding for each token of the transfers. Raises Retryable if the node does not
        run a test.
        """
        block_ref: dict[str, object] = {
            "blockHash": step.snapshot.head.hash,
            "requireCanonical": True,
        }
        return tuple(
            self._screened_token(step.snapshot, tests, block_ref)
            for tests in self._read_tests(step, moves, block_ref)
        )

    def _read_tests(
        self, step: StepInput, moves: tuple[TokenMove, ...], block_ref: object
    ) -> Iterator[TokenTests]:
        """Yield the tests of each token, usually read with one request. Raises Retryable."""
        snapshot = step.snapshot
        tokens = list(dict.fromkeys(move.token for move in moves))
        if not tokens:
            return
        trial_moves = [move for token in tokens for move in pool_moves(moves, token)]
        trial_calls = [trial_call(move, block_ref) for move in trial_moves]
        calls = [call for move in moves for call in single_calls(snapshot, move, block_ref)]
        for token in tokens:
            token_moves = [move for move in moves if move.token == token]
            calls += approval_calls(snapshot, token_moves, step.execution.router, block_ref)
        single_rpc_calls = [call.rpc_call for call in calls]
        trait_pages = LensPages([item for token in tokens for item in trait_items(snapshot, token)])
        trait_calls = trait_pages.calls(block_ref)
        balance_call = address_call(BALANCE_OF, snapshot.owner)
        balance_pages = LensPages([CallItem(token, balance_call) for token in tokens])
        balance_calls = balance_pages.calls(hex(earlier_block(snapshot)))
        parts = (trial_calls, single_rpc_calls, balance_calls, trait_calls)
        answers = iter(self.transport.batch([call for part in parts for call in part]))
        trial_answers, call_answers, balance_answers, page_answers = (
            [next(answers) for _ in part] for part in parts
        )
        records = decode_trials(self.transport, trial_calls, trial_answers)
        outcomes = transfer_outcomes(self.transport, single_rpc_calls, call_answers)
        past_balances_raw = earlier_balances(balance_pages, balance_answers)
        trait_answers = trait_pages.decode(
            trait_pages.requery_unread(self.transport, trait_calls, page_answers)
        )
        trials = [PoolTrial(*trial) for trial in zip(trial_moves, records, strict=True)]
        tested_calls = [TestedCall(*tested) for tested in zip(calls, outcomes, strict=True)]
        for index, token in enumerate(tokens):
            yield TokenTests(
                token,
                tuple(trial for trial in trials if trial.move.token == token),
                tuple(tested for tested in tested_calls if tested.call.move.token == token),
                tuple(trait_answers[TRAIT_COUNT * index : TRAIT_COUNT * (index + 1)]),
                past_balances_raw[index],
            )

    def _screened_token(
        self, snapshot: Snapshot, tests: TokenTests, block_ref: object
    ) -> ScreenedToken:
        """Return the finding of one token; the controls are read only if a test failed."""
        if tests.all_passed:
            screened_token = ScreenedToken(tests.token, *tests.trials[0].result)
        else:
            controls = read_controls(self.transport, snapshot, tests, block_ref)
            screened_token = judge_token(snapshot.owner, tests, controls)
        if not screened_token.finding.is_tradable:
            return screened_token
        result = judge_traits(tests.trait_answers) or approval_result(tests)
        if result is None and tests.token != self.wrapped_native:
            result = find_rebasing(self.transport, snapshot, tests.token, tests.past_balance_raw)
        return screened_token if result is None else ScreenedToken(tests.token, *result)
