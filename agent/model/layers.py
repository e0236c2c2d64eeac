"""Parts of the layers in a step's input and in its decision, each found by its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class LayerPart:
    """Base of what belongs to one layer: a frozen dataclass whose fields all have defaults. The
    default stands for a layer that is off, and is not stored.
    """


@dataclass(frozen=True, slots=True)
class LayerState(LayerPart):
    """Base of a layer's state in a step's input."""

    @property
    def changes_with_time(self) -> bool:
        """True if the state may differ at a later block without a new record in the store."""
        return False

    @property
    def is_trading(self) -> bool:
        """True while the layer has a trade under way, which no other layer may begin beside."""
        return False


@dataclass(frozen=True, slots=True)
class LayerResult(LayerPart):
    """Base of a layer's part of a decision."""

    def held(self) -> LayerResult:
        """Return what is left of it if the step trades nothing."""
        return self


T = TypeVar("T", bound=LayerPart)
U = TypeVar("U", bound=LayerPart)


def part_of(parts: tuple[LayerPart, ...], kind: type[T]) -> T:
    """Return the part of this type; its default if there is none."""
    return next((part for part in parts if isinstance(part, kind)), kind())


def with_part(parts: tuple[U, ...], part: U) -> tuple[U, ...]:
    """Return the parts with this one in place of that of the same type, in a canonical order."""
    others = [one for one in parts if type(one) is not type(part)]
    if part != type(part)():
        others.append(part)
    return tuple(sorted(others, key=lambda one: type(one).__name__))
