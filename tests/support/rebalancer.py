"""A wallet with open allowances before Rebalancer, pools of every kind at the chain's prices, and those who would rob it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address

from agent.artifacts import own_artifact
from agent.signing.calldata import selector
from agent.signing.deployment_rules import CREATE2_DEPLOYER, encode_deployment
from agent.units import NATIVE
from agent.venues.deployment import rebalancer_address, rebalancer_init_code
from tests.support.attacks import add_foreign, attack
from tests.support.programs import Condition, Program, ProgramLeg, Row, RowKind
from tests.support.venues import TIERS, Venue, VenuePool, Venues, liquidity_for, sqrt_x96

TX_GAS = 5_000_000
THIEF = 5
"""Account of the attacker."""
POOL_USD = 1_000_000
"""USD of token0 in a pool over the whole range."""
HOOK = "0x0000000000000000000000000000000000a000C4"
"""A hook's address says which calls it gets: before and after each swap, and that it may keep a part (Hooks.sol)."""
CHEAP = 3 * 10**2
"""USD of one swap."""
CALLBACKS = {
    Venue.V3: "uniswapV3SwapCallback(int256,int256,bytes)",
    Venue.PANCAKE: "pancakeV3SwapCallback(int256,int256,bytes)",
    Venue.SLIPSTREAM: "uniswapV3SwapCallback(int256,int256,bytes)",
    Venue.V4: "unlockCallback(bytes)",
}
"""The callback of each kind of pool, or of its manager."""


class RebalancerAttack:
    """The victim is the wallet: it holds much and has approved Rebalancer for all of it, which the agent never does."""

    def __init__(self, venues: Venues, evil: bool = False) -> None:
        self.venues, self.chain = venues, venues.chain
        self.victim, self.thief = self.chain.wallet.address, self.chain.accounts[THIEF].address
        self.rebalancer = deploy_rebalancer(venues)
        self.accomplice = self.deploy("Accomplice")
        if evil:
            self.evil = add_foreign(self.chain, "EVIL", attack("HookedToken"))
            venues.fund(["EVIL"])
            self.chain.set_balance("EVIL", 10_000 * 10**18)
        for symbol in self.chain.tokens:
            self.approve(symbol, self.victim)
        self.errors = _errors(own_artifact("Rebalancer").abi) | _errors(venues.manager.abi)

    @property
    def wrapped(self) -> Row:
        """The row of wrapped native coin."""
        return Row(RowKind.WRAPPED, self.at("WETH"))

    def at(self, symbol: str) -> str:
        """Return the address of a token."""
        return self.chain.tokens[symbol].address

    def symbol(self, token: str) -> str:
        """Return the symbol of a token's address; native coin has the prices and decimals of its wrapped form."""
        return "WETH" if token == NATIVE else next(symbol for symbol, listed in self.chain.tokens.items() if listed.address == token)

    def deploy(self, name: str, *arguments: object) -> Any:
        """Deploy a contract of contracts/test."""
        return self.chain.contract(self.chain.deploy(attack(name), *arguments), attack(name))

    def approve(self, symbol: str, owner: str) -> None:
        """Approve Rebalancer for all of an account's tokens."""
        self.chain.send(self.chain.token_contract(symbol).functions.approve(self.rebalancer, 2**200), owner, gas=200_000)

    def raw(self, token: str, usd: int) -> int:
        """Return base units of a token worth so many dollars, rounded down."""
        symbol = self.symbol(token)
        return int(usd * 10 ** self.chain.tokens[symbol].decimals / self.chain.deployed_world.prices_usd[symbol])

    def price(self, token: str) -> Fraction:
        """Return USDC base units per base unit of a token, at the chain's prices."""
        symbol = self.symbol(token)
        return self.chain.deployed_world.prices_usd[symbol] * 10**6 / 10 ** self.chain.tokens[symbol].decimals

    def pool(
        self, venue: Venue, symbol_a: str, symbol_b: str, usd: int = POOL_USD, tier: tuple[int, int] | None = None, **changes: Any
    ) -> VenuePool:
        """Return a pool of two tokens at the chain's prices, one of the chain if it has it; "ETH" is the native coin.

        `tier` is tier and tick spacing; `usd` the value of token0 over the whole range.
        """
        number, spacing = tier or TIERS[venue]
        for name in (f"{a}/{b}" for a, b in ((symbol_a, symbol_b), (symbol_b, symbol_a))):
            info = self.chain.deployed_world.pool_by_name.get({Venue.V2: f"v2 {name}", Venue.V3: f"v3 {name} {number}"}.get(venue, ""))
            if info is not None:
                row = self.venues.rows[venue]
                return VenuePool(venue, row, info.address, info.token0.address, info.token1.address, number, spacing)
        tokens = [NATIVE if symbol == "ETH" else self.at(symbol) for symbol in (symbol_a, symbol_b)]
        token0, token1 = sorted(tokens, key=lambda token: int(token, 16))
        sqrt_price = sqrt_x96(self.price(token0) / self.price(token1))
        pool = self.venues.create(venue, token0, token1, sqrt_price, number, spacing, **changes)
        if usd:
            self.venues.provide(pool, liquidity_for(self.raw(token0, usd), sqrt_price), sqrt_price)
        return pool

    def hooked_pool(self, symbol_a: str, symbol_b: str, share: int = 0) -> VenuePool:
        """Return a V4 pool whose hook lets the accomplice in, and keeps `share` base units of what is bought."""
        code = self.chain.w3.eth.get_code(self.deploy("MeddlingHook").address).to_0x_hex()
        self.chain.node.ask([("anvil_setCode", [HOOK, code])])
        hook = self.chain.contract(HOOK, attack("MeddlingHook"))
        self.chain.send(hook.functions.meddle(self.accomplice.address, share))
        return self.pool(Venue.V4, symbol_a, symbol_b, hooks=str(to_checksum_address(HOOK)))

    def leg(self, pool: VenuePool, token_in: str, raw: int | None = None, **changes: Any) -> ProgramLeg:
        """Return a leg at the present quote as its least; by default worth a few hundred dollars."""
        amount = self.raw(token_in, CHEAP) if raw is None else raw
        return pool.leg(token_in, amount, self.venues.quote(pool, token_in, amount), **changes)

    def program(self, *legs: ProgramLeg, floor_raw: int | None = None, **bounds: int) -> Program:
        """Return the legs under the conditions that follow from their amounts, or under `bounds` by symbol alone."""
        changes: dict[str, int] = {self.at(symbol): raw for symbol, raw in bounds.items()}
        if not bounds:
            for leg in legs:
                if leg.source == 0:
                    changes[leg.token_in] = changes.get(leg.token_in, 0) - leg.amount_raw
                if leg.sink == 0:
                    changes[leg.token_out] = changes.get(leg.token_out, 0) + leg.min_out_raw
        conditions = {token: Condition(self.price(token), raw) for token, raw in changes.items()}
        program = Program(legs, conditions)
        return program if floor_raw is None else Program(legs, conditions, floor_raw=floor_raw)

    def would(
        self, program: Program | str, sender: str | None = None, to: str | None = None, value_wei: int | None = None, gas: int = TX_GAS
    ) -> str:
        """Return the error of a simulated call with its values, such as "TooLittleOut(1)"; "" if it succeeds."""
        data = program if isinstance(program, str) else program.calldata
        wei = value_wei if value_wei is not None else 0 if isinstance(program, str) else program.native_wei
        call = {"from": sender or self.victim, "to": to or self.rebalancer, "data": data, "value": hex(wei), "gas": hex(gas)}
        answer: Any = self.chain.w3.provider.make_request("eth_call", [call, "latest"])  # type: ignore[arg-type]  # a name of an RPC call
        if "error" not in answer:
            return ""
        return self.explain(bytes.fromhex(str(answer["error"].get("data") or "0x")[2:])) or str(answer["error"])

    def explain(self, data: bytes) -> str:
        """Return the name and the values of an error, also of one that the PoolManager wraps."""
        if data[:4] == selector("Error(string)"):
            return str(decode(["string"], data[4:])[0])
        if data[:4] not in self.errors:
            return data.hex()
        name, types = self.errors[data[:4]]
        return f"{name}({', '.join(str(value) for value in decode(types, data[4:]))})"

    def send(self, program: Program | str, value_wei: int | None = None) -> dict[str, int]:
        """Send a call of the victim, which must succeed; return the changes of its balances by symbol, of "ETH" without gas."""
        status, changes = self.attempt(program, value_wei)
        assert status == 1, self.would(program, value_wei=value_wei)
        return changes

    def attempt(self, program: Program | str, value_wei: int | None = None) -> tuple[int, dict[str, int]]:
        """Send a call of the victim; return its status and what balances changed, as `send` does."""
        wei = value_wei if value_wei is not None else 0 if isinstance(program, str) else program.native_wei
        eth = self.chain.w3.eth
        before = self.chain.balances()
        native = eth.get_balance(self.victim)
        data = program if isinstance(program, str) else program.calldata
        receipt = eth.wait_for_transaction_receipt(
            eth.send_transaction({"from": self.victim, "to": self.rebalancer, "data": data, "value": wei, "gas": TX_GAS}),
            poll_latency=0.01,
        )
        self.gas_used = int(receipt["gasUsed"])
        after = {**self.chain.balances(), "ETH": eth.get_balance(self.victim) + self.gas_used * receipt["effectiveGasPrice"]}
        changes = {symbol: after[symbol] - {**before, "ETH": native}[symbol] for symbol in after}
        return int(receipt["status"]), {symbol: raw for symbol, raw in changes.items() if raw}

    def prepare(self, steps: Sequence[tuple[str, str]], wait: int = 0, hook: bool = True) -> None:
        """Let the accomplice make these calls (target, calldata) when EVIL moves or a hook runs, after `wait` times without calls."""
        self.chain.send(self.accomplice.functions.prepare(list(steps), wait))
        if hook and "EVIL" in self.chain.tokens:
            self.chain.send(self.chain.contract(self.evil.address, attack("HookedToken")).functions.setHook(self.accomplice.address))

    def outcome(self) -> tuple[int, list[str]]:
        """Return how many calls of the accomplice succeeded, and the errors of the others."""
        functions = self.accomplice.functions
        errors = [bytes(functions.errors(number).call()) for number in range(functions.tried().call())]
        names = [self.errors[error][0] if error in self.errors else error.hex() for error in errors if any(error)]
        return functions.succeeded().call(), names

    def loot(self) -> dict[str, int]:
        """Return what thief, accomplice and Rebalancer hold, by symbol; native coin of Rebalancer alone."""
        who = (self.thief, self.accomplice.address, self.rebalancer)
        raw_by_symbol = {symbol: sum(self.chain.balance(symbol, owner) for owner in who) for symbol in self.chain.tokens}
        return {**raw_by_symbol, "ETH": self.chain.w3.eth.get_balance(str(to_checksum_address(self.rebalancer)))}

    def calldata(self, contract: Any, name: str, *arguments: object) -> str:
        """Return the calldata of a function of a web3 contract."""
        return str(contract.encode_abi(name, args=list(arguments)))


def deploy_rebalancer(venues: Venues) -> str:
    """Deploy Rebalancer as anyone does on any chain; return its address."""
    eth = venues.chain.w3.eth
    sent = eth.send_transaction(
        {"from": venues.chain.whale.address, "to": CREATE2_DEPLOYER, "data": encode_deployment(rebalancer_init_code()), "gas": TX_GAS}
    )
    assert eth.wait_for_transaction_receipt(sent, poll_latency=0.01)["status"] == 1
    return rebalancer_address()


def unlock_calldata(program: bytes, payer: str) -> str:
    """Return calldata with which a manager has Rebalancer run all legs of a program."""
    counts = program[5:8]
    legs = 24 + counts[1] * 20 + counts[0] * 40 + counts[2] * 53
    data = program + bytes(12) + bytes.fromhex(payer[2:]) + legs.to_bytes(32, "big") + len(program).to_bytes(32, "big")
    return "0x" + (selector(CALLBACKS[Venue.V4]) + encode(["bytes"], [data])).hex()


def _errors(abi: Sequence[Mapping[str, Any]]) -> dict[bytes, tuple[str, list[str]]]:
    """Return name and types of an ABI's errors by selector."""
    errors = [(entry["name"], [value["type"] for value in entry["inputs"]]) for entry in abi if entry["type"] == "error"]
    return {selector(f"{name}({','.join(types)})"): (name, types) for name, types in errors}
