"""Liquidity positions: confirmed positions, their state at one block, targets and actions. Pairs of
numbers are (token0, token1).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.model.parts import LayerAction, LayerDecision, position_name


@dataclass(frozen=True, slots=True)
class ConfirmedPosition:
    """A position that counts: named in the config, minted by the agent, or adopted. All others of the
    wallet are ignored.

    `contract` is the V2 pair, or the V3 position manager with `token_id`. `entry_raw` are the base
    units provided, `entry_block` their block (None: not given). `volatility_bps` is the annual
    volatility of the pair's price, `horizon_s` the horizon of the expected impermanent loss.
    """

    venue: str
    contract: str
    token_id: int | None
    token0: str
    token1: str
    entry_raw: tuple[int, int]
    entry_block: int | None
    volatility_bps: int
    horizon_s: int

    @property
    def name(self) -> str:
        """Display name of the position."""
        return position_name(self.venue, self.contract, self.token_id)


@dataclass(frozen=True, slots=True)
class LpV2Position:
    """LP tokens of the wallet in a Uniswap V2 pair, with the inputs of their burn.

    `balances` are the pair's real balances, which anyone may raise above `reserves`.
    `has_protocol_fee` is true if the factory has a feeTo address; the pair then mints LP tokens to
    it before the burn, and `k_last` is the product of reserves at the last such mint.
    """

    venue: str
    pair: str
    token0: str
    token1: str
    liquidity: int
    total_supply: int
    reserves: tuple[int, int]
    balances: tuple[int, int]
    k_last: int
    has_protocol_fee: bool

    @property
    def name(self) -> str:
        """Display name of the position."""
        return position_name(self.venue, self.pair, None)


@dataclass(frozen=True, slots=True)
class LpV3Position:
    """A token of the V3 position manager that belongs to the wallet, with the state of its pool.

    `inside_last_x128` and `owed` are the manager's record of this token. Fields `core_…` are the
    pool's record of the manager's whole position in this range: all tokens of the manager share it,
    and collect pays from it. Growths are per unit of liquidity, modulo 2^256.
    """

    venue: str
    manager: str
    token_id: int
    pool: str
    token0: str
    token1: str
    fee_pips: int
    tick_lower: int
    tick_upper: int
    liquidity: int
    inside_last_x128: tuple[int, int]
    owed: tuple[int, int]
    sqrt_price_x96: int
    tick: int
    growth_global_x128: tuple[int, int]
    growth_outside_lower_x128: tuple[int, int]
    growth_outside_upper_x128: tuple[int, int]
    core_liquidity: int
    core_inside_last_x128: tuple[int, int]
    core_owed: tuple[int, int]

    @property
    def name(self) -> str:
        """Display name of the position."""
        return position_name(self.venue, self.manager, self.token_id)


@dataclass(frozen=True, slots=True)
class LpMissingPosition:
    """A confirmed token of the position manager that does not exist: burned, or never minted."""

    venue: str
    manager: str
    token_id: int
    token0: str
    token1: str

    @property
    def name(self) -> str:
        """Display name of the position."""
        return position_name(self.venue, self.manager, self.token_id)


LpPosition = LpV2Position | LpV3Position | LpMissingPosition


@dataclass(frozen=True, slots=True)
class LpPositionChange:
    """Effect of one mined transaction of the agent on a position: `liquidity_delta` added, negative
    if removed.

    `amounts_raw` are the base units added (zero for a removal); `liquidity_before` is the
    position's whole liquidity before a removal. `ticks` is the range of a new V3 position,
    otherwise None.
    """

    venue: str
    contract: str
    token_id: int | None
    pool: str
    token0: str
    token1: str
    fee_pips: int
    ticks: tuple[int, int] | None
    liquidity_delta: int
    liquidity_before: int
    amounts_raw: tuple[int, int]
    block_number: int

    @property
    def name(self) -> str:
        """Display name of the position."""
        return position_name(self.venue, self.contract, self.token_id)


# --- Liquidity targets, and actions on positions.


@dataclass(frozen=True, slots=True)
class LpTarget:
    """Target share of the portfolio to provide to one pool.

    `contract` is the V2 pair, or the V3 position manager. A new V3 range reaches from reference
    price / (1 + width) to reference price · (1 + width), rounded to `tick_spacing`; `tick_spacing`
    and `width_bps` are None for V2. Fees above `compound_above` (numeraire base units) are
    collected and reinvested (None: never). `volatility_bps` (annual) and `horizon_s` determine the
    expected impermanent loss, as for a confirmed position.
    """

    venue: str
    contract: str
    pool: str
    token0: str
    token1: str
    fee_pips: int
    tick_spacing: int | None
    share_bps: int
    width_bps: int | None
    compound_above: Fraction | None
    volatility_bps: int
    horizon_s: int


@dataclass(frozen=True, slots=True)
class Withdraw(LayerAction):
    """Withdrawal of liquidity from a position to the wallet, for V3 with all fees.

    `contract` is the V2 pair, or the V3 position manager with `token_id`. `amounts_raw` is the
    contracts' payout at the snapshot, `min_raw` the minimum accepted, from reference prices (T11).
    `fees_raw` are zero for V2. `position_liquidity` is the position's whole liquidity.
    """

    liquidity: int
    amounts_raw: tuple[int, int]
    min_raw: tuple[int, int]
    fees_raw: tuple[int, int]
    gas_units: int
    reason: str
    position_liquidity: int = 0

    @property
    def spends_raw(self) -> dict[str, int]:
        """Most base units taken from the wallet, by token: LP tokens, under the pair."""
        return {self.contract: self.liquidity} if self.token_id is None else {}

    @property
    def min_received_raw(self) -> dict[str, int]:
        """Least base units paid to the wallet, by token."""
        return dict(zip((self.token0, self.token1), self.min_raw, strict=True))


@dataclass(frozen=True, slots=True)
class Collect(LayerAction):
    """Collection of the fees of a V3 position, to the wallet."""

    token_id: int
    fees_raw: tuple[int, int]
    gas_units: int
    reason: str


@dataclass(frozen=True, slots=True)
class Provide(LayerAction):
    """Provision of both tokens to a V2 pair, to a new V3 position of `ticks`, or to the wallet's V3
    position `token_id`.

    The pool takes at most `desired_raw` and at least `min_raw`; at the snapshot exactly
    `amounts_raw`, for `liquidity`. token0 is tokenA of the V2 router.
    """

    fee_pips: int
    ticks: tuple[int, int] | None
    liquidity: int
    desired_raw: tuple[int, int]
    amounts_raw: tuple[int, int]
    min_raw: tuple[int, int]
    gas_units: int
    reason: str

    @property
    def name(self) -> str:
        """Name of the position, or of the pool in which a new one opens."""
        if self.ticks is not None and self.token_id is None:
            return f"{self.venue} {self.pool} (new)"
        return position_name(self.venue, self.contract, self.token_id)

    @property
    def spends_raw(self) -> dict[str, int]:
        """Most base units taken from the wallet, by token."""
        token_amounts = zip((self.token0, self.token1), self.desired_raw, strict=True)
        return {token: raw for token, raw in token_amounts if raw > 0}


LpAction = Withdraw | Collect | Provide


def as_lp_action(action: LayerAction) -> LpAction:
    """Return an action on liquidity as such. Raises TypeError for any other action."""
    if not isinstance(action, LpAction):
        raise TypeError(f"{type(action).__name__} moves no liquidity")
    return action


@dataclass(frozen=True, slots=True)
class AdjustLiquidity(LayerDecision):
    """Withdrawal, collection or provision of liquidity, within budget and maximum weight; swaps
    follow in a later plan.

    If `only_pools` is set, only their targets are followed: an exit withdraws the liquidity that it
    sells and leaves the rest unchanged.
    """

    only_pools: tuple[str, ...] = ()
