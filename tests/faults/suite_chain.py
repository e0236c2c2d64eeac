"""The chain itself misbehaves in the midst of a step: reorganisations, stolen nonces, gas, a stuck mempool, clocks that are wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from eth_account import Account

from agent.localchain import LocalChain
from agent.localchain.contracts import ChainClock
from agent.localchain.nodes import LocalNode
from tests.faults.invariants import violations
from tests.faults.probe import Hear, process
from tests.faults.rig import FORK
from tests.faults.scene import STRANGERS_WEI, Scene, SceneStager, line, scene
from tests.faults.suite import Case, Folders, Only, Result
from tests.support.constants import GWEI
from tests.support.fakes.clock import FakeClock

NAME = "chain"
DEEPEST = 64
PATIENCE_S = 60
"""How long a node may take over dozens of blocks on a busy machine."""


def frozen_clock(node: LocalNode) -> FakeClock:
    """Return the chain's time whose sleeps mine nothing, so that what nobody mines stays where it is."""
    return FakeClock(0, source=node.now_s)


def jumping_clock(node: LocalNode, offset_s: int, jump_s: int, jump_after: int) -> FakeClock:
    """Return the chain's time, wrong by `offset_s`; after `jump_after` looks wrong by `jump_s` more."""
    looks = count()
    return FakeClock(
        0,
        source=lambda: max(1, node.now_s() + offset_s + (jump_s if next(looks) >= jump_after else 0)),
        wait=ChainClock(node).sleep,
    )


STRIKES = FORK.Value("i", 0)
"""How often a fault struck, told across processes."""


def once(at: int, happens: Callable[[], object]) -> Hear:
    """Something happens at the n-th moment of a step; a fault that says False did not strike."""
    moments_left = at

    def hear(_moment: str) -> None:
        nonlocal moments_left
        moments_left -= 1
        if moments_left == -1 and happens() is not False:
            STRIKES.value += 1

    return hear


def node_answer(scene: Scene, method: str, *params: object) -> Any:
    """A word with the node on a connection of this process's own."""
    return line(scene.chain.url or "", "outside", PATIENCE_S).call(method, list(params))


def reorganised(scene: Scene, depth: int) -> bool:
    """The newest blocks of the scene, at most so many, are replaced by empty ones, and one more comes; False where there are none."""
    height = int(node_answer(scene, "eth_blockNumber"), 16)
    gone = min(depth, height - scene.first_block)
    if gone > 0:
        node_answer(scene, "anvil_reorg", gone, [])
        node_answer(scene, "evm_mine")
    return gone > 0


# faults: the n-th moment at which they strike, and how the step goes
def reorganisation(scene: Scene, at: int, draw: random.Random) -> str:
    """Some blocks go in the midst of a step."""
    return process(scene, once(at, lambda: reorganised(scene, draw.choice((1, 2, 3, 8))))).end


def deep_reorganisation(scene: Scene, at: int, draw: random.Random) -> str:
    """The step is done and final, blocks come, and then many go with it."""
    end = process(scene).end
    node_answer(scene, "anvil_mine", hex(1 + at))
    STRIKES.value += reorganised(scene, draw.randrange(2 + at, DEEPEST + 1))
    return end


def reorganised_away_and_back(scene: Scene, at: int, draw: random.Random) -> str:
    """Blocks go, and what was in them is mined again in another block."""

    def happens() -> bool:
        head = int(node_answer(scene, "eth_blockNumber"), 16)
        depth = min(draw.choice((1, 2, 4)), head - scene.first_block)
        if depth <= 0:
            return False
        wallet = scene.chain.wallet.address.lower()
        blocks = [node_answer(scene, "eth_getBlockByNumber", hex(number), True) for number in range(head - depth + 1, head + 1)]
        ours = [transaction["hash"] for block in blocks for transaction in block["transactions"] if transaction["from"].lower() == wallet]
        raw = [node_answer(scene, "eth_getRawTransactionByHash", tx_hash) for tx_hash in ours]
        node_answer(scene, "anvil_reorg", depth, [])
        for raw_tx in raw:
            node_answer(scene, "eth_sendRawTransaction", raw_tx)
        node_answer(scene, "evm_mine")
        return True

    return process(scene, once(at, happens)).end


def nonce_theft(scene: Scene, at: int, draw: random.Random) -> str:
    """Another program with the same key uses the wallet's next nonce."""

    def happens() -> bool:
        wallet = scene.chain.wallet
        nonce = int(node_answer(scene, "eth_getTransactionCount", wallet.address, "latest"), 16)
        fee = draw.choice((3, 20, 59)) * GWEI
        body = {"chainId": scene.chain.chain_id, "nonce": nonce, "to": wallet.address, "value": STRANGERS_WEI, "gas": 21_000}
        signed = Account.sign_transaction({**body, "maxFeePerGas": fee, "maxPriorityFeePerGas": fee, "type": 2}, wallet.private_key)
        try:
            node_answer(scene, "eth_sendRawTransaction", scene.chain.w3.to_hex(signed[0]))
        except Exception as error:  # ours is in the pool and pays more: the thief comes too late
            if "underpriced" not in str(error):
                raise
            return False
        return True

    return process(scene, once(at, happens)).end


def gas_spike(scene: Scene, at: int, draw: random.Random) -> str:
    """The next block's base fee is far above every limit, and falls by an eighth with each empty block."""
    fee = draw.choice((61, 100, 1_000, 50_000)) * GWEI
    return process(scene, once(at, lambda: node_answer(scene, "anvil_setNextBlockBaseFeePerGas", hex(fee)))).end


def base_fee_jump(scene: Scene, at: int, draw: random.Random) -> str:
    """The base fee doubles or more between two blocks: what is pending pays too little for a while."""
    fee = draw.choice((3, 5, 12, 30)) * GWEI
    return process(scene, once(at, lambda: node_answer(scene, "anvil_setNextBlockBaseFeePerGas", hex(fee)))).end


def stuck_mempool(scene: Scene, at: int, draw: random.Random) -> str:
    """From some moment on no block comes at all; later the pool is mined, or lost, or everything is late."""
    end = process(scene, once(at, lambda: node_answer(scene, "evm_setAutomine", False)), clock=frozen_clock).end
    afterwards = draw.choice(("mined", "lost", "late"))
    if afterwards == "lost":
        node_answer(scene, "anvil_dropAllTransactions")
    if afterwards == "late":  # too dear to be mined, until its deadline is over
        node_answer(scene, "anvil_setNextBlockBaseFeePerGas", hex(10**12))
        scene.chain.node.mine_at(scene.chain.now_s() + 300)
        node_answer(scene, "anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    return f"{end} ({afterwards})"


def clock_skew(scene: Scene, at: int, draw: random.Random) -> str:
    """The machine's clock is wrong, or jumps in the midst of a step."""
    off_s, jump_s = (draw.choice((0, -20, 20, -89, 91, -3_600, 3_600, -86_400, 86_400)) for _ in range(2))
    STRIKES.value += (off_s, jump_s) != (0, 0)
    return process(scene, clock=lambda node: jumping_clock(node, off_s, jump_s, at)).end


FAULTS: dict[str, Callable[[Scene, int, random.Random], str]] = {
    "reorganisation": reorganisation,
    "deep reorganisation": deep_reorganisation,
    "reorganised away and back": reorganised_away_and_back,
    "nonce theft": nonce_theft,
    "gas spike": gas_spike,
    "base fee jump": base_fee_jump,
    "stuck mempool": stuck_mempool,
    "clock skew": clock_skew,
}
MOMENTS = 56
"""About as many moments as a step has."""


def run(chain: LocalChain, folders: Folders, seed: int, is_selected: Only, staged: SceneStager = scene) -> Iterator[Result]:
    """Every fault at a few moments of this seed's step."""
    for fault, strike in FAULTS.items():
        draw = random.Random(f"chain {seed} {fault}")
        for at in sorted(draw.sample(range(MOMENTS), 1 if fault == "stuck mempool" else 3)):
            if not is_selected(fault, str(at)):
                continue
            with staged(chain, folders(), seed) as staged_scene:
                STRIKES.value = 0
                end = strike(staged_scene, at, random.Random(f"chain {seed} {fault} {at}"))
                problems = [] if end else ["the step ended without a word"]
                problems += [end] if end.startswith("unexpected") else []
                problems += staged_scene.recovered() + violations(staged_scene)
            yield Result(Case(NAME, seed, fault, str(at)), {fault: STRIKES.value}, problems, [end])
