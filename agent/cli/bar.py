"""A weight beside its target as a bar, as wide as there is room for."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

BAR_CELLS, FEWEST_CELLS = 24, 5


@dataclass(frozen=True, slots=True)
class Bar:
    """A weight as a bar as wide as there is room for, `full_bps` the whole of it; what is too much or missing stands out."""

    weight_bps: int
    target_bps: int
    full_bps: int
    outside: bool

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(FEWEST_CELLS, BAR_CELLS)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, BAR_CELLS)
        weight, target = (round(value / max(1, self.full_bps) * (width - 1)) for value in (self.weight_bps, self.target_bps))
        off = "red" if self.outside else "green"
        both, more = min(weight, target), abs(weight - target)
        yield Text.assemble(
            ("━" * both, "green" if weight >= target else off),
            ("╌" * more if weight < target else "", off),
            ("┃", "bold"),
            ("━" * more if weight > target else "", off),
        )
