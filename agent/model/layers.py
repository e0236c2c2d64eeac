"""Parts of the layers in a step's input and in its decision, each found by its type."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from agent.model.parts import LayerPart
from agent.model.plan import Goal, Plan
from agent.model.triggers import Trigger
from agent.model.weights import OwnedAllocator, SignalAnswer
from agent.units import Value


class ExecutionTerms(Protocol):
    """Terms of an execution that takes several steps; values in numeraire base units."""

    @property
    def style(self) -> str:
        """Style: "rounds", "twap" or "limit"."""

    @property
    def part_count(self) -> int:
        """Expected number of parts."""

    @property
    def began_s(self) -> int:
        """Chain time of its start."""

    @property
    def expires_s(self) -> int:
        """Chain time of its end."""

    @property
    def value_to_move(self) -> Fraction:
        """Value to move."""

    @property
    def max_loss(self) -> Fraction | None:
        """Largest loss against the prices at its start; None without one."""


class Execution(Protocol):
    """Progress of an execution that takes several steps."""

    @property
    def id(self) -> str:
        """Id, by which the owner can end it."""

    @property
    def terms(self) -> ExecutionTerms:
        """Terms, fixed at its start."""

    @property
    def parts_done(self) -> int:
        """Number of parts done."""

    @property
    def next_s(self) -> int:
        """Chain time at which the next part is due."""

    @property
    def moved_value(self) -> Fraction:
        """Value moved, at the prices at its start."""

    @property
    def lost_value(self) -> Fraction:
        """Value lost, at the prices at its start."""


@dataclass(frozen=True, slots=True)
class LayerConfig(LayerPart):
    """Base of a layer's settings in a step's input."""

    @property
    def divides_wallet(self) -> bool:
        """True if parts of the wallet have targets, triggers and cooldowns of their own."""
        return False

    @property
    def acts_beside_spot(self) -> bool:
        """True if the layer may act although the spot portfolio holds or its plan is refused."""
        return False

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """Triggers besides the policy's."""
        return ()

    @property
    def allocators(self) -> tuple[OwnedAllocator, ...]:
        """Allocators besides the portfolio's."""
        return ()

    def planned_deposit(self, plan: Plan) -> tuple[str, int, str] | None:
        """Return token, base units and spender of the plan's deposit; None without one."""
        return None


@dataclass(frozen=True, slots=True)
class LayerState(LayerPart):
    """Base of a layer's state in a step's input."""

    @property
    def changes_with_time(self) -> bool:
        """True if the state may differ at a later block without a new record in the store."""
        return False

    @property
    def allocator_answers(self) -> tuple[SignalAnswer, ...]:
        """Answers that choose the weights for an allocator."""
        return ()

    @property
    def trigger_answer(self) -> SignalAnswer | None:
        """Answer of the function that is the trigger."""
        return None

    def for_part(self, part_name: str) -> LayerState:
        """Return the state as it concerns this part of a divided wallet, by its name."""
        return self

    @property
    def emergency_gas_24h_wei(self) -> int:
        """Gas of the layer's emergencies in the last 24 h."""
        return 0

    @property
    def last_trade_end(self) -> tuple[int | None, str]:
        """End of the layer's last trade, from which policy.cooldown counts too, and its name."""
        return None, ""

    @property
    def execution(self) -> Execution | None:
        """Execution under way over several steps, which no other may begin beside."""
        return None


@dataclass(frozen=True, slots=True)
class LayerProgress(LayerPart):
    """Base of what a step has done in a layer, and has found impossible there, so far."""

    @property
    def continue_reason(self) -> str:
        """Reason why the rest of this step's rebalance goes on whatever the bands say; empty if
        it does not.
        """
        return ""


@dataclass(frozen=True, slots=True)
class LayerResult(LayerPart):
    """Base of a layer's part of a decision."""

    @property
    def ends_execution(self) -> bool:
        """True if the decision ends the layer's execution under way."""
        return False

    @property
    def internal_goal(self) -> Goal | None:
        """Goal that the layer reaches without a trade on the market; None if it does not."""
        return None

    def without_trades(self, not_worth_reason: str = "") -> LayerResult:
        """Return what remains of this result if the step trades nothing. `not_worth_reason` is the
        reason if what is due is not worth its cost, otherwise empty.
        """
        return self

    def when_postponed(self) -> LayerResult:
        """Return what remains of this result if another decision is carried out, which does not
        concern the layer; a due part stays due.
        """
        return type(self)()


@dataclass(frozen=True, slots=True)
class LayerRequest(ABC):
    """Base of the owner's requests to a layer, from which a step starts. `names_amount` is False if
    the request names a target, so that the request repeated acts only on what is left.
    """

    names_amount = True

    @property
    @abstractmethod
    def command(self) -> str:
        """The owner's command that makes the request."""


class LayerGuardAnswers:
    """What the guards ask a layer about one plan; these answers are those on a plan that acts in no
    layer.
    """

    exemption_text = ""
    """Text of limits that do not apply to a plan that only lowers the layer's risk."""

    def only_reduces(self) -> bool:
        """True if the plan only lowers the layer's risk."""
        return False

    def only_withdraws(self) -> bool:
        """True if the plan only moves to the wallet what the layer has outside of it."""
        return False

    def is_required(self) -> bool:
        """True if a limit requires this plan, so that neither cost nor size blocks it. Raises
        Refused if the plan cannot be simulated.
        """
        return False

    def cost(self) -> Value:
        """Return the cost of the plan's actions besides gas. Raises Refused as `is_required`."""
        return Fraction(0)

    def worst_cost(self) -> Value:
        """Return the largest such cost that the actions allow. Raises Refused as `is_required`."""
        return Fraction(0)

    def pool_deviations(self) -> Sequence[tuple[Fraction, str]]:
        """Return the relative deviations of the actions' pools from the reference, each with the
        pool's name. Raises Refused as `is_required`, and for a pool without a price.
        """
        return ()

    def needs_no_gas(self) -> bool:
        """True if the plan sends no transaction."""
        return False

    def needs_no_spot_price(self) -> bool:
        """True if the plan has to be carried out whatever the prices of the spot portfolio."""
        return False

    def layer_gas_budget(self) -> tuple[int | None, int] | None:
        """Return the layer's own daily gas limit for this plan (None: off) and the gas used of it, in
        wei. None if the plan counts as other gas.
        """
        return None
