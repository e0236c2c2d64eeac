"""A cycle of the agent: what its steps have confirmed, sent and skipped so far. The store keeps the
open cycle, so that a restarted process continues it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from agent.model.parts import LayerPart, part_of, with_part
from agent.model.plan import Plan
from agent.model.portfolio import BlockedExit, TokenRefusal
from agent.model.step import PlanRequest, StepInput, names_amount
from agent.model.transactions import Intent, IntentKind


class CycleEnd(Enum):
    """Why a cycle takes no further step; OPEN while it goes on."""

    OPEN = "open"
    NOTHING_DUE = "nothing due"
    REFUSED = "refused"
    DECLINED = "declined"
    FAILED = "failed"
    DONE = "done"
    STEP_LIMIT = "step limit"
    """It has taken its largest number of steps, or sent what one cycle may send."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What was confirmed, as far as later plans are compared with it."""

    plan_hash: str
    exit_token: str = ""
    exit_raw: int = 0
    """Base units of that token in the wallet."""
    acts_in_layer: bool = False
    has_actions: bool = False
    """True if the plan has actions on positions."""
    order_id: str = ""
    """Id of the limit order that the plan fills."""
    quarantined_tokens: tuple[str, ...] = ()
    blocked_exit_tokens: tuple[str, ...] = ()
    """Tokens without trades, and tokens of blocked exits, that the plan named."""
    is_of_ended_process: bool = False
    """True after a restart: only a plan with the same hash is confirmed then."""


@dataclass(frozen=True, slots=True)
class StepEnd:
    """End of one step of the cycle, by its id in the journal."""

    step_id: str
    reason: str
    exit_token: str = ""
    failed: bool = False
    """True if a transaction was sent without success."""


@dataclass(frozen=True, slots=True)
class InterruptedExit:
    """An exit that could not be sent because an endpoint failed, with the parts of the error."""

    token: str
    message: str
    remedy: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class LayerCycle(LayerPart):
    """Base of what a cycle has done in a layer, and has found impossible there."""

    @property
    def refusal_time_by_exit(self) -> Mapping[str, int]:
        """Names of refused exits of the layer, with the chain time of the refusal."""
        return {}

    def with_progress(self, step: StepInput) -> StepInput:
        """Return the step with the layer's progress."""
        return step

    def postpones(self, plan: Plan) -> bool:
        """True if the layer postpones this plan to the next cycle."""
        return False

    def counts_as_done_despite(self, plan: Plan | None) -> bool:
        """True if the cycle counts as done although this plan of the layer follows."""
        return False

    def notes(self) -> list[str]:
        """Return notes on the actions done."""
        return []

    @property
    def failed_exits(self) -> tuple[StepEnd, ...]:
        """Exits that were refused or failed; purchases then wait for the next cycle."""
        return ()

    @property
    def may_act_again(self) -> bool:
        """True if the layer may act after the swap of the cycle."""
        return False


C = TypeVar("C", bound=LayerCycle)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What the steps of a cycle have confirmed, sent and skipped.

    `spend_caps` (base units by token), `spent_gas_wei` and `approval_attempts` (approvals sent by
    token) concern the current plan. `sent_kinds` are the kinds of all transactions.

    `sent_exits` are the sent exits, `skipped_exits` those that the rest of the cycle ignores.
    `earlier_refusals` are the exits that simulation or signer refused, each with the refusal that
    was stored before (None: none). `interrupted_exits` are exits that an endpoint's failure kept
    from being sent. `withheld_exits` are exits that the owner declined or whose gas was refused.
    After an interrupted, withheld or failed exit only plans that reduce risk are sent.
    `direct_route_tokens` are tokens whose exits failed on a route through another token and are
    planned again without it. `swap_step_id` is the id of the step of the rebalance's swap,
    `sending_step_id` that of the step whose transaction may be under way.
    """

    id: str
    request: PlanRequest
    began_s: int
    end_state: CycleEnd = CycleEnd.OPEN
    restarts: int = 0
    sending_step_id: str = ""
    sent_kinds: tuple[IntentKind, ...] = ()
    spend_caps: tuple[tuple[str, int], ...] = ()
    spent_gas_wei: int = 0
    approval_attempts: tuple[tuple[str, int], ...] = ()
    layers: tuple[LayerCycle, ...] = ()
    confirmation: Confirmation | None = None
    swap_step_id: str = ""
    sent_exits: tuple[StepEnd, ...] = ()
    skipped_exits: tuple[BlockedExit, ...] = ()
    earlier_refusals: tuple[tuple[str, TokenRefusal | None], ...] = ()
    interrupted_exits: tuple[InterruptedExit, ...] = ()
    withheld_exits: tuple[StepEnd, ...] = ()
    direct_route_tokens: tuple[str, ...] = ()

    def layer(self, part_type: type[C]) -> C:
        """Return what the cycle has done in a layer."""
        return part_of(self.layers, part_type)

    def with_layer(self, part: LayerCycle) -> Cycle:
        """Return the cycle with this part of a layer."""
        return replace(self, layers=with_part(self.layers, part))

    @property
    def is_open(self) -> bool:
        """True if a further step may follow."""
        return self.end_state is CycleEnd.OPEN

    @property
    def has_traded(self) -> bool:
        """True if a transaction other than an approval was sent and has ended."""
        return any(kind not in (IntentKind.APPROVE, IntentKind.CANCEL) for kind in self.sent_kinds)

    @property
    def may_have_traded(self) -> bool:
        """True if its request names an amount, and a transaction of it ended or may be under way."""
        return names_amount(self.request) and (bool(self.sending_step_id) or self.has_traded)

    @property
    def tried_exit_tokens(self) -> tuple[str, ...]:
        """Tokens of the exits that were sent or skipped."""
        sent_tokens = [note.exit_token for note in self.sent_exits]
        return tuple(
            dict.fromkeys(
                [*sent_tokens, *(skipped_exit.token for skipped_exit in self.skipped_exits)]
            )
        )

    @property
    def failed_exits(self) -> tuple[StepEnd, ...]:
        """Sent exits without success."""
        return tuple(note for note in self.sent_exits if note.failed)

    @property
    def failed_layer_exits(self) -> tuple[StepEnd, ...]:
        """Exits of layers that were refused or failed."""
        return tuple(note for part in self.layers for note in part.failed_exits)

    @property
    def is_risk_reducing_only(self) -> bool:
        """True after an unsold exit: purchases wait for the next cycle."""
        failed_exits = self.failed_exits or self.failed_layer_exits
        return bool(failed_exits or self.interrupted_exits or self.withheld_exits)

    def end(self, reason: CycleEnd) -> Cycle:
        """Return the cycle without further steps."""
        return replace(self, end_state=reason)

    def begin_plan(self) -> Cycle:
        """Return the cycle before its next plan, which has approvals of its own."""
        return replace(self, approval_attempts=(), spend_caps=(), spent_gas_wei=0)

    def with_transaction(self, intent: Intent) -> Cycle:
        """Return the cycle after a transaction, with its gas."""
        gas_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
        return replace(
            self,
            sending_step_id="",
            sent_kinds=(*self.sent_kinds, intent.kind),
            spent_gas_wei=self.spent_gas_wei + gas_wei,
        )

    def after_exit(self, blocked_exit: BlockedExit | None = None) -> Cycle:
        """Return the cycle ready for the plan that follows an exit. From then on the cycle ignores
        the exit `blocked_exit`, if given.
        """
        skipped_exits = (
            self.skipped_exits if blocked_exit is None else (*self.skipped_exits, blocked_exit)
        )
        return replace(self.begin_plan(), confirmation=None, skipped_exits=skipped_exits)

    def take_direct_route(self, token: str) -> Cycle:
        """Return the cycle in which this exit is planned again, without a route through another
        token.
        """
        return replace(self.after_exit(), direct_route_tokens=(*self.direct_route_tokens, token))


def increment_count(counts: tuple[tuple[str, int], ...], name: str) -> tuple[tuple[str, int], ...]:
    """Return the counts with one more of this name."""
    count_by_name = dict(counts)
    return tuple((count_by_name | {name: count_by_name.get(name, 0) + 1}).items())
