"""A local Hyperliquid: /info and /exchange in the documented shapes, over HTTP on loopback.

Every signature is verified by the recovery functions of the venue's own library. Orders match by price, then time, against a seeded book;
nonces, agents with names and expiry, client order ids, ticks, margin tiers and the minimum of 10 USD follow the venue's documentation.
Choices of our own, where the documentation is silent: marks move and funding is paid only when a test does so, initial margin beyond the
first tier is computed tier by tier, and there are no liquidations.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from eth_account import Account
from eth_utils.crypto import keccak
from hyperliquid.utils import signing

from tests.support.fakes.http_server import LoopbackHandler, listening

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START_MS = 1_790_000_000_000
HOUSE = "0x" + "11" * 20
"""Owner of the seeded book, with unlimited money."""
AGENT_TYPES = [
    {"name": "hyperliquidChain", "type": "string"},
    {"name": "agentAddress", "type": "address"},
    {"name": "agentName", "type": "string"},
    {"name": "nonce", "type": "uint64"},
]
USER_SIGNED = {
    "approveAgent": (AGENT_TYPES, "HyperliquidTransaction:ApproveAgent"),
    "usdSend": (signing.USD_SEND_SIGN_TYPES, "HyperliquidTransaction:UsdSend"),
    "withdraw3": (signing.WITHDRAW_SIGN_TYPES, "HyperliquidTransaction:Withdraw"),
}
TESTNET_ETH = (("0.0", 25), ("20000.0", 10), ("50000.0", 5), ("200000.0", 3))


OFF_TICK = "Price must be divisible by tick size."
INCREASES = "Reduce only order would increase position."
POOLED = ("unifiedAccount", "portfolioMargin")


def inexact(value: Fraction) -> str:
    """Format an amount with the artefact of a float."""
    return text(value + Fraction(1, 10**10), 10) if value else "0.0"


def text(value: Fraction, places: int = 6) -> str:
    """Format a decimal as the venue does, rounded half to even."""
    scaled = round(value * 10**places)
    digits = str(abs(scaled)).rjust(places + 1, "0")
    whole = digits[:-places]
    part = digits[-places:].rstrip("0") or "0"
    return f"{'-' if scaled < 0 else ''}{whole}.{part}"


@dataclass
class Coin:
    name: str
    size_decimals: int
    mark: Fraction
    tiers: tuple[tuple[str, int], ...]
    table_id: int
    funding: Fraction = Fraction(1, 80_000)
    is_delisted: bool = False
    is_only_isolated: bool = False
    index: Fraction | None = None

    def tick_ok(self, price: Fraction) -> bool:
        """Return whether a price has at most five significant figures and 6 decimals less those of a size; whole numbers always pass."""
        if price.denominator == 1:
            return True
        whole, part = text(price, 12).rstrip("0").split(".")
        return len(part) <= 6 - self.size_decimals and len((whole + part).lstrip("0")) <= 5

    def margin(self, notional: Fraction, leverage: int | None) -> Fraction:
        """Return the maintenance margin by rate and deduction, as documented; with a leverage the initial margin, tier by tier."""
        rate = Fraction(0)
        deduction = Fraction(0)
        before = Fraction(0)
        for bound, most in self.tiers:
            if notional < Fraction(bound):
                break
            rate = Fraction(1, 2 * most) if leverage is None else Fraction(1, min(most, leverage))
            deduction += Fraction(bound) * (rate - before)
            before = rate
        return notional * rate - deduction


@dataclass
class ServerPosition:
    size: Fraction = Fraction(0)
    cost: Fraction = Fraction(0)
    """Cost of the position: size times average entry price."""


@dataclass
class Wallet:
    """Account of a wallet. `usd` is the balance without the value of its positions."""

    usd: Fraction = Fraction(0)
    positions: dict[str, ServerPosition] = field(default_factory=dict)
    leverages: dict[str, int] = field(default_factory=dict)
    is_isolated: set[str] = field(default_factory=set)
    isolated: dict[str, tuple[ServerPosition, Fraction]] = field(default_factory=dict)
    """Isolated positions, each with the margin beside `usd` that belongs to it."""
    mode: str = "default"
    """Answer to `userAbstraction`. In the modes unifiedAccount and portfolioMargin the balance is elsewhere, and the margin
    account has only the initial margin of its positions."""


@dataclass
class Order:
    user: str
    coin: str
    is_buy: bool
    price: Fraction
    size: Fraction
    left: Fraction
    oid: int
    cloid: str | None
    is_reduce_only: bool
    tif: str
    taken_ms: int
    status: str = "open"
    trigger: Fraction | None = None
    """Mark at which a stop becomes an immediate-or-cancel order."""


@dataclass
class ApprovedAgent:
    account: str
    name: str
    address: str
    until_ms: int


class ActionRefused(Exception):
    """Raised for an action that is not carried out."""


class HyperliquidServer:
    """State of the venue. Fields and methods are for tests; clients see it over HTTP only."""

    def __init__(self, *, is_mainnet: bool = False, nonces_kept: int = 100) -> None:
        self.is_mainnet = is_mainnet
        self.nonces_kept = nonces_kept
        self.clock: Callable[[], int] | None = None
        """The venue's time in milliseconds if it follows another clock; otherwise time stands still until a test moves it."""
        self._now_ms = START_MS
        self.skew_ms = 0
        self.coins = [
            Coin("BTC", 5, Fraction(60_000), (("0.0", 40), ("10000.0", 25), ("50000.0", 10)), 51),
            Coin("ETH", 4, Fraction(3_000), TESTNET_ETH, 52),
            Coin("DOGE", 0, Fraction("0.12345"), (("0.0", 10),), 10),
        ]
        self.wallets: dict[str, Wallet] = {}
        self.agents: list[ApprovedAgent] = []
        self.nonces: dict[str, list[int]] = {}
        self.orders: list[Order] = []
        self.fills: list[dict[str, Any]] = []
        self.faults: list[str] = []
        """Faults of the next posted actions, one each: `lost` (carried out, no answer), `late` (carried out, HTTP 502), `slow` (carried
        out, answered after 8 s), `garbled` (carried out, answer is not JSON), `dropped` (not carried out, no answer), `down` (not carried
        out, HTTP 500).
        """
        self.read_faults: dict[str, int] = {}
        """Status of answers to reads by type, like a server that is down (503) or limits requests (429); `*` for all types."""
        self.lie: dict[str, Fraction] = {}
        """Factors for figures of the account: `accountValue`, `totalRawUsd`, `crossMaintenanceMarginUsed`, `positionValue`."""
        self.hides_orders = 0
        """Number of further order queries answered with "unknown", like an API server behind its chain."""
        self.takes_stops = True
        self.states_opening_size = False
        """Whether the status of an open order has the rest that it had at its opening (hyperliquid-python-sdk, issue 141)."""
        self.hides_fills = False
        """Lists no fills, although orders are filled."""
        self.refusal = ""
        """Reason for which every order is rejected, as after an upgrade of the venue's network."""
        self.weight_per_minute: int | None = None
        """Weight that the venue allows in a minute of its time; None: any. Requests above it get status 429."""
        self.weights: list[tuple[int, int]] = []
        """Time in milliseconds and weight of each request that was answered."""
        self.limited = 0
        """Number of requests above the allowed weight."""
        self.is_inexact = False
        """Write amounts of the account as floats leave them, with a tenth of a billionth too much."""
        self.transfers: list[dict[str, Any]] = []
        self.rates: list[dict[str, Any]] = []
        self.paid: list[dict[str, Any]] = []
        """Funding paid by `pay_funding`: the rate of each hour, and each wallet's payment."""
        self.signers: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        """All posted actions, in order."""
        self.lock = threading.RLock()
        self.url = ""

    @property
    def now_ms(self) -> int:
        return (self._now_ms if self.clock is None else self.clock()) + self.skew_ms

    @now_ms.setter
    def now_ms(self, value: int) -> None:
        self._now_ms = value

    def admits(self, path: str, body: dict[str, Any]) -> bool:
        """Return whether the allowed weight covers a request, and count it."""
        if path == "/exchange":
            weight = 1 + len(body["action"].get("orders", ())) // 40
        else:
            weight = {"l2Book": 2, "clearinghouseState": 2, "orderStatus": 2, "userRole": 60}.get(body["type"], 20)
        now_ms = self.now_ms  # once: the clock may be that of a chain, which is asked over HTTP
        spent = sum(weight for at_ms, weight in self.weights if at_ms > now_ms - 60_000)
        if self.weight_per_minute is not None and spent + weight > self.weight_per_minute:
            self.limited += 1
            return False
        self.weights.append((now_ms, weight))
        return True

    # --- Actions of tests.

    def coin(self, name: str) -> Coin:
        return next(coin for coin in self.coins if coin.name == name)

    def wallet(self, address: str) -> Wallet:
        return self.wallets.setdefault(address.lower(), Wallet())

    def fund(self, address: str, usd: int) -> None:
        self.wallet(address).usd += usd
        self.transfers.append({"user": address.lower(), "time": self.now_ms, "delta": {"type": "deposit", "usdc": text(Fraction(usd))}})

    def seed(self, name: str, sizes: tuple[str, ...] = ("10", "10", "10"), step: str = "0.001") -> None:
        """Place bids and asks of these sizes around the mark, each one `step` further away."""
        coin = self.coin(name)
        for number, size in enumerate(sizes, start=1):
            for is_buy in (True, False):
                away = coin.mark * Fraction(step) * number
                price = coin.mark - away if is_buy else coin.mark + away
                price = Fraction(f"{float(price):.5g}") if coin.mark < 100_000 else Fraction(round(price))
                self.place(HOUSE, name, is_buy, price, Fraction(size), "Gtc")

    def move(self, name: str, share: str) -> None:
        """Move mark and index, in whole ticks, and remove the old book."""
        coin = self.coin(name)
        coin.mark = Fraction(f"{float(coin.mark * (1 + Fraction(share))):.5g}")
        for order in self.orders:
            if order.user == HOUSE and order.coin == name and order.status == "open":
                order.status = "canceled"

    def trade_through(self, name: str, size: str) -> None:
        """Have the house trade this size against the only order of a wallet that rests in the market."""
        [order] = [
            order for order in self.orders if (order.coin, order.status, order.trigger) == (name, "open", None) and order.user != HOUSE
        ]
        house = Order(
            HOUSE, name, not order.is_buy, order.price, Fraction(size), Fraction(size), len(self.orders) + 1, None, False, "Gtc", 0
        )
        self.orders.append(house)
        self.fill(house, order.price, Fraction(size), is_taker=True)
        self.fill(order, order.price, Fraction(size), is_taker=False)

    def pay_funding(self, name: str) -> Fraction:
        """Pay an hour of funding on every position: longs pay if the rate is positive. Return the sum of all payments."""
        coin = self.coin(name)
        self.rates.append({"coin": name, "fundingRate": text(coin.funding, 10), "premium": "0.0", "time": self.now_ms})
        total = Fraction(0)
        for user, wallet in self.wallets.items():
            if name in wallet.positions and user != HOUSE:
                size = wallet.positions[name].size
                paid = Fraction(text(size * (coin.index or coin.mark) * coin.funding))
                wallet.usd -= paid
                delta = {"type": "funding", "coin": name, "usdc": text(-paid), "szi": text(size), "fundingRate": text(coin.funding, 10)}
                self.paid.append({"user": user, "time": self.now_ms, "hash": "0x" + "0" * 64, "delta": delta})
                total += paid
        return total

    def prune(self, address: str) -> None:
        """Forget an agent with its nonces, as the venue may after its expiry."""
        self.agents = [agent for agent in self.agents if agent.address != address.lower()]
        self.nonces.pop(address.lower(), None)

    def replay(self, body: dict[str, Any]) -> Any:
        """Post a body again, as a stranger could, and return the answer."""
        with self.lock:
            return self.exchange(json.loads(json.dumps(body)))

    # --- /exchange.

    def exchange(self, body: dict[str, Any]) -> Any:
        action = body["action"]
        nonce = body["nonce"]
        try:
            signer = self.signer_of(body)
            self.signers.append(signer)
            account = signer if action["type"] in USER_SIGNED else self.account_of(signer)
            expires = body.get("expiresAfter")
            if expires is not None and expires < self.now_ms:
                raise ActionRefused(f"Action expired: {expires} is before {self.now_ms}")
            self.use_nonce(signer, nonce)
            if action["type"] == "approveAgent":
                self.approve(account, action)
                return {"status": "ok", "response": {"type": "default"}}
            if action["type"] == "order":
                data = [self.order(account, wire) for wire in action["orders"]]
            elif action["type"] == "cancelByCloid":
                data = [self.cancel(account, cancel["cloid"]) for cancel in action["cancels"]]
            else:
                raise ActionRefused(f"Unknown action {action['type']}")
        except ActionRefused as turned:
            return {"status": "err", "response": str(turned)}
        return {"status": "ok", "response": {"type": action["type"], "data": {"statuses": data}}}

    def signer_of(self, body: dict[str, Any]) -> str:
        action = body["action"]
        signature = body["signature"]
        if action["type"] in USER_SIGNED:
            types, primary = USER_SIGNED[action["type"]]
            if action["nonce"] != body["nonce"] or action["hyperliquidChain"] != ("Mainnet" if self.is_mainnet else "Testnet"):
                raise ActionRefused("Invalid chain or nonce of a user signed action")
            signed = {"agentName": "", **action}
            signer = signing.recover_user_from_user_signed_action(signed, signature, types, primary, self.is_mainnet)
        else:
            signer = signing.recover_agent_or_user_from_l1_action(
                action, signature, body.get("vaultAddress"), body["nonce"], body.get("expiresAfter"), self.is_mainnet
            )
        return str(signer).lower()

    def account_of(self, signer: str) -> str:
        """Return the account that a signer trades for."""
        if signer in self.wallets:
            return signer
        for agent in self.agents:
            if agent.address == signer and agent.until_ms > self.now_ms:
                return agent.account
        raise ActionRefused(f"User or API Wallet {signer} does not exist.")

    def use_nonce(self, signer: str, nonce: int) -> None:
        if not self.now_ms - 2 * DAY_MS < nonce < self.now_ms + DAY_MS:
            raise ActionRefused(f"Invalid nonce: {nonce} is too far from {self.now_ms}")
        used = self.nonces.setdefault(signer, [])
        if nonce in used or (len(used) >= self.nonces_kept and nonce <= min(used)):
            raise ActionRefused(f"Invalid nonce: duplicate nonce {nonce}")
        used.append(nonce)
        self.nonces[signer] = sorted(used)[-self.nonces_kept :]

    def approve(self, account: str, action: dict[str, Any]) -> None:
        if account not in self.wallets:
            raise ActionRefused("Must deposit before performing actions.")
        name, _, until = action.get("agentName", "").partition(" valid_until ")
        if len(name) > 16:
            raise ActionRefused("Invalid agent name")
        until_ms = int(until) if until else self.now_ms + 90 * DAY_MS
        if not self.now_ms < until_ms <= self.now_ms + 180 * DAY_MS:
            raise ActionRefused("Invalid agent expiry")
        self.agents = [agent for agent in self.agents if (agent.account, agent.name) != (account, name)]
        self.agents.append(ApprovedAgent(account, name, action["agentAddress"].lower(), until_ms))

    def cancel(self, account: str, cloid: str) -> Any:
        for order in self.orders:
            if order.user == account and order.cloid == cloid and order.status == "open":
                order.status = "canceled"
                return "success"
        return {"error": "Order was never placed, already canceled, or filled."}

    def order(self, account: str, wire: dict[str, Any]) -> Any:
        coin = self.coins[wire["a"]]
        price = Fraction(wire["p"])
        size = Fraction(wire["s"])
        if (size * 10**coin.size_decimals).denominator != 1 or size <= 0:
            return {"error": "Order has invalid size."}
        if "trigger" in wire["t"]:
            return self.rest(account, coin, wire, price, size)
        return self.place(account, coin.name, wire["b"], price, size, wire["t"]["limit"]["tif"], wire["r"], wire.get("c"))

    def rest(self, account: str, coin: Coin, wire: dict[str, Any], price: Fraction, size: Fraction) -> Any:
        """Accept a stop: a reduce-only market order that waits for its trigger."""
        how = wire["t"]["trigger"]
        trigger = Fraction(how["triggerPx"])
        order = Order(account, coin.name, wire["b"], price, size, size, len(self.orders) + 1, wire["c"], wire["r"], "", self.now_ms)
        order.trigger = trigger
        is_wrong_trigger = trigger <= coin.mark if wire["b"] else trigger >= coin.mark
        is_stop = self.takes_stops and how["isMarket"] is True and how["tpsl"] == "sl" and not is_wrong_trigger
        why = self.reject(
            order,
            (not coin.tick_ok(price) or not coin.tick_ok(trigger), OFF_TICK, "tickRejected"),
            (not is_stop, "Invalid TP/SL price.", "badTriggerPxRejected"),
            (self.reducible(order) == 0, INCREASES, "reduceOnlyRejected"),
        )
        return {"error": why} if why else {"resting": {"oid": order.oid, "cloid": order.cloid}}

    def reject(self, order: Order, *rules: tuple[bool, str, str]) -> str:
        """Keep an order with the status of the first rule that it breaks; return why, or ""."""
        why, order.status = next(((why, status) for is_broken, why, status in rules if is_broken), ("", order.status))
        self.orders.append(order)
        return why

    def fire(self, name: str) -> list[Order]:
        """Execute the stops whose trigger the mark has reached, against the book. Return them."""
        mark = self.coin(name).mark
        fired = []
        for stop in [order for order in self.orders if order.trigger is not None and (order.coin, order.status) == (name, "open")]:
            assert stop.trigger is not None
            if (mark >= stop.trigger) if stop.is_buy else (mark <= stop.trigger):
                for other in self.matches(stop):
                    if (part := min(stop.left, other.left, self.reducible(stop))) > 0:
                        self.fill(stop, other.price, part, is_taker=True)
                        self.fill(other, other.price, part, is_taker=False)
                stop.status = "filled" if stop.left == 0 else "canceled"
                fired.append(stop)
        return fired

    def place(
        self, user: str, name: str, is_buy: bool, price: Fraction, size: Fraction, tif: str, reduce: bool = False, cloid: str | None = None
    ) -> Any:
        """Accept an order by the documented rules, and return the venue's answer."""
        coin = self.coin(name)
        order = Order(user, name, is_buy, price, size, size, len(self.orders) + 1, cloid, reduce, tif, self.now_ms)
        position_size = self.wallet(user).positions.get(name, ServerPosition()).size
        sign = 1 if is_buy else -1
        matches = self.matches(order)
        is_ours = user != HOUSE
        best = text(matches[0].price) if matches else ""
        is_small = price * size < 10 and not (reduce and position_size == -sign * size)
        why = self.reject(
            order,
            (bool(self.refusal) and is_ours, self.refusal, "rejected"),
            (coin.is_delisted, "Asset is delisted.", "delistedRejected"),
            (not coin.tick_ok(price), OFF_TICK, "tickRejected"),
            (is_small, "Order must have minimum value of $10.", "minTradeNtlRejected"),
            (reduce and position_size * sign >= 0, INCREASES, "reduceOnlyRejected"),
            (tif == "Alo" and best != "", f"Post only order would have immediately matched, bbo was {best}.", "badAloPxRejected"),
            (tif == "Ioc" and not best, "Order could not immediately match against any resting orders.", "iocCancelRejected"),
            (
                is_ours and not reduce and not self.has_margin(self.wallet(user), coin, sign * size, price),
                "Insufficient margin to place order.", "perpMarginRejected",
            ),
        )  # fmt: skip
        if why:
            return {"error": why}
        start = len(self.fills)
        for other in matches:
            part = min(order.left, other.left, *(self.reducible(fill) for fill in (order, other) if fill.is_reduce_only))
            if part > 0:
                self.fill(order, other.price, part, is_taker=True)
                self.fill(other, other.price, part, is_taker=False)
        mine = [fill for fill in self.fills[start:] if fill["oid"] == order.oid]
        traded = order.size - order.left
        if order.left == 0:
            order.status = "filled"
        elif tif == "Ioc":
            order.status = "canceled"
        elif reduce and self.reducible(order) == 0:
            order.status = "reduceOnlyCanceled"
        if traded == 0:
            return {"resting": {"oid": order.oid, **({"cloid": cloid} if cloid else {})}}
        average = sum((Fraction(fill["px"]) * Fraction(fill["sz"]) for fill in mine), Fraction(0)) / traded
        return {"filled": {"totalSz": text(traded), "avgPx": text(average), "oid": order.oid}}

    def reducible(self, order: Order) -> Fraction:
        """Return the largest size of its owner's position that an order can close."""
        position_size = self.wallet(order.user).positions.get(order.coin, ServerPosition()).size
        return max(Fraction(0), -position_size if order.is_buy else position_size)

    def matches(self, order: Order) -> list[Order]:
        """Return the resting orders that this one crosses: best price first, then the oldest."""
        sign = 1 if order.is_buy else -1
        crossed = [
            other
            for other in self.orders
            if other.coin == order.coin and other.status == "open" and other.trigger is None
            and other.is_buy is not order.is_buy and other.user != order.user
            and sign * (order.price - other.price) >= 0
        ]  # fmt: skip
        return sorted(crossed, key=lambda other: (sign * other.price, other.oid))

    def has_margin(self, wallet: Wallet, coin: Coin, change: Fraction, price: Fraction) -> bool:
        """Return whether the account value covers the initial margin of all positions after the order."""
        value = wallet.usd + sum(
            (coin_position.size * self.coin(name).mark for name, coin_position in wallet.positions.items()), Fraction(0)
        )
        needed = Fraction(0)
        for name in {*wallet.positions, coin.name}:
            size = wallet.positions.get(name, ServerPosition()).size + (change if name == coin.name else 0)
            at = self.coin(name).mark
            needed += self.coin(name).margin(abs(size) * at, wallet.leverages.get(name, 20))
        slip = abs(change) * max(Fraction(0), (price - coin.mark) if change > 0 else (coin.mark - price))
        return value - slip >= needed

    def fill(self, order: Order, price: Fraction, part: Fraction, *, is_taker: bool) -> None:
        wallet = self.wallet(order.user)
        change = part if order.is_buy else -part
        position = wallet.positions.setdefault(order.coin, ServerPosition())
        closed = Fraction(0)
        if position.size * change < 0:
            part_closed = min(abs(change), abs(position.size)) * (1 if change > 0 else -1)
            closed = (position.cost / position.size - price) * part_closed
        if position.size * change >= 0:
            position.cost += change * price
        elif abs(change) <= abs(position.size):
            position.cost += position.cost / position.size * change
        else:
            position.cost = (position.size + change) * price
        position.size += change
        if position.size == 0:
            del wallet.positions[order.coin]
        fee = round(part * price * Fraction(45 if is_taker else 15, 100_000) * 10**6) / Fraction(10**6)
        wallet.usd -= change * price + fee
        order.left -= part
        if order.left == 0:
            order.status = "filled"
        self.fills.append(
            {
                "user": order.user, "coin": order.coin, "px": text(price), "sz": text(part), "side": "B" if order.is_buy else "A",
                "time": self.now_ms, "oid": order.oid, "cloid": order.cloid, "fee": text(fee), "closedPnl": text(closed),
                "feeToken": "USDC", "crossed": is_taker, "tid": len(self.fills) + 1, "hash": "0x" + keccak(text=str(len(self.fills))).hex(),
            }
        )  # fmt: skip

    # --- /info.

    def info(self, body: dict[str, Any]) -> Any:
        user = str(body.get("user", "")).lower()
        match body["type"]:
            case "metaAndAssetCtxs":
                return [self.meta(), [self.context(coin) for coin in self.coins]]
            case "meta":
                return self.meta()
            case "clearinghouseState":
                return self.state(user)
            case "userAbstraction":
                return self.wallets.get(user, Wallet()).mode
            case "l2Book":
                return {
                    "coin": body["coin"],
                    "time": self.now_ms,
                    "levels": [self.levels(body["coin"], is_buy) for is_buy in (True, False)],
                }
            case "userFees":
                return {"userCrossRate": "0.00045", "userAddRate": "0.00015"}
            case "activeAssetData":
                return {"user": user, "coin": body["coin"], "leverage": self.leverage(user, body["coin"])}
            case "extraAgents":
                live = [agent for agent in self.agents if agent.account == user and agent.name and agent.until_ms > self.now_ms]
                return [{"name": agent.name, "address": agent.address, "validUntil": agent.until_ms} for agent in live]
            case "userRole":
                master = [agent.account for agent in self.agents if agent.address == user]
                if master:
                    return {"role": "agent", "data": {"user": master[0]}}
                return {"role": "user" if user in self.wallets else "missing"}
            case "frontendOpenOrders":
                return [self.order_row(order) for order in self.orders if order.user == user and order.status == "open"]
            case "orderStatus":
                return self.order_status(user, body["oid"])
            case "userNonFundingLedgerUpdates" | "userFunding" as kind:
                rows = self.paid if kind == "userFunding" else self.transfers
                mine = [row for row in rows if row["user"] == user and row["time"] >= body["startTime"]]
                return [{key: value for key, value in row.items() if key != "user"} for row in mine[:500]]
            case "fundingHistory":
                return [row for row in self.rates if row["coin"] == body["coin"] and row["time"] >= body["startTime"]][:500]
            case "candleSnapshot":
                return self.candles(**body["req"])
            case "userFillsByTime":
                return [fill for fill in self.fills if not self.hides_fills and fill["user"] == user and fill["time"] >= body["startTime"]][
                    :2_000
                ]
        return None

    def candles(self, coin: str, interval: str, startTime: int, endTime: int) -> list[dict[str, Any]]:
        """Return candles of the whole hours of a span, all at the present mark."""
        assert interval == "1h"
        price = text(self.coin(coin).mark)
        opened = range(-(-startTime // HOUR_MS) * HOUR_MS, endTime + 1, HOUR_MS)
        return [
            {"t": at, "T": at + HOUR_MS - 1, "s": coin, "i": "1h", "o": price, "c": price, "h": price, "l": price, "v": "1", "n": 1}
            for at in opened
        ]

    def levels(self, name: str, is_buy: bool) -> list[dict[str, Any]]:
        """Return the resting orders of one side by price, best first, at most 20 prices."""
        sizes: dict[Fraction, list[Fraction]] = {}
        for order in self.orders:
            if (order.coin, order.is_buy, order.status, order.trigger) == (name, is_buy, "open", None):
                sizes.setdefault(order.price, []).append(order.left)
        best = sorted(sizes.items(), reverse=is_buy)[:20]
        return [
            {"px": text(price), "sz": text(sum(sizes_at_price, Fraction(0))), "n": len(sizes_at_price)} for price, sizes_at_price in best
        ]

    def meta(self) -> dict[str, Any]:
        universe = [
            {"name": coin.name, "szDecimals": coin.size_decimals, "maxLeverage": coin.tiers[0][1], "marginTableId": coin.table_id}
            | ({"isDelisted": True} if coin.is_delisted else {}) | ({"onlyIsolated": True} if coin.is_only_isolated else {})
            for coin in self.coins
        ]  # fmt: skip
        tables = [
            [coin.table_id, {"description": "", "marginTiers": [{"lowerBound": bound, "maxLeverage": most} for bound, most in coin.tiers]}]
            for coin in self.coins
            if coin.table_id >= 50
        ]
        return {"universe": universe, "marginTables": tables, "collateralToken": 0}

    def context(self, coin: Coin) -> dict[str, Any]:
        return {
            "funding": text(coin.funding, 10),
            "markPx": text(coin.mark),
            "oraclePx": text(coin.index or coin.mark),
            "midPx": text(self.middle(coin), 12),
        }

    def middle(self, coin: Coin) -> Fraction:
        """Return the middle of the book, the mark if a side is empty."""
        best = [self.levels(coin.name, is_buy)[:1] for is_buy in (True, False)]
        return sum((Fraction(levels[0]["px"]) for levels in best), Fraction(0)) / 2 if all(best) else coin.mark

    def leverage(self, user: str, coin: str) -> dict[str, Any]:
        wallet = self.wallets.get(user, Wallet())
        return {"type": "isolated" if coin in wallet.is_isolated else "cross", "value": wallet.leverages.get(coin, 20)}

    def state(self, user: str) -> dict[str, Any]:
        wallet = self.wallets.get(user, Wallet())
        amount = inexact if self.is_inexact else text

        def figure(name: str, value: Fraction) -> str:
            return amount(value * self.lie.get(name, 1))

        def row(coin: Coin, position: ServerPosition, leverage: dict[str, Any], margin: Fraction, *, stated: str) -> dict[str, Any]:
            fields = {
                "coin": coin.name, "szi": text(position.size), "entryPx": text(position.cost / position.size, 3),
                "positionValue": stated, "unrealizedPnl": amount(position.size * coin.mark - position.cost),
                "leverage": leverage, "marginUsed": amount(margin), "maxLeverage": coin.tiers[0][1],
            }  # fmt: skip
            return {"type": "oneWay", "position": fields}

        def summary(value: Fraction, gross: Fraction, usd: Fraction, margin: Fraction) -> dict[str, str]:
            return {
                "accountValue": figure("accountValue", value), "totalNtlPos": amount(gross),
                "totalRawUsd": figure("totalRawUsd", usd), "totalMarginUsed": amount(margin),
            }  # fmt: skip

        rows = []
        value = wallet.usd
        gross = initial = maintenance = Fraction(0)
        for name, position in wallet.positions.items():
            coin = self.coin(name)
            worth = abs(position.size) * coin.mark
            margin = coin.margin(worth, wallet.leverages.get(name, 20))
            gross += worth
            value += position.size * coin.mark
            initial += margin
            maintenance += coin.margin(worth, None)
            rows.append(row(coin, position, self.leverage(user, name), margin, stated=figure("positionValue", worth)))
        isolated_value = isolated_gross = isolated_usd = Fraction(0)
        for name, (position, margin) in wallet.isolated.items():
            coin = self.coin(name)
            usd = margin - position.cost
            worth = abs(position.size) * coin.mark
            isolated_gross += worth
            isolated_usd += usd
            isolated_value += usd + position.size * coin.mark
            rows.append(row(coin, position, {"type": "isolated", "value": 5, "rawUsd": amount(usd)}, margin, stated=amount(worth)))
        cash = value - initial if wallet.mode in POOLED else Fraction(0)
        value -= cash
        cross = (value, gross, wallet.usd - cash, initial)
        isolated = (isolated_value, isolated_gross, isolated_usd, isolated_value)
        return {
            "marginSummary": summary(*map(sum, zip(cross, isolated, strict=True))),
            "crossMarginSummary": summary(*cross),
            "crossMaintenanceMarginUsed": figure("crossMaintenanceMarginUsed", maintenance),
            "withdrawable": amount(max(Fraction(0), value - max(initial, gross / 10))),
            "assetPositions": rows,
            "time": self.now_ms,
        }

    def order_row(self, order: Order) -> dict[str, Any]:
        is_trigger = order.trigger is not None
        return {
            "coin": order.coin, "side": "B" if order.is_buy else "A", "limitPx": text(order.price), "sz": text(order.left),
            "oid": order.oid, "timestamp": order.taken_ms, "origSz": text(order.size), "reduceOnly": order.is_reduce_only,
            "orderType": "Stop Market" if is_trigger else "Limit", "tif": order.tif, "cloid": order.cloid, "triggerCondition": "N/A",
            "isTrigger": is_trigger, "triggerPx": text(order.trigger or Fraction(0)), "children": [], "isPositionTpsl": False,
        }  # fmt: skip

    def order_status(self, user: str, order_id: object) -> dict[str, Any]:
        if self.hides_orders:
            self.hides_orders -= 1
            return {"status": "unknownOid"}
        for order in reversed(self.orders):
            if order.user == user and order_id in (order.oid, order.cloid):
                order_row = self.order_row(order)
                if self.states_opening_size and order.status == "open":
                    order_row["sz"] = order_row["origSz"]
                return {"status": "order", "order": {"order": order_row, "status": order.status, "statusTimestamp": order.taken_ms}}
        return {"status": "unknownOid"}


@contextmanager
def hyperliquid(*, is_mainnet: bool = False, nonces_kept: int = 100) -> Iterator[HyperliquidServer]:
    """Run a venue with a seeded book."""
    venue = HyperliquidServer(is_mainnet=is_mainnet, nonces_kept=nonces_kept)

    class Handler(LoopbackHandler):
        def do_POST(self) -> None:
            body = json.loads(self.body())
            with venue.lock:
                if not venue.admits(self.path, body):
                    return self.reply(429)
                if self.path == "/info":
                    if status := venue.read_faults.get(body["type"], venue.read_faults.get("*", 0)):
                        return self.reply(status)
                    return self.reply(200, json.dumps(venue.info(body)).encode())
                venue.bodies.append(body)
                fault = venue.faults.pop(0) if venue.faults else ""
                if fault == "down":
                    return self.reply(500)
                answer = None if fault == "dropped" else venue.exchange(body)
            if fault in ("lost", "dropped"):
                self.close_connection = True
                return self.connection.close()
            if fault == "slow":
                time.sleep(8)
            return self.reply(502 if fault == "late" else 200, b"<html>" if fault == "garbled" else json.dumps(answer).encode())

    with listening(Handler) as port:
        venue.url = f"http://127.0.0.1:{port}"
        for coin in venue.coins:
            venue.seed(coin.name, ("100000",) * 3 if coin.name == "DOGE" else ("10",) * 3)
        yield venue


def key_of(number: int) -> Any:
    """Return a key for tests, by number."""
    return Account.from_key(keccak(text=f"hyperliquid test key {number}"))
