"""Drafts of transactions, without nonce, gas and fees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.model import Head, IntentKind, LayerAction, LayerGrant, Payout, Plan, StepInput
from agent.ports import Approval, PreparedTransaction
from agent.venues.calldata import RebalancerTerms


@dataclass(frozen=True, slots=True)
class EmergencyLimits:
    """Limits of an emergency: maximum gas price, and maximum gas cost of emergencies in 24 h, both
    in wei (None: no limit).
    """

    max_gas_price_wei: int | None
    max_gas_24h_wei: int | None


@dataclass(frozen=True, slots=True)
class TxDraft:
    """A transaction without nonce, gas and fees.

    `min_gas_units` is the least gas that is expected, because a node's estimate can be too low: a
    pair updates its price sums at most once per second, and the first update of each costs 20,000
    more. The estimate omits this if the pair was traded in the same second.

    `approval_terms` are token, spender and amount of an approval, `oracle_growth` a pool and its new
    number of stored observations, `floors_raw` the least outputs of a draft without a plan,
    `init_code_hash` that of a contract that it deploys. `explain_failure` turns the reason of a
    failed simulation into a sentence.
    """

    to: str
    data: str
    kind: IntentKind
    note: str
    plan: Plan | None = None
    approval_terms: tuple[str, str, int] | None = None
    deadline_s: int | None = None
    rebalancer_terms: RebalancerTerms | None = None
    value_wei: int = 0
    layer_action: LayerAction | None = None
    floors_raw: tuple[int, ...] = ()
    oracle_growth: tuple[str, int] | None = None
    payout: Payout | None = None
    layer_grant: LayerGrant | None = None
    min_gas_units: int = 0
    emergency_limits: EmergencyLimits | None = None
    init_code_hash: str | None = None
    explain_failure: Callable[[str], str] = str


class LayerComposer(Protocol):
    """Composer of the transactions of one layer."""

    def composes(self, plan: Plan) -> bool:
        """True if the plan acts in the layer."""

    def missing_approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        """Return the exact approvals that the plan's first action lacks."""

    def compose(self, step: StepInput, plan: Plan, head: Head) -> TxDraft | PreparedTransaction:
        """Return the plan's first action: a draft, or the whole transaction if the venue is
        off-chain. Raises Refused if it is not possible now.
        """
