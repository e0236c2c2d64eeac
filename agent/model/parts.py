"""Bases of what belongs to one layer in a snapshot, in a decision and in a plan."""

from __future__ import annotations

from collections.abc import Iterable
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

    def needs_no_gas(self, decision: LayerDecision) -> bool:
        """True for a decision whose plan sends no transaction."""
        return False


@dataclass(frozen=True, slots=True)
class LayerPlan(LayerPart):
    """Base of a layer's part of a plan."""

    @property
    def acts(self) -> bool:
        """True if the plan acts in the layer; such a plan has no legs, and is made again after each
        of its transactions.
        """
        return False

    @property
    def is_emergency(self) -> bool:
        """True if the plan may pay the fees of an emergency."""
        return False

    @property
    def action_count(self) -> int:
        """Number of the plan's actions in the layer, each a transaction."""
        return 0

    @property
    def exit_name(self) -> str:
        """Name that failures of a plan that only lowers risk are counted under; empty for any other
        plan.
        """
        return ""


@dataclass(frozen=True, slots=True)
class LayerDecision:
    """Base of a decision to act in a layer, with its reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class LayerGrant:
    """Base of what a grant permits in a layer."""

    @property
    def is_emergency(self) -> bool:
        """True if the transaction may pay the fees of an emergency."""
        return False


def position_name(venue: str, contract: str, token_id: int | None) -> str:
    """Return the venue with the token id, such as "uniswap_v3 #42", or with the pair's address."""
    return f"{venue} {contract}" if token_id is None else f"{venue} #{token_id}"


@dataclass(frozen=True, slots=True)
class LayerAction:
    """Base of a layer's action on a position at a venue, one transaction of a plan.

    `contract` is the pair of fungible positions, or the contract of positions with a `token_id`
    (None: fungible, or not yet minted). `pool` is the pool with both tokens.
    """

    venue: str
    contract: str
    token_id: int | None
    pool: str
    token0: str
    token1: str

    @property
    def name(self) -> str:
        """Display name of the position."""
        return position_name(self.venue, self.contract, self.token_id)

    @property
    def spends_raw(self) -> dict[str, int]:
        """Most base units taken from the wallet, by token."""
        return {}

    @property
    def min_received_raw(self) -> dict[str, int]:
        """Least base units paid to the wallet, by token."""
        return {}


T = TypeVar("T", bound=LayerPart)
U = TypeVar("U", bound=LayerPart)


def part_of(parts: tuple[LayerPart, ...], part_type: type[T]) -> T:
    """Return the part of this type; its default if there is none."""
    for part in parts:
        if isinstance(part, part_type):
            return part
    return part_type()


def active_layer_parts(parts: Iterable[U]) -> tuple[U, ...]:
    """Return the parts of layers that are on, in a canonical order."""
    active_parts = (part for part in parts if part != type(part)())
    return tuple(sorted(active_parts, key=lambda part: type(part).__name__))


def with_part(parts: tuple[U, ...], part: U) -> tuple[U, ...]:
    """Return the parts with this one in place of that of the same type, in a canonical order."""
    return active_layer_parts(
        (*(other_part for other_part in parts if type(other_part) is not type(part)), part)
    )
