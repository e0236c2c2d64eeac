"""What the owner wants: the portfolio and its targets, when to act, and how far to go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent.model.liquidity import LpTarget
from agent.model.orders import NO_ORDERS, Orders
from agent.model.positions import ConfirmedPosition
from agent.model.triggers import Threshold, Trigger
from agent.model.weights import Weights
from agent.units import NATIVE, Token


@dataclass(frozen=True, slots=True)
class Asset:
    """One target: weight in bps of the investable total, `reserve_raw` base units left alone, `feed` its USD price feed.

    With `native` the token is the wrapped native coin, and the wallet's native coin counts with it. `rebasing_bps` is what its
    balance may change by in a day without any transfer, as those of rebasing and interest-bearing tokens do. `band` is its own, in
    place of that of the trigger. Above `max_bps` of the portfolio nothing more of it is bought.
    """

    token: Token
    target_bps: int
    reserve_raw: int
    feed: str | None = None
    native: bool = False
    rebasing_bps: int = 0
    band: Threshold | None = None
    max_bps: int | None = None


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Assets whose weights sum to 10,000; `hubs` are tokens that routes may pass through, `hub_feeds` their USD feeds.

    `wrapped_native` prices gas; it should be an asset or a hub. `positions` are the liquidity positions that count,
    `lp_targets` the liquidity that is wanted, `orders` what keeps an asset out of the market. `weights` says how
    the targets are chosen; None leaves them as they are.
    """

    numeraire: Token
    assets: tuple[Asset, ...]
    hubs: tuple[Token, ...]
    wrapped_native: str
    hub_feeds: tuple[tuple[str, str], ...] = ()
    positions: tuple[ConfirmedPosition, ...] = ()
    lp_targets: tuple[LpTarget, ...] = ()
    weights: Weights | None = None
    orders: Orders = NO_ORDERS

    def feed(self, address: str) -> str | None:
        """USD price feed of the token at `address`; None when it has none."""
        feeds = {asset.token.address: asset.feed for asset in self.assets} | dict(self.hub_feeds)
        return feeds.get(address)

    def feeds(self) -> tuple[str, ...]:
        """Every price feed, each once."""
        found = [asset.feed for asset in self.assets if asset.feed is not None] + [feed for _, feed in self.hub_feeds]
        return tuple(dict.fromkeys(found))

    def token(self, address: str) -> Token:
        """The token at `address`; KeyError when it is neither asset nor hub, nor the native coin."""
        if address == NATIVE:
            return Token(NATIVE, "native", 18)
        for token in (*(a.token for a in self.assets), *self.hubs, self.numeraire):
            if token.address == address:
                return token
        raise KeyError(address)


class Destination(Enum):
    """Where a triggered rebalance goes: the target, the nearer edge of the band, half of the way, or as far as it pays."""

    TARGET = "target"
    BAND = "band"
    HALFWAY = "halfway"
    ZONE = "zone"


class Only(Enum):
    """Which side of a rebalance is traded (agent/policy/only.py says exactly what)."""

    SELL = "sell"
    BUY = "buy"
    WINNERS = "winners"
    LOSERS = "losers"


@dataclass(frozen=True, slots=True)
class Policy:
    """When to act and how far to go; destination BAND needs a trigger that has a band, ZONE goes with a Zone and nothing else does.

    What prices make a trigger ask for must be asked for by those of the `confirm_blocks` blocks before, too. A schedule is due
    up to `jitter_bps` of its interval late, at random. With `only` one side alone is traded.
    """

    trigger: Trigger
    destination: Destination
    cooldown_s: int
    confirm_blocks: int = 0
    jitter_bps: int = 0
    only: Only | None = None
