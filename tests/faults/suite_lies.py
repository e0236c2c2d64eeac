"""T2: one endpoint lies in a single field of one kind of answer, each field alone, and tells the truth in all others.

Where two operators must agree and one of them is honest, nothing is signed after the lie; or the field cannot hurt, and then it
stands in `HARMLESS` with the reason. Of three, one liar is outvoted. Two endpoints of one operator count once. An only endpoint
may lie as it likes: it gets nothing signed that the signer's policy does not allow.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from agent.chain.rpc import RpcFault, Transport
from agent.errors import TrimtabError
from agent.localchain import LocalChain
from agent.store import open_store
from tests.faults import invariants
from tests.faults.answers import SEND, LensPageLog, altering, fields
from tests.faults.scene import Scene, SceneStager, scene
from tests.faults.suite import Case, Folders, Only, Result
from tests.support.agents import reopened_agent, yes
from tests.support.fakes.transport import RecordingTransport

NAME = "lies"
TWICE = "twice the same of two"
SEATS: dict[str, tuple[str, ...]] = {
    "one of two": ("sick", "alpha"),
    TWICE: ("sick", "sick", "alpha"),
    "one of three": ("sick", "alpha", "beta"),
    "alone": ("sick",),
}
"""Operators of the endpoints, the liars first; two must agree where there are two."""
CONTRADICTED = {r"eth_getBlockByNumber latest: hash": "whose endpoints name two blocks is behind none: all is read at the honest one's"}
"""What cannot hurt where two endpoints of one operator lie, since each draws a lie of its own."""
HARMLESS: dict[str, str] = {
    r"eth_getBlockByNumber latest: (timestamp|baseFeePerGas)": "what counts is the header read by height from both, and alike",
    r"eth_(maxPriorityFeePerGas|gasPrice): .*": "a suggestion; of two the lower counts, none is needed, and limits.gas_price caps it",
    r"eth_getTransactionReceipt: .*": "a receipt that two do not show alike is none: what waits keeps its nonce, whatever is sent for it",
    r"eth_getTransactionByHash: .*": "says only whether somebody knows the hash; receipts tell what came of it",
    r"eth_estimateGas: result": "how much gas goes along, within limits on gas money; the block takes what is used",
    r"eth_call simulation: .*": "only whether it reverts is read: then nothing is swapped, and allowances go to zero; "
    "else minimums, recipient and deadline stand in the transaction",
    r"eth_sendRawTransaction: .*": "the hash is known before it is sent; what an endpoint says of it is looked up with both",
    r"eth_getLogs: .*": "only the words for a token that fails its screen come from there",
}
"""Fields in which one liar beside one honest endpoint gets something signed, and why that cannot hurt; bounds are checked all the same."""


class LieRecord:
    """A lie under way: how often it was told, and how many transactions went out after that."""

    def __init__(self) -> None:
        self.lies = 0
        self.sent_after = 0


def lied_step(staged_scene: Scene, field: str, operators: tuple[str, ...], draw: random.Random) -> tuple[LieRecord, str]:
    """One step of which the first operator's endpoints lie in that field; how it ended."""
    lie_record = LieRecord()
    pages = LensPageLog()
    lie = altering(field, draw, pages, staged_scene.called)

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if method == SEND:
            lie_record.sent_after += lie_record.lies > 0
        lied_answer = lie(method, params, answer)
        lie_record.lies += repr(lied_answer) != repr(answer)
        return lied_answer

    def watch(method: str, params: list[Any], answer: Any) -> Any:
        if method == SEND:
            lie_record.sent_after += lie_record.lies > 0
        return answer

    lines: list[Transport] = [RecordingTransport(staged_scene.direct(who), who, alter if who == "sick" else watch) for who in operators]
    with pages.remembered():
        try:
            with reopened_agent(staged_scene.chain, staged_scene.loaded, lines) as agent:
                outcome = agent.rebalance(send=True, confirm=yes)
                return lie_record, f"{outcome.kind.value}: {outcome.reason}"
        except TrimtabError as error:
            return lie_record, f"{type(error).__name__}: {error.message}"


def all_fields(staged_scene: Scene) -> list[str]:
    """Every field that an honest step reads."""
    pages = LensPageLog()
    field_names = dict[str, None]()

    def note(method: str, params: list[Any], answer: Any) -> Any:
        if not isinstance(answer, RpcFault):  # a refused call has none
            field_names.update(dict.fromkeys(fields(method, params, answer, pages, staged_scene.called)))
        return answer

    with (
        pages.remembered(),
        reopened_agent(staged_scene.chain, staged_scene.loaded, [RecordingTransport(staged_scene.direct(), "local", note)]) as agent,
    ):
        agent.rebalance(send=True, confirm=yes)
    return list(field_names)


_FIELDS: dict[tuple[SceneStager, int], list[str]] = {}
"""What an honest step of a scene reads: the same each time."""


def harmless(field: str, seat: str = "") -> str | None:
    """Why a lie in that field alone cannot hurt, in any seat or in this one; None where it could."""
    known = HARMLESS | (CONTRADICTED if seat == TWICE else {})
    return next((why for pattern, why in known.items() if re.fullmatch(pattern, field)), None)


def run(chain: LocalChain, folders: Folders, seed: int, is_selected: Only, staged: SceneStager = scene) -> Iterator[Result]:
    """Every field in every seat. A wallet from which nothing was signed serves the next lie too."""
    if (staged, seed) not in _FIELDS:
        with staged(chain, folders(), seed) as scene:
            _FIELDS[staged, seed] = all_fields(scene)
    fields = _FIELDS[staged, seed]
    for seat, operators in SEATS.items():
        wanted_fields = [field for field in fields if is_selected(field, seat)]
        while wanted_fields:
            with ExitStack() as stack:
                scene = stack.enter_context(staged(chain, folders(), seed, operators=tuple(dict.fromkeys(operators))))
                clean = True
                while wanted_fields and clean:
                    result, clean = lie_result(scene, Case(NAME, seed, wanted_fields.pop(0), seat), operators)
                    yield result


def lie_result(staged_scene: Scene, case: Case, operators: tuple[str, ...]) -> tuple[Result, bool]:
    """What came of one lie, and whether nothing was signed at all."""
    draw = random.Random(str(case))
    problems, end = lied_step(staged_scene, case.fault, operators, draw)
    signed = signatures(staged_scene)
    wrong: list[str] = []
    if len(set(operators)) == 2 and problems.sent_after and harmless(case.fault, case.where) is None:
        wrong.append(f"{problems.sent_after} transactions were sent after the lie")
    if not signed:
        return Result(case, {"lie": int(problems.lies > 0)}, wrong, [end]), True
    ends = staged_scene.recovered()
    # whoever believed a single liar may find books that the truth contradicts: then a healthy step halts by name, as it should
    wrong += [] if case.where == "alone" else ends
    sent = invariants.transactions(staged_scene)
    store = open_store(staged_scene.loaded.store_url, staged_scene.chain.chain_id, staged_scene.chain.wallet.address)
    try:
        bounds = [*invariants.nonces(store), *invariants.known(staged_scene, store, sent), *invariants.policy(staged_scene, sent)]
    finally:
        store.close()
    wrong += bounds if case.where == "alone" else invariants.violations(staged_scene)
    return Result(case, {"lie": int(problems.lies > 0)}, wrong, [end]), False


def signatures(scene: Scene) -> int:
    """Transactions that were signed so far."""
    store = open_store(scene.loaded.store_url, scene.chain.chain_id, scene.chain.wallet.address)
    try:
        return sum(intent.tx_hash is not None for intent in store.journal.intents(limit=1_000))
    finally:
        store.close()
