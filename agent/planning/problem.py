"""What there is to plan with: tokens with reference prices, what may be spent of them, and the pools that may be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools as amm
from agent.errors import Refused
from agent.model import PoolState, Skipped, StepInput, V3Pool, Verdict
from agent.planning.floors import least_rate
from agent.planning.gas import ROUTERS, GasFacts, gas_price_wei
from agent.planning.payments import Coin, coin_of
from agent.policy import coin as purse
from agent.policy import liquidity
from agent.reference import References
from agent.units import BPS, Price, Value

UNBOUNDED_BPS = BPS - 1
"""Impact bound when the limit is off: as far as the ticks read reach."""


@dataclass(frozen=True, slots=True)
class Node:
    """A token that value may flow through. A hub that is no asset has nothing to invest and must end empty.

    `cap_raw` bounds what legs may take from the wallet: what this step has approved, or what of native coin is not kept for
    gas. `lp_raw` lies in liquidity positions: it counts, and cannot be spent.
    """

    address: str
    label: str
    price: Price
    investable_raw: int
    is_asset: bool
    cap_raw: int | None = None
    lp_raw: int = 0

    @property
    def spendable_raw(self) -> int:
        """Base units that legs may take from the wallet."""
        return self.investable_raw if self.cap_raw is None else min(self.investable_raw, self.cap_raw)

    @property
    def value(self) -> Value:
        """Worth of what counts, in the wallet and in positions, numeraire base units."""
        return (self.investable_raw + self.lp_raw) * self.price

    @property
    def locked(self) -> Value:
        """Worth of what cannot be spent, numeraire base units."""
        return self.lp_raw * self.price


@dataclass(frozen=True, slots=True)
class Problem:
    """Assets first, in the portfolio's order, then hubs; usable pools by address; bounds; and what was left out, with reasons.

    `gas_unit_value` is the worth of one unit of gas in numeraire base units, `coin` the wrapped native coin where it is an asset,
    `gas` what decides how much of it a plan takes; of tokens that are `leaving` the goal keeps nothing that can be spent.
    """

    nodes: tuple[Node, ...]
    position: dict[str, int]
    pools: dict[str, PoolState]
    impact_bps: int
    slippage_bps: int | None
    plan_cost_bps: int | None
    gas_unit_value: Value
    notes: tuple[Skipped, ...]
    coin: Coin | None = None
    gas: GasFacts = field(default_factory=GasFacts)
    leaving: frozenset[str] = frozenset()

    @property
    def assets(self) -> tuple[Node, ...]:
        """The nodes that have a target."""
        return tuple(node for node in self.nodes if node.is_asset)

    @property
    def total(self) -> Value:
        """Worth of everything that counts."""
        return sum((node.value for node in self.nodes), Fraction(0))

    def price(self, address: str) -> Price:
        """Reference price of a token of the problem."""
        return self.nodes[self.position[address]].price

    def least_rate(self, pool: PoolState) -> Fraction:
        """Value out per value in, after fee, below which no unit is traded in `pool`: that of the floor of its legs."""
        impact_bps = BPS if self.impact_bps == UNBOUNDED_BPS else self.impact_bps
        return least_rate(amm.fee_pips(pool), impact_bps, self.slippage_bps or 0)

    def room(self, pool: PoolState, token_in: str) -> int:
        """Base units of `token_in` that a pool of the snapshot takes within its impact bound and above its floor."""
        token_out = amm.token_out(pool, token_in)
        return amm.best_response(pool, token_in, self.least_rate(pool) * self.price(token_in) / self.price(token_out), self.impact_bps)


def build_problem(step: StepInput, references: References) -> Problem:
    """Raises Refused when an asset's price or balance is unknown, or gas cannot be valued while plan_cost is on."""
    notes: list[Skipped] = []
    nodes = (*_assets(step, references), *_hubs(step, references, notes))
    return open_problem(step, nodes, _gas_unit_value(step, references, notes), notes)


def open_problem(step: StepInput, nodes: tuple[Node, ...], gas_unit_value: Value, notes: list[Skipped]) -> Problem:
    """The problem over these tokens, with the pools of the snapshot that may be used between them."""
    position = {node.address: number for number, node in enumerate(nodes)}
    limits = step.limits
    notes += [
        Skipped(f"token {step.portfolio.token(one.token).label}", f"in quarantine: {one.why}; {one.finding.remedy}")
        for one in step.quarantine
    ]
    notes += [Skipped(f"token {step.portfolio.token(one.token).label}", f"its exit cannot be done now: {one.why}") for one in step.stuck]
    return Problem(
        nodes=nodes,
        position=position,
        pools={pool.address: pool for pool in step.snapshot.pools if _usable(step, pool, nodes, position, notes)},
        impact_bps=UNBOUNDED_BPS if limits.price_impact_bps is None else min(limits.price_impact_bps, UNBOUNDED_BPS),
        slippage_bps=limits.slippage_bps,
        plan_cost_bps=limits.plan_cost_bps,
        gas_unit_value=gas_unit_value,
        notes=tuple(notes),
        coin=coin_of(step),
        gas=_gas_facts(step),
    )


def _gas_facts(step: StepInput) -> GasFacts:
    snapshot, execution = step.snapshot, step.execution
    return GasFacts(
        ROUTERS.get(execution.router_kind, ROUTERS["swap_router_02"]),
        {holding.token: holding.raw for holding in snapshot.holdings},
        {allowance.token: allowance.raw for allowance in snapshot.allowances if allowance.spender == execution.router},
        {pool.address: pool for pool in snapshot.pools},
    )


def _assets(step: StepInput, references: References) -> list[Node]:
    held, coin = purse.held(step), coin_of(step)
    why_not = {item.token: item.why for item in references.unpriced}
    faults = {item.address: item.why for item in step.snapshot.quarantined}
    caps = dict(step.spend_caps)
    in_positions = liquidity.holdings(step, {token: found.price for token, found in references.prices.items()})
    nodes = []
    for asset in step.portfolio.assets:
        token = asset.token
        price = references.prices.get(token.address)
        if price is None or price.price <= 0:
            raise Refused(
                f"{token.label} has no reference price: {why_not.get(token.address, 'its price is zero')}",
                (Verdict("reference", f"no price of {token.label}", "a price of every asset", False),),
                "give the asset a feed, or a V3 pool whose observations cover reference.twap_window",
            )
        if token.address not in held:
            raise Refused(
                f"the balance of {token.label} is unknown: {faults.get(token.address, 'it was not read')}",
                (Verdict("balance", f"{token.label} unknown", "the balance of every asset", False),),
                "unknown is not zero: wait for the next snapshot, or take the asset out of the portfolio",
            )
        investable_raw, cap_raw = max(0, held[token.address] - purse.kept_raw(step, asset)), caps.get(token.address)
        if coin is not None and token.address == coin.token:
            investable_raw -= 0 if coin.counts else coin.refill_raw
            cap_raw = coin.cap_raw
        lp_raw = in_positions.get(token.address, 0)
        nodes.append(Node(token.address, token.label, price.price, investable_raw, True, cap_raw, lp_raw))
    return nodes


def _hubs(step: StepInput, references: References, notes: list[Skipped]) -> list[Node]:
    known = {asset.token.address for asset in step.portfolio.assets}
    quarantined = {item.address: item.why for item in step.snapshot.quarantined}
    nodes = []
    for token in step.portfolio.hubs:
        if token.address in known or token.address in {one.token for one in step.quarantine}:
            continue
        known.add(token.address)
        price = references.prices.get(token.address)
        if token.address in quarantined:
            notes.append(Skipped(f"hub {token.label}", f"quarantined: {quarantined[token.address]}"))
        elif price is None or price.price <= 0:
            notes.append(Skipped(f"hub {token.label}", "no reference price, so that no floor could be set on a leg through it"))
        else:
            nodes.append(Node(token.address, token.label, price.price, 0, False))
    return nodes


def _usable(step: StepInput, pool: PoolState, nodes: tuple[Node, ...], position: dict[str, int], notes: list[Skipped]) -> bool:
    """Whether a pool may be traded in; the reason is noted where the owner could wonder."""
    if pool.token0 not in position or pool.token1 not in position:
        return False
    if {pool.token0, pool.token1} & {one.token for one in step.quarantine}:
        return False  # the token is noted, once
    name = f"pool {pool.address}"
    fault = next((item.why for item in step.snapshot.quarantined if item.address == pool.address), None)
    if fault is not None:
        notes.append(Skipped(name, f"quarantined: {fault}"))
        return False
    if _is_empty(pool):
        notes.append(Skipped(name, "no liquidity"))
        return False
    least = step.limits.pool_min_value
    if least is None:
        return True
    value = sum((amm.depth(pool, token) * nodes[position[token]].price for token in (pool.token0, pool.token1)), Fraction(0))
    if value < least:
        notes.append(Skipped(name, "holds less than limits.pool_min_value"))
        return False
    return True


def _is_empty(pool: PoolState) -> bool:
    if isinstance(pool, V3Pool):
        return pool.sqrt_price_x96 <= 0 or (pool.liquidity == 0 and not pool.ticks)
    return pool.reserve0 <= 0 or pool.reserve1 <= 0


def _gas_unit_value(step: StepInput, references: References, notes: list[Skipped]) -> Value:
    native = references.prices.get(step.portfolio.wrapped_native)
    if native is not None:
        return gas_price_wei(step.snapshot) * native.price
    if step.limits.plan_cost_bps is not None:
        raise Refused(
            "gas cannot be valued: the wrapped native coin has no reference price",
            (Verdict("plan_cost", "gas without a price", f"{step.limits.plan_cost_bps} bps", False),),
            "add the wrapped native coin to portfolio.hubs, or give it a feed",
        )
    notes.append(Skipped("gas", "not valued: the wrapped native coin has no reference price"))
    return Fraction(0)
