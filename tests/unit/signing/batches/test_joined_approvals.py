"""Which approvals are in one call with their swaps: those of a Safe that makes batches, for a plan that a batch can carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agent.model import Plan
from agent.ports import Approval
from agent.signing.batches import BATCH_CONTRACT
from agent.venues.composer import RouterComposer
from tests.support.signing import COIN, HUB, PLAN, ROUTER, USDT, WALLET, WETH


class LayerOfEverything:
    """A layer that takes every plan."""

    def composes(self, _: Plan) -> bool:
        return True


APPROVAL = Approval(WETH, ROUTER, 1, "WETH", "router")
RESET = Approval(USDT, ROUTER, 0, "USDT", "router")


@pytest.mark.parametrize(
    ("batch_contract", "plan", "approvals", "layers", "joins"),
    [
        (BATCH_CONTRACT, PLAN, [APPROVAL], (), True),
        (BATCH_CONTRACT, HUB, [APPROVAL, APPROVAL], (), True),
        (None, PLAN, [APPROVAL], (), False),
        (BATCH_CONTRACT, PLAN, [RESET, APPROVAL], (), False),
        (BATCH_CONTRACT, COIN, [APPROVAL], (), False),
        (BATCH_CONTRACT, PLAN, [APPROVAL], (LayerOfEverything(),), False),
    ],
    ids=["swaps", "swaps over a hub", "no batches", "reset to zero", "native coin", "layer"],
)
def test_approvals_are_joined_to_swaps_alone(
    batch_contract: str | None, plan: Plan, approvals: Sequence[Approval], layers: Any, joins: bool
) -> None:
    nothing: Any = None
    composer = RouterComposer(nothing, WALLET, nothing, layers, batch_contract=batch_contract)
    assert composer.joins_approvals(plan, approvals) is joins
