"""Liquidity that is wanted, and what is to be done with positions. Pairs of numbers are (token0, token1) base units."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.model.positions import position_name


@dataclass(frozen=True, slots=True)
class LpTarget:
    """A share of the portfolio that is to lie in one pool.

    `contract` is the V2 pair, or the V3 position manager. V3 has `fee_pips`, `tick_spacing` and `width_bps`: a new range reaches
    from reference price / (1 + width) to reference price · (1 + width), to the spacing; V2 has None of the last two. Fees above
    `compound_above` (numeraire base units) are collected and put back; None leaves them. `volatility_bps` (a year) and `horizon_s`
    are those by which the expected loss of what is provided is judged, as of a confirmed position.
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
class Withdraw:
    """Takes liquidity out of a position, to the wallet; of V3 all fees with it.

    `contract` is the V2 pair, or the position manager of V3 with `token_id`. `amounts_raw` is what the contracts pay at the
    snapshot, `min_raw` the least that is accepted, from reference prices (T11). `fees_raw` are zero for V2. `held` is all the
    liquidity that the position has.
    """

    venue: str
    contract: str
    token_id: int | None
    pool: str
    token0: str
    token1: str
    liquidity: int
    amounts_raw: tuple[int, int]
    min_raw: tuple[int, int]
    fees_raw: tuple[int, int]
    gas_units: int
    reason: str
    held: int = 0

    @property
    def name(self) -> str:
        """As the owner's confirmation of the position is called."""
        return position_name(self.venue, self.contract, self.token_id)


@dataclass(frozen=True, slots=True)
class Collect:
    """Takes what a V3 position has earned, to the wallet."""

    venue: str
    contract: str
    token_id: int
    pool: str
    token0: str
    token1: str
    fees_raw: tuple[int, int]
    gas_units: int
    reason: str

    @property
    def name(self) -> str:
        """As the owner's confirmation of the position is called."""
        return position_name(self.venue, self.contract, self.token_id)


@dataclass(frozen=True, slots=True)
class Provide:
    """Puts both tokens into a pool: into a V2 pair, a new V3 position of `ticks`, or (`token_id`) one that the wallet has.

    At most `desired_raw` is taken and exactly `amounts_raw` at the snapshot, for `liquidity`; never less than `min_raw`. The V2
    router is asked with token0 as its tokenA.
    """

    venue: str
    contract: str
    token_id: int | None
    pool: str
    token0: str
    token1: str
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
        """The position, or the pool in which a new one opens."""
        minted = self.ticks is not None and self.token_id is None
        return f"{self.venue} {self.pool} (new)" if minted else position_name(self.venue, self.contract, self.token_id)


LpAction = Withdraw | Collect | Provide
