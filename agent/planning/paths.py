"""From flows to routes: each unit that leaves a token is followed, through few hubs, to the token that keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.planning.market import Flow

MAX_LEGS = 8
"""Longest chain through the router: up to seven hubs, where no shorter way is cheaper, gas counted."""
CRUMB = 1e-9
"""Part of the scale below which a flow is rounding noise."""


@dataclass(frozen=True, slots=True)
class Path:
    """Flows to run one after another, and the value that is to enter the first and the last of them, in units of the scale.

    What enters the first goes by the mean rates of the flows; in which order paths share a pool decides what each really gets.
    """

    flows: tuple[Flow, ...]
    taken: float
    into_last: float

    @property
    def source(self) -> int:
        """Position of the token that is sold."""
        return self.flows[0].arc.source

    @property
    def target(self) -> int:
        """Position of the token that is bought."""
        return self.flows[-1].arc.target


@dataclass(frozen=True, slots=True)
class Routes:
    """`cut` are routes that would need more legs than MAX_LEGS; nothing is planned for them."""

    paths: tuple[Path, ...]
    cut: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Lot:
    """Value standing at a token: the route it came by, what it was at the start, what went into the last pool, what is here."""

    route: tuple[Flow, ...]
    begun: float
    into_last: float
    here: float

    def part(self, share: float) -> _Lot:
        return _Lot(self.route, self.begun * share, self.into_last * share, self.here * share)


def decompose(flows: Sequence[Flow], order: Sequence[int], givers: frozenset[int], keepers: frozenset[int]) -> Routes:
    """Splits acyclic flows into paths from `givers` to `keepers`. `order` lists tokens so that every flow runs forward.

    What stays at a keeper is taken from the longest routes first, what runs on from the shortest, so that routes stay
    short; those that would be longer than MAX_LEGS are cut. Raises ValueError when a flow runs backward, which would be a cycle.
    """
    rank = {token: number for number, token in enumerate(order)}
    out: dict[int, list[Flow]] = {token: [] for token in order}
    inflow = dict.fromkeys(order, 0.0)
    for flow in flows:
        if flow.taken <= CRUMB or flow.paid <= 0:
            continue
        if rank[flow.arc.source] >= rank[flow.arc.target]:
            raise ValueError("flows run in a cycle")
        out[flow.arc.source].append(flow)
        inflow[flow.arc.target] += flow.paid
    onward = {token: sum(flow.taken for flow in out[token]) / inflow[token] if inflow[token] > 0 else 0.0 for token in order}
    lots: dict[int, list[_Lot]] = {token: [] for token in order}
    paths: list[Path] = []
    cut: list[Path] = []
    for token in order:
        arrived = sorted(lots[token], key=lambda lot: -len(lot.route))
        leaving = sum(flow.taken for flow in out[token])
        present = sum(lot.here for lot in arrived)
        if token in keepers:
            kept, arrived = _take(arrived, max(0.0, present - leaving))
            paths += [Path(lot.route, lot.begun, lot.into_last) for lot in kept]
        elif token in givers and present < leaving:
            arrived.append(_Lot((), leaving - present, 0.0, leaving - present))
        cut += [Path(lot.route, lot.begun, lot.into_last) for lot in arrived if len(lot.route) >= MAX_LEGS]
        _send(sorted(out[token], key=lambda flow: onward[flow.arc.target]), [lot for lot in arrived if len(lot.route) < MAX_LEGS], lots)
    return Routes(tuple(_merged(paths)), tuple(_merged(cut)))


def _take(lots: Sequence[_Lot], amount: float) -> tuple[list[_Lot], list[_Lot]]:
    """Splits lots, in their order, into those that make up `amount` and the rest."""
    taken, rest = [], []
    for lot in lots:
        if amount <= CRUMB:
            rest.append(lot)
        elif lot.here <= amount + CRUMB:
            taken.append(lot)
            amount -= lot.here
        else:
            taken.append(lot.part(amount / lot.here))
            rest.append(lot.part(1 - amount / lot.here))
            amount = 0.0
    return taken, rest


def _send(flows: Sequence[Flow], lots: Sequence[_Lot], arrivals: dict[int, list[_Lot]]) -> None:
    """Hands lots, longest routes first, to flows, those first whose target keeps the most."""
    present, leaving = sum(lot.here for lot in lots), sum(flow.taken for flow in flows)
    if leaving <= 0 or present <= 0:
        return
    rest = list(lots)
    for number, flow in enumerate(flows):
        wanted = flow.taken * present / leaving
        sent, rest = (rest, []) if number == len(flows) - 1 else _take(rest, wanted)
        sent = [lot for lot in sent if lot.here > CRUMB]
        whole = sum(lot.here for lot in sent)
        for lot in sent:
            share = lot.here / whole
            arrivals[flow.arc.target].append(_Lot((*lot.route, flow), lot.begun, flow.taken * share, flow.paid * share))


def _merged(paths: Sequence[Path]) -> list[Path]:
    """Paths over the same pools as one, largest first."""
    sums: dict[tuple[str, ...], Path] = {}
    for path in paths:
        key = tuple(f"{flow.arc.pool} {flow.arc.source}" for flow in path.flows)
        known = sums.get(key, Path(path.flows, 0.0, 0.0))
        sums[key] = Path(path.flows, path.taken + known.taken, path.into_last + known.into_last)
    return sorted((path for path in sums.values() if path.flows), key=lambda path: -path.taken)
