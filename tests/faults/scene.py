"""A wallet off its targets on anvil, drawn from a seed; brought to health after a fault, and left as it was found."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from agent import wiring
from agent.app.start.trust import pin_all
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import Transport
from agent.config.loaded import LoadedConfig
from agent.errors import TrimtabError
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.model.futures import MarginAccount
from tests.support.agents import ROOMY, Changes, WalletBalances, agent_config, fund, purse, reopened_agent, yes
from tests.support.constants import HOUR_S
from tests.support.worlds import one_case

PORTFOLIOS: tuple[Mapping[str, str], ...] = (
    {"WETH": "50%", "USDC": "50%"},
    {"WETH": "70%", "USDC": "30%"},
    {"WETH": "40%", "WBTC": "30%", "USDC": "30%"},
)
STEPS_TO_HEALTH = 4
"""Healthy steps after which nothing may be left to do; the first has to complete the rebalance, the next ones look."""
BLOCK_S = 12
"""How much later the block comes that ends a fault."""
FOREIGN_ENDS = ("OperatorNeeded", "PassingFault")
"""How a step may end after another sender used the wallet; the second where no block shows the transaction."""
STRANGERS_WEI = 1
"""What a thief sends the wallet itself, by which its transactions are known."""


@dataclass(frozen=True)
class Scenario:
    """What a seed stands for: targets, dollars held, settings, and whether blocks come by themselves."""

    seed: int
    targets: Mapping[str, str]
    held_usd: Mapping[str, int]
    changes: Changes
    automine: bool


def scenario(seed: int) -> Scenario:
    """The same for the same seed, always."""
    draw = random.Random(f"scenario {seed}")
    targets = draw.choice(PORTFOLIOS)
    total = draw.randrange(45_000, 90_000)
    shares = {symbol: int(target.rstrip("%")) for symbol, target in targets.items()}
    giver, taker = draw.sample(sorted(shares), 2)
    moved = draw.randrange(shares[giver] // 3, shares[giver] * 2 // 3)
    shares |= {giver: shares[giver] - moved, taker: shares[taker] + moved}
    changes: dict[str, object] = {
        **ROOMY,
        "chain.confirmations": draw.choice((1, 1, 2, 3)),
        "execution.router": draw.choice(("swap_router_02", "swap_router_02", "rebalancer")),
    }
    return Scenario(seed, targets, {symbol: total * share // 100 for symbol, share in shares.items()}, changes, draw.random() < 0.6)


@dataclass(frozen=True)
class FuturesLayer:
    """The futures of a scene: the venue, whose account it is, how it was found, and what may become of it.

    `most_bps` is the leverage limit. Orders are bound to an index that nobody moves. `deposits` is how often margin is deposited.
    """

    perps: LocalPerps
    trader: str
    before: MarginAccount
    weights: Mapping[str, str]
    most_bps: int
    deposits: int = 0

    @property
    def spender(self) -> str:
        """The contract that takes margin."""
        return self.perps.addresses.vault


@dataclass
class Scene:
    """One drawn wallet before anything was sent. `foreign` are hashes that somebody else sent from it.

    `swaps` is how many swaps its rebalance takes; `futures` is None where it has none.
    """

    chain: LocalChain
    folder: Path
    loaded: LoadedConfig
    drawn: Scenario
    before: WalletBalances
    prices_usd: Mapping[str, Fraction]
    first_block: int
    operators: tuple[str, ...] = ("local",)
    foreign: set[str] = field(default_factory=set)
    swaps: int = 1
    futures: FuturesLayer | None = None

    @property
    def store_file(self) -> Path:
        """The SQLite file."""
        return Path(self.loaded.store_url.removeprefix("sqlite:///"))

    @property
    def hour(self) -> int:
        """Number of the hour: prices are written once in each, so a step that passes the end of one has a write more."""
        return self.chain.now_s() // HOUR_S

    @property
    def router(self) -> str:
        """The contract that may take the wallet's tokens."""
        at = self.chain.addresses
        return at.rebalancer if self.drawn.changes["execution.router"] == "rebalancer" else at.swap_router_02

    @property
    def called(self) -> tuple[str, ...]:
        """Contracts that a simulated swap or order calls."""
        return (self.router,) if self.futures is None else (self.router, self.futures.perps.addresses.clearing_house)

    def rpc(self, method: str, *params: object) -> object:
        """A word with the node behind the agent's back."""
        return self.chain.node.rpc(method, *params)  # type: ignore[attr-defined]  # always anvil here

    def direct(self, operator: str = "local") -> EndpointProvider:
        """A line of its own straight to the node."""
        return line(self.chain.url or "", operator)

    def honest(self) -> list[Transport]:
        """As many lines straight to the node as the config wants to agree."""
        return [self.direct(operator) for operator in self.operators[-2:]]

    def heal(self) -> None:
        """The chain works again: blocks come, gas is cheap, and time goes on beyond that of blocks that a reorganisation took."""
        self.rpc("evm_setAutomine", True)
        self.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**9))
        self.chain.node.mine_at(self.chain.now_s() + BLOCK_S)

    def restart(self) -> str:
        """One healthy step of a new agent over the store; how it ended, as a word and a reason."""
        try:
            with reopened_agent(self.chain, self.loaded, self.honest()) as agent:
                outcome = agent.rebalance(send=True, confirm=yes)
        except TrimtabError as error:
            return f"{type(error).__name__}: {error.message}"
        return f"{outcome.kind.value}: {outcome.reason}"

    def robbed(self) -> bool:
        """Whether somebody else sent from the wallet: then a step has to stop by name, and the owner adopts the chain's nonce."""
        wallet = self.chain.wallet.address.lower()
        news = False
        for number in range(self.first_block + 1, int(self.chain.w3.eth.block_number) + 1):
            block: Any = self.rpc("eth_getBlockByNumber", hex(number), True)
            for transaction in block["transactions"]:
                ours = (
                    transaction["from"].lower() == wallet and transaction["to"] == wallet and int(transaction["value"], 16) == STRANGERS_WEI
                )
                news |= ours and transaction["hash"] not in self.foreign
                self.foreign |= {transaction["hash"]} if ours else set()
        return news

    def adopted(self) -> None:
        """The owner has looked at what the stranger did, and takes the chain's nonce for his own."""
        end = self.restart()
        if not end.startswith(FOREIGN_ENDS):
            raise AssertionError(f"a stranger used the wallet and the step ended {end}")
        with reopened_agent(self.chain, self.loaded, self.honest()) as agent:
            agent.resync_nonce()

    def has_expired(self, end: str) -> bool:
        """Whether a step ended with a failure that names only orders of the ended process that reverted, as the chain mined them after
        their deadline.
        """
        if not end.startswith(OutcomeKind.FAILED.value):
            return False
        with reopened_agent(self.chain, self.loaded, self.honest()) as agent:
            intents = agent.context.store.journal.intents()
        reverted = [intent for intent in intents if intent.receipt is not None and not intent.succeeded]
        blocks: list[Any] = [
            self.rpc("eth_getBlockByNumber", hex(intent.receipt.block_number), False) for intent in reverted if intent.receipt
        ]
        late = [
            intent.deadline_s is not None and int(block["timestamp"], 16) > intent.deadline_s
            for intent, block in zip(reverted, blocks, strict=True)
        ]
        return bool(late) and all(late) and end.count("ended reverted") == len(late)

    def recovered(self) -> list[str]:
        """Healthy steps until one holds, at most as many as health may take; what is wrong with how they ended."""
        self.heal()
        ends: list[str] = []
        for _ in range(STEPS_TO_HEALTH):
            if self.robbed():
                self.adopted()
            ends.append(self.restart())
            if ends[-1].startswith(OutcomeKind.HOLD.value):
                break
        good = (OutcomeKind.HOLD.value, OutcomeKind.DONE.value)
        if all(end.startswith(good) or self.has_expired(end) for end in ends) and ends[-1].startswith(OutcomeKind.HOLD.value):
            return []
        return [f"healthy steps ended: {' | '.join(ends)}"]


def line(url: str, operator: str, timeout_s: float = 10.0, attempts: int = 2) -> EndpointProvider:
    """An HTTP endpoint that does not rest between its tries."""
    return EndpointProvider(url, operator, timeout_s, attempts=attempts, sleep=lambda _seconds: None)


class SceneStager(Protocol):
    """What makes the wallet that a seed stands for: `scene`, or `futures_scene`."""

    def __call__(
        self, chain: LocalChain, folder: Path, seed: int, changes: Changes | None = None, operators: Sequence[str] = ("local",)
    ) -> AbstractContextManager[Scene]: ...


@contextmanager
def scene(
    chain: LocalChain, folder: Path, seed: int, changes: Changes | None = None, operators: Sequence[str] = ("local",)
) -> Iterator[Scene]:
    """The wallet that a seed stands for, everything pinned; afterwards the chain is as it was.

    Of several `operators` two must agree; honest lines are those of the last two.
    """
    with one_case(chain), staged(chain, folder, scenario(seed), changes, operators) as scene:
        yield scene


@contextmanager
def staged(
    chain: LocalChain,
    folder: Path,
    drawn: Scenario,
    changes: Changes | None,
    operators: Sequence[str],
    swaps: int = 1,
    layer: FuturesLayer | None = None,
) -> Iterator[Scene]:
    """A drawn wallet, funded and pinned."""
    fund(chain, drawn.held_usd)
    several: dict[str, object] = {
        "chain.rpc": [{"url": "http://127.0.0.1:1", "operator": operator} for operator in operators],
        "chain.quorum": 2,
    }
    more = {**drawn.changes, **(several if len(operators) > 1 else {}), **(changes or {})}
    loaded = agent_config(chain, folder, more, drawn.targets)
    block = int(chain.w3.eth.block_number)
    prices_usd = dict(chain.deployed_world.prices_usd)
    scene = Scene(chain, folder, loaded, drawn, purse(chain), prices_usd, block, tuple(operators), swaps=swaps, futures=layer)
    pin_all(loaded, scene.honest())
    if layer is not None:  # what the wallet did to set the venue up is no loss of it
        with wiring.open_store_offline(loaded) as (store, _):
            store.balances.record_prior_day((), scene.before.nonce)
    scene.rpc("evm_setAutomine", drawn.automine)
    yield scene
