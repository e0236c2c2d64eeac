"""Result of a decision, and the step that deciders share: its prices, drifts and reasons to
stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from agent.layers import questions
from agent.model import (
    NO_PURCHASE,
    AssetDrift,
    BlockedExit,
    Decision,
    Halt,
    HaltCode,
    PurchaseResult,
    Rebalance,
    StepInput,
)
from agent.model.layers import LayerResult
from agent.model.parts import T, active_layer_parts, part_of, with_part
from agent.policy.cash_flows import balance_changes, transfers
from agent.policy.drift import compute_drifts
from agent.policy.step_faults import Fault, decision_faults
from agent.policy.triggers.no_trade_zone import ZoneView
from agent.reference import ReferencePrices
from agent.units import Price

FAULTS_OF_SOME_ASSETS = frozenset((HaltCode.DEPEG, HaltCode.ORACLE_DEVIATION, HaltCode.ORDERS))
"""Faults of prices or orders of some assets, which do not affect exits of other assets."""


def spares_exits(halt: Halt) -> bool:
    """True if only prices or orders of some assets are at fault, so exits of other assets may
    continue.
    """
    return bool(halt.codes) and {*halt.codes} <= FAULTS_OF_SOME_ASSETS


def halt_with(faults: Sequence[Fault]) -> Halt:
    """Return a halt with these faults as its reason."""
    codes = dict.fromkeys(fault.code for fault in faults)
    return Halt("; ".join(fault.message for fault in faults), tuple(codes))


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """A decision with its inputs and consequences. `drifts` is empty if balances or prices are
    unknown.

    `is_reviewed` is true if a schedule was due and its review is done, so that its next interval
    starts at this block; `due_schedules` are the names of such schedules in the store, `next_s` is
    the next due time. `zone` is the state of a no-trade zone, whose rebalance is valid only if the
    plan saves more than it costs. `filled_order_id` is the id of the limit order that is filled.
    `exit_token` is the asset that an exit sells (empty: no exit), `blocked_exits` are exits that
    are not tried. `unsold_reasons` say why the end of a sale of everything leaves assets.
    `purchase_result` is the part of a purchase in parts, `layers` are the parts of
    the layers.
    """

    decision: Decision
    drifts: tuple[AssetDrift, ...]
    references: ReferencePrices
    is_reviewed: bool = False
    zone: ZoneView | None = None
    due_schedules: tuple[str, ...] = ()
    next_s: int | None = None
    filled_order_id: str = ""
    exit_token: str = ""
    blocked_exits: tuple[BlockedExit, ...] = ()
    unsold_reasons: tuple[str, ...] = ()
    purchase_result: PurchaseResult = NO_PURCHASE
    layers: tuple[LayerResult, ...] = ()

    def layer(self, part_type: type[T]) -> T:
        """Return the part of a layer."""
        return part_of(self.layers, part_type)

    def with_layer(self, layer_part: LayerResult) -> DecisionResult:
        """Return the result with this part of a layer."""
        return replace(self, layers=with_part(self.layers, layer_part))

    @property
    def ends_execution(self) -> bool:
        """True if this decision ends the execution under way."""
        return bool(self.purchase_result.end_reason) or any(
            layer_part.ends_execution for layer_part in self.layers
        )

    def with_notes(self, *notes: str) -> DecisionResult:
        """Return the result with these notes, empty ones left out, at the end of its reason."""
        reason = "; ".join(filter(None, (self.decision.reason, *notes)))
        return replace(self, decision=replace(self.decision, reason=reason))

    def without_trades(self, decision: Decision, not_worth_reason: str = "") -> DecisionResult:
        """Return the result of this decision instead, for which purchases and layers trade nothing.
        `not_worth_reason` is the reason if what is due is not worth its cost.
        """
        layer_parts = active_layer_parts(
            layer_part.without_trades(not_worth_reason) for layer_part in self.layers
        )
        return replace(
            self,
            decision=decision,
            purchase_result=self.purchase_result.without_trades(),
            layers=layer_parts,
        )

    def unreviewed(self) -> DecisionResult:
        """Return the result with each schedule that is due still due in the next cycle."""
        return replace(self, is_reviewed=False, due_schedules=())

    def postponed_for(self, decision: Decision) -> DecisionResult:
        """Return the result of this decision instead, which reviews no schedule and concerns
        neither a purchase nor a layer: a due part stays due.
        """
        layer_parts = active_layer_parts(layer_part.when_postponed() for layer_part in self.layers)
        postponed = replace(
            self, decision=decision, purchase_result=NO_PURCHASE, layers=layer_parts
        )
        return postponed.unreviewed()

    @property
    def decision_to_confirm(self) -> Decision:
        """Decision that the preceding blocks have to confirm. For a goal that a layer reaches
        without a trade this is the rebalance that it replaces.
        """
        internal_goals = (layer_part.internal_goal for layer_part in self.layers)
        goal = next((goal for goal in internal_goals if goal is not None), None)
        return self.decision if goal is None else Rebalance(self.decision.reason, goal)


@dataclass(frozen=True)
class DecisionContext:
    """A step with its reference prices. Values shared by several deciders are computed on first
    use; prices and drifts are valid only without faults.
    """

    step: StepInput
    references: ReferencePrices

    @cached_property
    def prices(self) -> Mapping[str, Price]:
        """Reference prices by token, in the numeraire's base units per base unit."""
        return self.references.price_by_token

    @cached_property
    def drifts(self) -> tuple[AssetDrift, ...]:
        """Weight and target of each asset."""
        return compute_drifts(self.step, self.prices)

    @cached_property
    def faults(self) -> tuple[Fault, ...]:
        """Every unknown, stale or contradictory input; empty if the step can be decided."""
        return tuple(decision_faults(self.step, self.references))

    @cached_property
    def stop_fault(self) -> Fault | None:
        """Reason to stop all trading, exits too; None if trading is allowed."""
        step = self.step
        return first_fault(
            (HaltCode.STOPPED, step.history.stop_reason),
            (HaltCode.LEDGER, step.history.ledger_mismatch),
            *((layer.code, layer.stop(step)) for layer in questions.FAULTS),
        )

    @cached_property
    def exits_only_faults(self) -> tuple[Fault, ...]:
        """Reasons to allow only exits and withdrawals of liquidity; empty if rebalances are allowed
        too.
        """
        reasons = (
            (HaltCode.WITHDRAWAL, transfers.open_withdrawal_reason(self.step)),
            (
                HaltCode.BALANCE_CHANGE,
                balance_changes.halt_reason(
                    self.step.portfolio, self.step.limits, self.step.history.cash_flows
                ),
            ),
            *((layer.code, layer.exits_only(self.step)) for layer in questions.FAULTS),
        )
        return tuple(Fault(code, reason) for code, reason in reasons if reason)

    def result(self, decision: Decision) -> DecisionResult:
        """Return the result of this decision."""
        return DecisionResult(decision, self.drifts, self.references)


def first_fault(*reasons: tuple[HaltCode, str]) -> Fault | None:
    """Return the first of these faults with a reason; None if every reason is empty."""
    return next((Fault(code, reason) for code, reason in reasons if reason), None)


Decider = Callable[[DecisionContext], DecisionResult | None]
"""Function that returns the decision of a step, or None to leave it to the next decider."""


def decider_results(
    deciders: Sequence[Decider], context: DecisionContext
) -> Iterator[DecisionResult]:
    """Yield the result of each decider that has one."""
    for decider in deciders:
        if (decision_result := decider(context)) is not None:
            yield decision_result


def first_result(deciders: Sequence[Decider], context: DecisionContext) -> DecisionResult | None:
    """Return the first result of these deciders; None if none decides."""
    return next(decider_results(deciders, context), None)
