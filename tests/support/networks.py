"""Stand-ins of live networks: anvil with a network's chain id, a market, and real contracts at the addresses that the preset names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from agent.artifacts import Artifact, npm_artifact, own_artifact
from agent.chain.fees.data_fees import ARB_GAS_INFO
from agent.config.networks import Network, NetworkToken, VenueDeployment
from agent.config.networks.presets import PRESETS
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES, template_targets
from agent.localchain import LocalChain
from agent.localchain.chain import (
    POSITION_MANAGER_ARTIFACT,
    SWAP_ROUTER_02_ARTIFACT,
    TWAP_WINDOW_S,
    V2_FACTORY_ARTIFACT,
    V2_ROUTER_ARTIFACT,
    V3_FACTORY_ARTIFACT,
    V3_POOL_ARTIFACT,
)
from agent.localchain.contracts import WETH_ARTIFACT
from agent.localchain.deployment import deploy_world
from agent.localchain.nodes import AnvilNode, run_anvil
from agent.localchain.world import DEEP_RANGES, DevAccount, LocalWorld, TokenKind, TokenSpec, V2Spec, V3Spec
from agent.model import DataFeeKind, data_fee_kind
from agent.reference.prices import required_observations
from agent.units import NATIVE
from tests.support.op_stack import PRICES, install, set_prices

LENSES = "@uniswap/v3-periphery/artifacts/contracts/lens"
PRICES_USD = {"WETH": 3_000, "ETH": 3_000, "WBTC": 60_000, "cbBTC": 60_000, "BTCB": 60_000, "WBNB": 600, "WPOL": Fraction(1, 4), "USDC": 1}
FEES_WEI = {"ethereum": (10**8, 10**7), "bnb": (0, 5 * 10**7), "polygon": (40 * 10**9, 30 * 10**9)}
"""Base fee and tip on a quiet day, wei per unit of gas; rollups have ROLLUP_FEES_WEI."""
ROLLUP_FEES_WEI = (10**7, 10**6)
HISTORY_S = 3 * 3600
OWNER = DevAccount("0xd8291E50E2e68fb2c70d77cCDc707D291a89f209", "0x" + "5e" * 32)
"""The wallet: on live networks the published keys of anvil's accounts are refused."""
OBSERVATIONS_AT_ONCE = 900
"""Observations of a pool that one transaction adds, within the gas of a block."""


class StandIn(LocalChain):
    """A local chain whose contracts are where the network has them."""

    def __init__(self, node: AnvilNode, network: Network, world: LocalWorld) -> None:
        super().__init__(node, world)
        self.network = network
        self.wallet = OWNER

    def deploy(self, artifact: Artifact, *arguments: object, sender: str | None = None) -> str:
        """Deploy a contract, at the address that the preset names for it, if any."""
        if artifact is npm_artifact(SWAP_ROUTER_02_ARTIFACT) and self.venue("uniswap_v2").needs_rebalancer:
            arguments = (NATIVE, *arguments[1:])  # it is older than Uniswap V2 there
        if (place := self._place(artifact, arguments)) is None:
            return super().deploy(artifact, *arguments, sender=sender)
        return self.deploy_at(place, artifact, *arguments, sender=sender)

    def deploy_at(self, place: str, artifact: Artifact, *arguments: object, sender: str | None = None) -> str:
        """Deploy a contract at an address: its constructor runs as code of the account."""
        creation = self.w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode).constructor(*arguments)
        call: Any = {"from": sender or self.whale.address, "to": place, "gas": 30_000_000}
        self.rpc("anvil_setCode", place, str(creation.data_in_transaction))
        code = self.w3.eth.call(call)
        sent = self.w3.eth.send_transaction(call | {"maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9})
        assert self.w3.eth.wait_for_transaction_receipt(sent)["status"] == 1
        self.rpc("anvil_setCode", place, "0x" + bytes(code).hex())
        return place

    def rpc(self, method: str, *params: object) -> Any:
        """Return the node's answer."""
        return self.transport.call(method, list(params))

    def venue(self, kind: str) -> VenueDeployment:
        """Return the network's deployment of a kind."""
        return next(venue for venue in self.network.venues if venue.kind == kind)

    def token(self, symbol: str) -> NetworkToken:
        """Return the network's token."""
        return next(token for token in self.network.tokens if token.symbol == symbol)

    def _place(self, artifact: Artifact, arguments: tuple[object, ...]) -> str | None:
        v2 = self.venue("uniswap_v2")
        v3 = self.venue("uniswap_v3")
        protocol = {
            WETH_ARTIFACT: self.network.wrapped_native,
            V2_FACTORY_ARTIFACT: v2.factory,
            V2_ROUTER_ARTIFACT: v2.router,
            V3_FACTORY_ARTIFACT: v3.factory,
            POSITION_MANAGER_ARTIFACT: v3.position_manager,
            SWAP_ROUTER_02_ARTIFACT: v3.router,
            f"{LENSES}/QuoterV2.sol/QuoterV2.json": v3.quoter,
            f"{LENSES}/Quoter.sol/Quoter.json": v3.quoter_v1,
        }
        for path, place in protocol.items():
            if artifact is npm_artifact(path):
                return place
        symbol, _, quote = str(arguments[0]).partition(" / ") if arguments else ("", "", "")
        if symbol not in PRICES_USD:
            return None
        return self.network.feed_of(self.token(symbol)) if quote else self.token(symbol).address


def world_of(network: Network, usd: int) -> LocalWorld:
    """Return the tokens of the template 60/40 and the wrapped native coin, pools of Uniswap, and a wallet with `usd`, a fifth of it in
    ether and the rest in USDC.
    """
    wrapped = network.tokens[0].symbol
    decimals = {token.symbol: token.decimals for token in network.tokens}
    ether, bitcoin, _ = (symbol for symbol, _ in template_targets(PORTFOLIO_TEMPLATES["60/40"], PRESETS[network.name]))
    shares = {ether: Fraction(1, 5), "USDC": Fraction(4, 5)}
    tokens = [
        TokenSpec(
            symbol,
            decimals[symbol],
            Fraction(PRICES_USD[symbol]),
            "0%",
            int(shares.get(symbol, 0) * usd / Fraction(PRICES_USD[symbol]) * 10 ** decimals[symbol]),
            TokenKind.WRAPPED_NATIVE if symbol == wrapped else TokenKind.STANDARD,
        )
        for symbol in dict.fromkeys((wrapped, ether, bitcoin, "USDC"))
    ]
    pools = [
        V3Spec(ether, "USDC", 500, 20_000_000, DEEP_RANGES),
        V3Spec(bitcoin, ether, 500, 20_000_000, DEEP_RANGES),
        V3Spec(bitcoin, "USDC", 3_000, 10_000_000, DEEP_RANGES),
        V2Spec(ether, "USDC", 5_000_000),
    ]
    if wrapped != ether:
        pools.append(V3Spec(wrapped, "USDC", 500, 10_000_000, DEEP_RANGES))
    return LocalWorld(tuple(tokens), tuple(pools), 10**20 if network.name == "polygon" else 10**18, "USDC", HISTORY_S)


@contextmanager
def stand_in(network: Network, usd: int) -> Iterator[StandIn]:
    """Yield the network's stand-in, under its chain id. It suggests anvil's tip; see `answers_of`."""
    world = world_of(network, usd)
    with run_anvil(genesis_s=int(time.time()) - world.history_s) as url:
        node = AnvilNode(url)
        chain = StandIn(node, network, world)
        node.set_native(chain.whale.address, 10**30)
        node.set_native(OWNER.address, 10**18)
        node.rpc("anvil_impersonateAccount", OWNER.address)  # while it is built
        deploy_world(node, world, _before_now, open_chain=lambda _node, _world: chain)
        base_fee_wei, _ = FEES_WEI.get(network.name, ROLLUP_FEES_WEI)
        node.rpc("anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))
        node.mine(1)
        node.rpc("anvil_stopImpersonatingAccount", OWNER.address)
        node.rpc("anvil_setChainId", network.chain_id)  # its own accounts sign for the id that it started with
        yield chain


def _before_now(chain: LocalChain) -> None:
    """Put the contracts that tell the data fee; without feeds let pools remember each second of half an hour."""
    assert isinstance(chain, StandIn)
    chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**10))  # else anvil's own tip is above its own maximum
    chain.mine()
    if data_fee_kind(chain.network.chain_id) is DataFeeKind.OP_STACK:
        install(chain.transport)
        set_prices(chain.transport, *PRICES[2])
    elif data_fee_kind(chain.network.chain_id) is DataFeeKind.ARBITRUM:
        words = "".join(f"7f{wei:064x}60{32 * number:02x}52" for number, wei in enumerate((140 * 10**9, 10**9)))
        chain.rpc("anvil_setCode", ARB_GAS_INFO, f"0x{words}60c06000f3")
    if (uptime := chain.network.sequencer_feed) is not None:
        feed = chain.deploy_at(uptime, own_artifact("PriceFeed"), "L2 Sequencer Uptime Status Feed", 0)
        chain.send(chain.contract(feed, own_artifact("PriceFeed")).functions.push(0))
    if chain.network.feeds:
        return
    needed = required_observations(chain.network.chain_id, TWAP_WINDOW_S)
    for pool in [pool for pool in chain.deployed_world.pool_by_name.values() if pool.version == 3]:
        functions = chain.contract(pool.address, npm_artifact(V3_POOL_ARTIFACT)).functions
        for number in range(OBSERVATIONS_AT_ONCE, needed + OBSERVATIONS_AT_ONCE, OBSERVATIONS_AT_ONCE):
            chain.send(functions.increaseObservationCardinalityNext(min(number, needed)))
        chain.swap(pool.name, pool.token0.symbol, 10 ** (pool.token0.decimals - 3))
