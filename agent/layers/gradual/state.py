"""State of gradual executions in a step's input: terms, progress, draws and the shared budget."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.model import (
    Destination,
    Execution,
    ExecutionPace,
    Goal,
    LayerResult,
    LayerState,
    TradeSide,
)


@dataclass(frozen=True, slots=True)
class SliceDraw:
    """Random draws, in millionths (0 to 999,999), for the size of a slice and for the wait after
    it.
    """

    size_ppm: int
    wait_ppm: int


@dataclass(frozen=True, slots=True)
class BudgetCarryover:
    """Used part of a budget that successive gradual executions share.

    The budget ends at chain time `until_s`, set by the first execution. `value_to_move` is the
    largest value that any execution was to move and `lost_value` the total loss, in numeraire base
    units. `arrival_prices` are the prices against which the next execution is also measured (empty:
    its own start prices).
    """

    until_s: int
    value_to_move: Fraction
    lost_value: Fraction
    arrival_prices: tuple[tuple[str, Fraction], ...] = ()


@dataclass(frozen=True, slots=True)
class GradualExecution:
    """Terms of one gradual execution, fixed at its start. Values are in numeraire base units.

    It trades towards `goal` while the config's `targets_bps`, `destination`, `trade_side` and
    `pace` stay unchanged. `arrival_prices` are the reference prices by token at its start; value
    and loss are measured at these prices. `value_to_move` is the value to move, on the
    `side_by_token` (token, +1 to buy or -1 to sell), in `rounds` equal slices. `max_loss` is the
    largest loss, gas included (None: off). The last slice begins about `ends_s`, and none from
    `expires_s` on. `first_draw` decides the size of the first slice. `carryover` is the used part
    of a shared budget.
    """

    pace: ExecutionPace
    targets_bps: tuple[tuple[str, int], ...]
    destination: Destination
    goal: Goal
    arrival_prices: tuple[tuple[str, Fraction], ...]
    side_by_token: tuple[tuple[str, int], ...]
    value_to_move: Fraction
    rounds: int
    max_loss: Fraction | None
    began_s: int
    ends_s: int
    expires_s: int
    first_draw: SliceDraw
    trade_side: TradeSide | None = None
    carryover: BudgetCarryover | None = None

    @property
    def style(self) -> str:
        """Style of the execution."""
        return self.pace.style.value

    @property
    def part_count(self) -> int:
        """Number of slices."""
        return self.rounds


@dataclass(frozen=True, slots=True)
class ExecutionProgress:
    """Progress of the gradual execution `execution`, from the receipts of its transactions.

    `parts_done` counts slices. `moved_value` and `lost_value` are values at arrival prices;
    `lost_value` is value given less value received, plus the gas of every mined transaction. The
    next slice is due at chain time `next_s`; `draw` decides its size and is stored before the
    previous slice is sent.
    """

    id: str
    execution: GradualExecution
    parts_done: int
    moved_value: Fraction
    lost_value: Fraction
    next_s: int
    draw: SliceDraw

    @property
    def terms(self) -> GradualExecution:
        """Terms of the execution."""
        return self.execution


@dataclass(frozen=True, slots=True)
class ExecutionSlice:
    """One slice: its number, the share `traded_share` of the remaining value to trade, and that
    value `remaining_value` in numeraire base units.
    """

    number: int
    traded_share: Fraction
    remaining_value: Fraction


@dataclass(frozen=True, slots=True)
class GradualState(LayerState):
    """Gradual executions at a step's block.

    `progress` is the execution under way, `ended_s` the chain time at which the last one ended,
    `draw` the draw for the first slice of the next one (None: not drawn yet), and `carryover` the
    used part of a shared budget.
    """

    progress: ExecutionProgress | None = None
    ended_s: int | None = None
    draw: SliceDraw | None = None
    carryover: BudgetCarryover | None = None

    @property
    def changes_with_time(self) -> bool:
        """See LayerState."""
        return self.progress is not None or self.carryover is not None

    @property
    def last_trade_end(self) -> tuple[int | None, str]:
        """See LayerState."""
        return self.ended_s, "gradual execution"

    @property
    def execution(self) -> Execution | None:
        """See LayerState."""
        return self.progress


@dataclass(frozen=True, slots=True)
class GradualResult(LayerResult):
    """Part of a decision: `due_slice` is the slice that is due (None: none), `end_reason` why the
    execution ended (empty: it did not), `new_execution` the one that begins with this decision
    (None: none).
    """

    due_slice: ExecutionSlice | None = None
    end_reason: str = ""
    new_execution: GradualExecution | None = None

    @property
    def ends_execution(self) -> bool:
        """See LayerResult."""
        return bool(self.end_reason)

    def without_trades(self, not_worth_reason: str = "") -> LayerResult:
        """See LayerResult."""
        if not_worth_reason and self.due_slice is not None and self.new_execution is None:
            return GradualResult(end_reason=f"its next slice is {not_worth_reason}")
        return GradualResult(end_reason=self.end_reason)
