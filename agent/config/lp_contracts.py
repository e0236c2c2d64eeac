"""Which liquidity positions count, those of the agent's own included, and which contracts they are reached through."""

from __future__ import annotations

from collections.abc import Sequence

from agent.config.schema import Config
from agent.errors import ConfigError
from agent.lp import own
from agent.model import ConfirmedPosition, LpMove, Portfolio


def known_positions(config: Config, portfolio: Portfolio, moves: Sequence[LpMove]) -> tuple[ConfirmedPosition, ...]:
    """Every position that counts. Raises ConfigError when the agent has opened some, and the config no longer says how to judge them."""
    if config.lp is not None:
        venues = {"uniswap_v2": config.venues.uniswap_v2, "uniswap_v3": config.venues.uniswap_v3}
        for move in moves:
            if venues.get(move.venue) is None and own.is_open(moves, move.name):
                raise ConfigError(
                    f"venues.{move.venue}: missing, and the agent has liquidity in {move.name}",
                    f"leave [venues.{move.venue}] in the config; a target's share of 0% takes liquidity out",
                )
        return own.known(portfolio.positions, portfolio.lp_targets, moves, config.lp.volatility, config.lp.horizon)
    if open_still := {move.name for move in moves if own.is_open(moves, move.name)}:
        raise ConfigError(
            f"lp: missing, and the agent has liquidity in {', '.join(sorted(open_still))}",
            "leave [lp] with its volatility and horizon in the config; a target's share of 0% takes liquidity out",
        )
    return portfolio.positions


def lp_venues(config: Config, moves: Sequence[LpMove]) -> frozenset[str]:
    """Venues in which liquidity is confirmed, wanted, or put by the agent itself."""
    wanted = () if config.lp is None else config.lp.targets
    places = [place.kind for place in (*config.portfolio.positions, *wanted)]
    return frozenset(places) | {move.venue for move in moves if own.is_open(moves, move.name)}


def liquidity_contracts(config: Config, moves: Sequence[LpMove]) -> tuple[tuple[str, str], ...]:
    """(venue, contract) through which liquidity is provided and taken out, of the venues that have any."""
    v2, v3, used = config.venues.uniswap_v2, config.venues.uniswap_v3, lp_venues(config, moves)
    through = {"uniswap_v2": v2.router if v2 else None, "uniswap_v3": v3.position_manager if v3 else None}
    return tuple((venue, contract) for venue, contract in through.items() if venue in used and contract is not None)
