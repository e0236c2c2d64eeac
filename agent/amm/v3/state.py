"""State of a Uniswap V3 pool, as read at one block."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.model import TickMean


@dataclass(frozen=True, slots=True)
class V3State:
    """State of a Uniswap V3 pool.

    `ticks` holds every initialised tick with known_from_tick <= index <= known_to_tick, ascending;
    a quote that leaves this window is refused. `twap_tick` is the time-weighted mean tick over
    `twap_window_s` (None if the pool's observations do not reach back that far), `twap_liquidity`
    the harmonic mean in-range liquidity of the same window (OracleLibrary.consult); `short_mean` is
    that of reference.short_window (None if it was not read).
    `observation_counts` are the current and the next number of price observations
    (slot0.observationCardinality and -Next). `unwritten_slots` is true per token of (token0,
    token1) whose fee growth is still zero: a trade that writes it costs more gas.
    """

    address: str
    venue: str
    token0: str
    token1: str
    fee_pips: int
    tick_spacing: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks: tuple[TickLiquidity, ...]
    known_from_tick: int
    known_to_tick: int
    twap_tick: int | None = None
    twap_liquidity: int | None = None
    twap_window_s: int | None = None
    observation_counts: tuple[int, int] | None = field(default=None, compare=False)
    unwritten_slots: tuple[bool, bool] = field(default=(False, False), compare=False)
    short_mean: TickMean | None = None

    def fee_toward(self, zero_for_one: bool) -> int:
        """Return the fee of a swap in this direction, in millionths."""
        return self.fee_pips
