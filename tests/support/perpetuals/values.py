"""Steps whose portfolio counts a margin account."""

from __future__ import annotations

from dataclasses import replace

from agent.layers.futures.state import with_policy
from agent.model import StepInput
from agent.model.futures import MarginAccount
from tests.support.builders import step_input, token, with_snapshot
from tests.support.perpetuals.steps import EVEN, FUTURES_POLICY

USDC = token("USDC").address
WETH = token("WETH").address
OURS = replace(FUTURES_POLICY, collateral=USDC)


def step_with_margin(margin_account: MarginAccount | None, values: dict[str, int] | None = None, **changes: object) -> StepInput:
    """A wallet with this margin account beside it, whose collateral is USDC."""
    account = None if margin_account is None else replace(margin_account, collateral_unit_raw=10**12)
    return with_policy(with_snapshot(step_input(values=values or EVEN), futures=account, **changes), OURS)
