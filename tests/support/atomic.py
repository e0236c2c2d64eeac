"""A wallet that trades through the Rebalancer of an embedded chain, and programs that our encoder would never write."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from eth_abi.abi import encode as abi_encode

from agent.localchain import LocalChain
from agent.model import IntentKind, Leg, Plan, Receipt, UnsignedTx
from agent.ports import Simulation
from agent.signing.calldata import REBALANCE, FundsLocation, Venue
from agent.signing.rules import SigningRules
from agent.units import NATIVE, floor_int
from agent.venues.rebalancer import RebalancerTerms, encode, min_balance_changes, native_wei
from tests.support.desk import DEADLINE_S, LIMIT_WEI, Desk

NEVER_S = 2**40 - 1
V2, V3, COIN = Venue
OWN, HERE, PAIR = FundsLocation


class AtomicDesk(Desk):
    """As Desk, with the Rebalancer as router; what it keeps to is what the legs' minimums come to."""

    def __init__(self, chain: LocalChain) -> None:
        super().__init__(chain)
        self.router = chain.addresses.rebalancer
        weth = self.at("WETH")
        tokens = tuple(token.address for token in chain.tokens.values())
        self.rules = SigningRules(chain.chain_id, self.wallet, (), tokens, DEADLINE_S, LIMIT_WEI, (self.router,), weth)

    @property
    def prices(self) -> dict[str, Fraction]:
        """USDC base units per base unit of each token, at the chain's prices."""
        usd = self.chain.books.prices_usd
        found = {token.address: usd[symbol] * 10**6 / 10**token.decimals for symbol, token in self.chain.tokens.items()}
        return found | {NATIVE: found[self.at("WETH")]}

    def terms(self, legs: Sequence[Leg]) -> RebalancerTerms:
        """Prices, and the value that the minimums come to."""
        least, prices = min_balance_changes(legs), self.prices
        return RebalancerTerms(prices, floor_int(sum((raw * prices[token] for token, raw in least.items()), Fraction(0))) - 1)

    def swap_tx(self, plan: Plan, legacy: bool = False, terms: RebalancerTerms | None = None, **changes: object) -> UnsignedTx:
        """The plan as one call."""
        data = encode(plan, self.sender.head().timestamp_s + DEADLINE_S, terms or self.terms(plan.legs))
        return self.tx(self.router, data, legacy, **{"value_wei": native_wei(plan)} | changes)

    def swap(self, plan: Plan, legacy: bool = False, **changes: object) -> Receipt:
        """Sends the plan; its floors are its minimums."""
        kept = self.terms(plan.legs)
        floors = tuple(leg.min_out_raw for leg in plan.legs)
        prices = tuple((token, kept.prices[token]) for token in min_balance_changes(plan.legs))
        grant = self.grant(IntentKind.SWAP, plan=plan, floors_raw=floors, prices=prices, value_floor_raw=kept.floor_raw)
        return self.run(self.swap_tx(plan, legacy, **changes), grant)

    def would(self, data: str, sender: str | None = None, to: str | None = None, value_wei: int = 0) -> Simulation:
        """What a call of the Rebalancer (or `to`) would do when `sender` (the wallet unless said) sent it."""
        tx = self.tx(to or self.router, data, value_wei=value_wei)
        return self.sender.simulate(tx, sender or self.wallet)


def raw_leg(
    tokens: Sequence[str],
    venue: Venue,
    token_in: str,
    token_out: str,
    *,
    source: FundsLocation = OWN,
    sink: FundsLocation = OWN,
    pair_with: str | None = None,
    fee: int = 3000,
    raw: int = 0,
    least: int = 1,
) -> bytes:
    """One leg of a program, whatever sense it makes."""
    numbers = [tokens.index(token_in), tokens.index(token_out), 0 if pair_with is None else tokens.index(pair_with)]
    kind = venue.value | source.value << 2 | sink.value << 4
    return bytes([kind, *numbers]) + fee.to_bytes(3, "big") + raw.to_bytes(16, "big") + least.to_bytes(16, "big")


def raw_program(
    tokens: Sequence[str],
    legs: Sequence[bytes],
    watched: Sequence[tuple[Fraction, int]] = (),
    floor_raw: int = -(2**120),
    deadline_s: int = NEVER_S,
) -> str:
    """Calldata of any program; `watched` are price and bound of the first tokens."""
    header = deadline_s.to_bytes(5, "big") + bytes([len(watched), len(tokens)]) + floor_raw.to_bytes(16, "big", signed=True)
    listed = b"".join(bytes.fromhex(token[2:]) for token in tokens)
    terms = b"".join(int(price * 2**128).to_bytes(24, "big") + bound.to_bytes(16, "big", signed=True) for price, bound in watched)
    return "0x" + (REBALANCE + abi_encode(["bytes"], [header + listed + terms + b"".join(legs)])).hex()
