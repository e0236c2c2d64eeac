"""Stage for attacks on the Rebalancer: a victim with open allowances, a malicious token in genuine pools, and accomplices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode as abi_encode

from agent.artifacts import Artifact, own_artifact
from agent.localchain import LocalChain, TokenKind
from agent.localchain.world import LiquidityRange
from agent.signing.calldata import selector
from agent.units import Token
from tests.support.wallets import AtomicDesk

ABIS = Path(__file__).parents[1] / "abis"
CALLBACK = selector("uniswapV3SwapCallback(int256,int256,bytes)")
THIEF = 5
"""Account of the attacker."""
LOOT_USD = 10_000


@lru_cache
def attack(name: str) -> Artifact:
    """Return the artifact of a contract of contracts/test."""
    data = json.loads((ABIS / f"{name}.json").read_text())
    return Artifact(data["abi"], data["bytecode"])


def error(name: str) -> bytes:
    """Return the selector of an error of the Rebalancer."""
    (entry,) = [e for e in own_artifact("Rebalancer").abi if e["type"] == "error" and e["name"] == name]
    return selector(f"{name}({','.join(value['type'] for value in entry['inputs'])})")


def callback(payer: str, token: str, raw: int, amount0: int, amount1: int = -1) -> str:
    """Return the calldata with which a pool asks the Rebalancer for payment."""
    data = abi_encode(["address", "address", "uint256"], [payer, token, raw])
    return "0x" + (CALLBACK + abi_encode(["int256", "int256", "bytes"], [amount0, amount1, data])).hex()


def add_foreign(chain: LocalChain, symbol: str, artifact: Artifact, *arguments: object, decimals: int = 18) -> Token:
    """Add a token of another kind, worth one dollar and without a feed; the whale has plenty of it."""
    token = Token(chain.deploy(artifact, symbol, symbol, decimals, *arguments), symbol, decimals)
    books = chain.deployed_world
    chain.deployed_world = replace(
        books,
        tokens={**books.tokens, symbol: token},
        kinds={**books.kinds, symbol: TokenKind.STANDARD},
        prices_usd={**books.prices_usd, symbol: Fraction(1)},
    )
    chain.set_balance(symbol, 10**9 * 10**decimals, owner=chain.whale.address)
    chain.approve_protocol([symbol])
    return token


class Stage:
    """The victim is the wallet: it holds much and has approved the Rebalancer for all of it, which the agent never does."""

    def __init__(self, chain: LocalChain, evil: bool = False) -> None:
        self.chain, self.thief = chain, chain.accounts[THIEF].address
        self.accomplice = self.deploy("Accomplice")
        if evil:
            self.evil = add_foreign(chain, "EVIL", attack("HookedToken"))
            chain.add_v2_pool("EVIL", "USDC", 1_000_000)
            chain.add_v2_pool("EVIL", "WETH", 1_000_000)
            chain.provide_liquidity(chain.add_v3_pool("EVIL", "WETH", 3_000), 1_000_000, (LiquidityRange(None, None, 10_000),))
            chain.set_balance("EVIL", LOOT_USD * 10**18)
        self.context = AtomicDesk(chain)
        self.rebalancer, self.victim = self.context.router, self.context.wallet
        for symbol in chain.tokens:
            approve = chain.token_contract(symbol).functions.approve(self.rebalancer, 2**200)
            chain.send(approve, self.victim, gas=200_000)

    def deploy(self, name: str, *arguments: object) -> Any:
        """Deploy a contract of contracts/test from the whale's account."""
        return self.chain.contract(self.chain.deploy(attack(name), *arguments), attack(name))

    def at(self, symbol: str) -> str:
        """Return the address of a token."""
        return self.chain.tokens[symbol].address

    def prepare(self, steps: Sequence[tuple[str, str]], wait: int = 0) -> None:
        """Let the accomplice make these calls (target, calldata) during a transfer of EVIL, after `wait` transfers without calls."""
        self.chain.send(self.accomplice.functions.prepare(list(steps), wait))
        if "EVIL" in self.chain.tokens:
            self.chain.send(self.chain.contract(self.evil.address, attack("HookedToken")).functions.setHook(self.accomplice.address))

    def outcome(self) -> tuple[int, int, list[bytes]]:
        """Return the number of calls by the accomplice, the number that succeeded, and the errors of all."""
        functions = self.accomplice.functions
        tried = functions.tried().call()
        return tried, functions.succeeded().call(), [bytes(functions.errors(number).call()) for number in range(tried)]

    def loot(self) -> dict[str, int]:
        """Return the holdings of thief, accomplice and Rebalancer by token."""
        who = (self.thief, self.accomplice.address, self.rebalancer)
        return {symbol: sum(self.chain.balance(symbol, address) for address in who) for symbol in self.chain.tokens}

    def calldata(self, contract: Any, name: str, *arguments: object) -> str:
        """Return the calldata of a function of a web3 contract."""
        return str(contract.encode_abi(name, args=list(arguments)))
