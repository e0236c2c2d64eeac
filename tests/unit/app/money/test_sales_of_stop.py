"""What keeps a stop open: quarantine of something that the wallet holds, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from agent.app.money.sales_of_stop import is_sale_delayed
from agent.execution.step_context import StepOutcome
from agent.model import ScreenedToken, StepInput, TokenFinding, UnreadableItem
from agent.policy.quarantine import quarantine_tokens
from agent.units import Token
from tests.support.builders import step_input, with_snapshot
from tests.support.tokens import USDC, WBTC, WETH

TARGETS = {"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}
WITHOUT_WBTC = {"WETH": 5, "WBTC": 0, "USDC": 9_000}


def quarantined(*tokens: Token) -> Callable[[StepInput], StepInput]:
    screened_tokens = [ScreenedToken(token.address, TokenFinding.CODE_CHANGED) for token in tokens]
    return lambda step: quarantine_tokens(step, screened_tokens)


def failed_pools(of: Token) -> Callable[[StepInput], StepInput]:
    def fail(step: StepInput) -> StepInput:
        pools = [pool for pool in step.snapshot.pools if of.address in (pool.token0, pool.token1)]
        assert pools
        return with_snapshot(step, unreadable_items=tuple(UnreadableItem("pool", pool.address, "it cannot pay") for pool in pools))

    return fail


def quarantined_of_unknown_balance(token: Token) -> Callable[[StepInput], StepInput]:
    def fail(step: StepInput) -> StepInput:
        holdings = tuple(holding for holding in step.snapshot.holdings if holding.token != token.address)
        return with_snapshot(quarantined(token)(step), holdings=holdings)

    return fail


CASES = {
    "nothing failed": (lambda step: step, False),
    "token that is held": (quarantined(WETH), True),
    "token that is not held": (quarantined(WBTC), False),
    "token of unknown balance": (quarantined_of_unknown_balance(WBTC), True),
    "both": (quarantined(WETH, WBTC), True),
    "numeraire": (quarantined(USDC), True),
    "pool of a token that is held": (failed_pools(WETH), True),
    "pool of a token that is not held": (failed_pools(WBTC), False),
}


@pytest.mark.parametrize(("fail", "is_delayed"), CASES.values(), ids=CASES)
def test_is_sale_delayed__by_quarantine_of_what_the_wallet_holds(fail: Callable[[StepInput], StepInput], is_delayed: bool) -> None:
    step = fail(step_input(TARGETS, WITHOUT_WBTC))
    outcome = cast(StepOutcome, SimpleNamespace(step_input=step))
    assert is_sale_delayed(outcome) is is_delayed
