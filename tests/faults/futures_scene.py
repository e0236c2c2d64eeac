"""A wallet with futures off their targets on Perpetual Protocol's own contracts, drawn from a seed: open, increase, reduce, close, flip,
two markets, spot and futures in one step, a key that may only trade for another account, and margin from the wallet.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from agent.localchain import LocalChain
from agent.localchain.perpetuals import LocalPerps
from agent.units import BPS, parse_share_with_unit_bps
from agent.venues.perpetual_protocol import encode_delegate
from tests.faults.scene import FuturesLayer, Scenario, Scene, staged
from tests.support.agents import ROOMY, Changes
from tests.support.futures import EVEN, futures_table
from tests.support.perps import WAD, contracts_of, perps_on, read_now, send_data
from tests.support.worlds import one_case

OWNER_INDEX = 3
"""The account that a restricted key trades for."""
WHALE_USD = 1_000_000
_DEPLOYED: dict[str, LocalPerps] = {}


@dataclass(frozen=True)
class OrderKind:
    """What the orders do. `positions` and `leverage` are multiples of the account's value; `spot` and `others` say whether the wallet is
    off its spot targets too, and whether it trades for another account. `deposits` is how much of the wallet a day may go into margin.
    """

    name: str
    weights: Mapping[str, str]
    positions: Mapping[str, str] = field(default_factory=dict)
    leverage: str = "2x"
    most: str = "2.2x"
    spot: bool = False
    others: bool = False
    deposits: str = "0%"


KINDS = (
    OrderKind("open", {"WETH": "100%"}),
    OrderKind("two markets", {"WETH": "60%", "WBTC": "-40%"}),
    OrderKind("reduce", {"WETH": "100%"}, {"WETH": "2.6"}),
    OrderKind("flip", {"WETH": "-100%"}, {"WETH": "0.8"}, leverage="1.5x"),
    OrderKind("spot and futures", {"WETH": "-50%", "WBTC": "50%"}, spot=True),
    OrderKind("delegate", {"WETH": "60%", "WBTC": "-40%"}, {"WETH": "-0.4"}, others=True),
    OrderKind("close", {"WETH": "100%", "WBTC": "0%"}, {"WETH": "1.3", "WBTC": "0.6"}),
    OrderKind("increase", {"WETH": "60%", "WBTC": "-40%"}, {"WETH": "0.3", "WBTC": "-0.7"}),
    OrderKind("spot and reductions", {"WETH": "-60%", "WBTC": "40%"}, {"WETH": "-1.6", "WBTC": "1"}, spot=True),
    OrderKind("delegate reduces", {"WBTC": "-100%"}, {"WBTC": "-2.5"}, others=True),
    OrderKind("top up", {"WETH": "100%"}, {"WETH": "2.5"}, deposits="20%"),
)


def kind_of(seed: int) -> OrderKind:
    """Each kind in turn, so that as many seeds as there are kinds have them all."""
    return KINDS[seed % len(KINDS)]


def known(perps: LocalPerps) -> None:
    """Contracts that are there already: scenes on their chain take them."""
    _DEPLOYED[perps.chain.url or ""] = perps


def deployed(chain: LocalChain) -> LocalPerps:
    """The contracts, deployed once on each chain: every case begins with that state."""
    perps = _DEPLOYED.get(chain.url or "")
    if perps is None or not bytes(chain.w3.eth.get_code(chain.w3.to_checksum_address(perps.addresses.clearing_house))):
        known(perps := perps_on(chain))
    return perps


def spot_of(seed: int, kind: OrderKind, margin_usd: int) -> Scenario:
    """The spot portfolio beside the futures, on its targets or off them; margin of its own is part of its dollars."""
    draw = random.Random(f"futures {seed}")
    total = draw.randrange(45_000, 90_000)
    off = draw.choice((-1, 1)) * draw.randrange(total // 8, total // 4) if kind.spot else 0
    changes: dict[str, object] = {**ROOMY, "chain.confirmations": draw.choice((1, 1, 2, 3))}
    changes["execution.router"] = draw.choice(("swap_router_02", "swap_router_02", "rebalancer"))
    spot_by_symbol = {"WETH": total // 2 + off, "USDC": total - total // 2 - off - margin_usd}
    return Scenario(seed, EVEN, spot_by_symbol, changes, draw.random() < 0.6)


@contextmanager
def futures_scene(
    chain: LocalChain, folder: Path, seed: int, changes: Changes | None = None, operators: Sequence[str] = ("local",)
) -> Iterator[Scene]:
    """The wallet and margin account that a seed stands for; afterwards the chain is as it was."""
    kind = kind_of(seed)
    draw = random.Random(f"margin {seed}")
    perps = deployed(chain)
    wallet = chain.wallet.address
    with one_case(chain):
        trader = chain.accounts[OWNER_INDEX].address if kind.others else wallet
        usd = draw.randrange(8_000, 15_000)
        perps.deposit(trader, usd * 10**6)
        perps.deposit(chain.whale.address, WHALE_USD * 10**6)
        if kind.others:
            send_data(perps, perps.addresses.delegate_approval, encode_delegate(wallet, is_allowed=True), trader)
            assert contracts_of(perps, trader).trader == trader
        for symbol, multiple in kind.positions.items():
            size = int(Fraction(multiple) * usd / chain.deployed_world.prices_usd[symbol] * WAD)
            perps.trade(trader, symbol, size)
            perps.trade(chain.whale.address, symbol, -size)  # the pool is back at its index
        limits = {"max_leverage": kind.most, "max_top_up_per_day": kind.deposits}
        table = futures_table(perps, kind.weights, kind.leverage, **limits) | ({"account": trader} if kind.others else {})
        most_bps = parse_share_with_unit_bps(kind.most, "max_leverage")
        assert most_bps > BPS
        layer = FuturesLayer(perps, trader, read_now(perps, trader), kind.weights, most_bps, int(kind.deposits != "0%"))
        more = {"portfolio.max_live_value": "200000", "futures": table, **(changes or {})}
        with staged(chain, folder, spot_of(seed, kind, 0 if kind.others else usd), more, operators, int(kind.spot), layer) as scene:
            yield scene
