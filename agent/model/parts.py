"""Bases of what belongs to one layer in a snapshot and in a plan, each found by its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class LayerPart:
    """Base of what belongs to one layer: a frozen dataclass whose fields all have defaults. The
    default stands for a layer that is off, and is not stored.
    """


@dataclass(frozen=True, slots=True)
class LayerReading(LayerPart):
    """Base of what a snapshot has read for a layer."""


@dataclass(frozen=True, slots=True)
class LayerPlan(LayerPart):
    """Base of a layer's part of a plan."""

    @property
    def acts(self) -> bool:
        """True if the plan acts in the layer; such a plan has no legs, and is made again after each
        of its transactions.
        """
        return False


T = TypeVar("T", bound=LayerPart)
U = TypeVar("U", bound=LayerPart)


def part_of(parts: tuple[LayerPart, ...], kind: type[T]) -> T:
    """Return the part of this type; its default if there is none."""
    for part in parts:
        if isinstance(part, kind):
            return part
    return kind()


def with_part(parts: tuple[U, ...], part: U) -> tuple[U, ...]:
    """Return the parts with this one in place of that of the same type, in a canonical order."""
    others = [one for one in parts if type(one) is not type(part)]
    if part != type(part)():
        others.append(part)
    return tuple(sorted(others, key=lambda one: type(one).__name__))
