"""The chaos proxy between agent and node: each of its faults, at any request, as the only endpoint and as one of several."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from agent.chain.rpc import Transport
from agent.localchain import LocalChain
from tests.faults.chaos import FaultPlace, Proxy, chaos
from tests.faults.chaos_faults import FAULTS, LATE_S
from tests.faults.invariants import violations
from tests.faults.probe import process
from tests.faults.scene import Scene, SceneStager, line, scene
from tests.faults.suite import Case, Folders, Only, Result

NAME = "chaos"
ALL = 10_000
A_WHILE = 12
SLOW = ("delay", "late delivery", "trickle")
"""Faults that are about time: they last a while, not for good, since each takes real time."""
REQUESTS = 36
"""About as many requests as a rebalance makes, an approval and a swap."""
OPERATORS = ("sick", "alpha", "beta")
SEATS = ("alone", "of two", "of three")
"""Whether the sick endpoint is the only one, or one of so many that must be two to agree."""


def places(draw: random.Random, fault: str) -> list[FaultPlace]:
    """Somewhere, for a short while and for long; and around the sends."""
    first = draw.randrange(REQUESTS)
    lasting = A_WHILE if fault in SLOW else ALL
    return [
        FaultPlace(first, 1),
        FaultPlace(draw.randrange(REQUESTS), draw.randrange(2, 8)),
        FaultPlace(draw.randrange(REQUESTS), lasting),
        FaultPlace(draw.randrange(2), draw.choice((1, ALL)), sends=True),
    ]


@contextmanager
def seated(
    scene: Scene, seat: str, fault: str, where: FaultPlace, draw: random.Random
) -> Iterator[tuple[Proxy, Callable[[], list[Transport]]]]:
    """The proxy in its seat, and what gives a process its lines."""
    url = scene.chain.url or ""
    with chaos(url, FAULTS[fault], where, draw) as proxy:

        def lines() -> list[Transport]:
            sick = line(proxy.url, "sick", LATE_S / 2 if fault in SLOW else 10.0)
            return [sick, *(line(url, operator) for operator in scene.operators[1:])]

        yield proxy, lines


def run(chain: LocalChain, folders: Folders, seed: int, is_selected: Only, staged: SceneStager = scene) -> Iterator[Result]:
    """Every fault in one seat of this seed's choice, at four places."""
    for fault in FAULTS:
        draw = random.Random(f"chaos {seed} {fault}")
        seat = draw.choice(SEATS)
        for where in places(draw, fault):
            place = f"{seat} {where}"
            if is_selected(fault, place):
                yield case_result(chain, folders, Case(NAME, seed, fault, place), staged)


def case_result(chain: LocalChain, folders: Folders, case: Case, staged: SceneStager = scene) -> Result:
    """One step through the sick endpoint, then healthy ones."""
    seat, _, place = case.where.rpartition(" ")
    draw = random.Random(str(case))
    with ExitStack() as stack:
        staged_scene = stack.enter_context(staged(chain, folders(), case.seed, operators=OPERATORS[: SEATS.index(seat) + 1]))
        with seated(staged_scene, seat, case.fault, FaultPlace.parsed(place), draw) as (proxy, lines):
            step = process(staged_scene, lines=lines)
        problems = step.wrong + staged_scene.recovered()
        problems += violations(staged_scene) + unknown(staged_scene, proxy)
    return Result(case, {case.fault: proxy.struck}, problems, [step.end])


def unknown(scene: Scene, proxy: Proxy) -> list[str]:
    """Signed transactions that the proxy saw and the journal does not know, mined or not."""
    from agent.store import open_store

    sent_hashes = {scene.chain.w3.to_hex(scene.chain.w3.keccak(hexstr=raw)) for raw in proxy.raw}
    store = open_store(scene.loaded.store_url, scene.chain.chain_id, scene.chain.wallet.address)
    try:
        journal = {intent.tx_hash for intent in store.journal.intents(limit=1_000)}
    finally:
        store.close()
    return [f"{tx_hash} was sent and is in no journal" for tx_hash in sent_hashes - journal]
