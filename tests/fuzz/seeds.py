"""Seeds of the decoders' targets: what a real node, a real step and our own encoders say, recorded anew each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent import codec
from agent.chain.lens import creation_code
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.sender import NodeSender
from agent.chain.watch import snapshot_questions
from agent.errors import TrimtabError
from agent.localchain import LocalChain
from agent.model import ConfirmedPosition, IntentKind
from agent.venues.kinds.uniswap_v2 import UniswapV2
from agent.venues.kinds.uniswap_v3 import UniswapV3
from tests.fuzz.decoders import QUESTIONS, Scene
from tests.support.agents import ROOMY, agent_on, fund, yes
from tests.support.signables import SIGNABLES

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 60_000, "USDC": 30_000}
POOLS = ("v3 WETH/USDC 500", "v2 WETH/USDC")
DER = "3045022100" + "ab" * 32 + "0220" + "12" * 32
"""The form of a signature, of no key."""
UNANSWERED = ("send", "safe_nonce", "safe_hash", "safe_known")
"""There is no such transaction and no Safe: a node says so."""
WRONG = (
    b'{"jsonrpc":"2.0","id":1,"error":{"code":3,"message":"execution reverted: STF","data":"0x08c379a0"}}',
    b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"already known"}}',
    b'[{"jsonrpc":"2.0","id":1,"result":null},{"jsonrpc":"2.0","id":2,"result":null}]',
)
"""What nodes answer when they do not answer."""


class RecordingProvider(EndpointProvider):
    """A node whose answers are kept."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "recorded", 30)
        self.bodies: list[bytes] = []

    def _post(self, request_body: bytes) -> tuple[int, bytes, str | None]:
        answer = super()._post(request_body)
        self.bodies.append(answer[1].replace(b"\n", b" "))
        return answer


def record(chain: LocalChain, folder: Path) -> tuple[Scene, dict[str, list[bytes]]]:
    """The scene of a step on that chain, and seeds by target; every question of it was answered and understood."""
    assert chain.url is not None
    fund(chain, HELD)
    pools = {f"venues.uniswap_{name[:2]}.pools": [chain.address_by_pool[name]] for name in POOLS}
    with agent_on(chain, folder, {**ROOMY, **pools}, TARGETS) as agent:
        outcome = agent.rebalance(send=True, confirm=yes)
        assert outcome.plan is not None
        (swap,) = [intent for intent in outcome.transactions if intent.kind is IntentKind.SWAP]
        grant = agent.context.store.journal.grant(swap.id)
        watch = agent.context.position_reader.reader.scope
        tokens = (*(asset.token for asset in agent.portfolio.assets), *agent.portfolio.hubs)
    at = chain.addresses
    head = NodeSender(chain.transport).head()
    pair = chain.deployed_world.pool_by_name[POOLS[1]]
    scene = Scene(
        chain_id=chain.chain_id,
        owner=chain.wallet.address,
        watch=watch,
        tokens=tokens,
        v2=UniswapV2("uniswap_v2", at.v2_factory, at.v2_router),
        v3=UniswapV3("uniswap_v3", at.v3_factory, quoter=at.quoter_v2, quoter_v1=at.quoter_v1, fee_tiers=(500, 3_000)),
        manager=at.position_manager,
        position=ConfirmedPosition("uniswap_v2", pair.address, None, pair.token0.address, pair.token1.address, (1, 1), None, 5_000, 86_400),
        rebalancer=at.rebalancer,
        wrapped_native=at.weth,
        head=head,
        nonce=swap.tx.nonce + 1,
        mined=str(swap.tx_hash),
        tx=replace(swap.tx, to=chain.wallet.address, data="0x", gas=0, value_wei=0),
        step=outcome.step_input,
        plan=outcome.plan,
    )
    recordings: dict[str, list[bytes]] = {}
    for name, question in QUESTIONS.items():
        line = RecordingProvider(chain.url)
        try:
            question(line, scene)
        except TrimtabError:
            assert name in UNANSWERED, f"{name} was not answered"
        recordings[name] = [b"\n".join(line.bodies), *WRONG]
    items = [lens_question.item for lens_question in snapshot_questions(watch)]
    page = chain.transport.call("eth_call", [{"data": creation_code(items)}, "latest"])
    calldata = [bytes.fromhex(signable.tx.data[2:]) for signable in SIGNABLES.values()]
    recordings |= {
        "lens_page": [bytes.fromhex(page[2:])],
        "step_input": [codec.dumps(outcome.step_input).encode()],
        "plan": [codec.dumps(outcome.plan).encode()],
        "grant": [codec.dumps(grant).encode()],
        "calldata": calldata,
        "signed": calldata,
        "key_service": [bytes.fromhex(DER)],
    }
    words = [number.to_bytes(32, "big").hex() for number in (32, 5)] + [b"1.4.1".hex().ljust(64, "0")]
    for name in ("safe_nonce", "safe_hash", "safe_known"):
        recordings[name].append(
            b'{"jsonrpc":"2.0","id":1,"result":"0x%s"}' % "".join(words if name == "safe_known" else words[1:2]).encode()
        )
    return scene, recordings
