"""Open the agent over an embedded chain with a config of its own, and measure its effect on the wallet independently."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomlkit

from agent import app as api
from agent import wiring
from agent.app.agent import Agent, open_agent
from agent.app.start.setup import NewConfig, write_new_config
from agent.app.start.trust import pin_all
from agent.chain.rpc import Transport
from agent.config.build import contract_names
from agent.config.liquidity import lp_venues
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.config.schema import Config
from agent.config.tables.futures import HyperliquidTable
from agent.config.tables.limits import CEILINGS
from agent.execution.settlement import realised_legs
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind, IntentState, Leg, Plan, Receipt, SkippedItem, Verdict
from agent.ports import Clock
from agent.units import BPS, floor_int, parse_share_with_unit_bps
from tests.support.bands import with_bands
from tests.support.constants import WALLET
from tests.support.worlds import price_now

# --- Configs and profiles in files, for tests of import and export.


OTHER = "0x7D1AfA7B718fb893dB30A3aBc0Cfc608AaCfeBB0"
RPC = [("NOT_SET_A", "one"), ("NOT_SET_B", "two")]
ADDRESSES = {token.symbol: token.address for token in ETHEREUM_PRESET.tokens}


@cache
def _made(template: str | None, targets: str, numeraire: str, comments: bool) -> str:
    if not comments:
        return tomlkit.dumps(tomllib.loads(_made(template, targets, numeraire, True)))
    with TemporaryDirectory() as folder:
        pairs = [] if template else [(pair.split("=")[0], pair.split("=")[1]) for pair in targets.split()]
        write_new_config(
            path := Path(folder) / "trimtab.toml",
            NewConfig(
                "ethereum", WALLET, pairs, numeraire, RPC, template=template or "", numeraire_price=None if numeraire == "USDC" else "3000"
            ),
        )
        return path.read_text() if template else with_bands(path.read_text())


def config(
    folder: Path,
    name: str = "mine",
    *,
    template: str | None = None,
    targets: str = "WETH=50% USDC=50%",
    numeraire: str = "USDC",
    comments: bool = True,
) -> Path:
    """Write a config as `trimtab init` does, with its own store name, and with bands if without template; without comments it takes a
    third of the time to read and edit.
    """
    path = folder / f"{name}.toml"
    path.write_text(_made(template, targets, numeraire, comments).replace("sqlite:///trimtab.db", f"sqlite:///{name}.db"))
    path.chmod(0o600)
    return path


def profile(folder: Path, **changes: Any) -> Path:
    """Write a small profile with changed tables; None removes a table."""
    document: dict[str, Any] = {
        "profile": {"format": 1, "chain_id": 1, "numeraire": "USDC"},
        "assets": [{"symbol": "WETH", "target": "60%"}, {"symbol": "USDC", "target": "40%"}],
        "policy": {"trigger": {"kind": "threshold", "absolute": "5%"}, "destination": "target", "cooldown": "2h"},
        "limits": {},
    } | changes
    path = folder / "theirs.profile"
    path.write_text(tomlkit.dumps({name: table for name, table in document.items() if table is not None}))
    return path


def taken_over(path: Path, origin: Path | str, *, sell_others: bool = False, **source: Any) -> dict[str, Any]:
    return api.import_profile(path, api.ProfileSource(origin, **source), lambda *_: True, sell_others=sell_others)


USD = 10**6
"""Base units of the numeraire, USDC, in one dollar."""
FIVE = {"WETH": "30%", "WBTC": "25%", "USDC": "20%", "USDT": "15%", "LINK": "10%"}
ROOMY = {
    "limits.turnover": "off",
    "limits.daily_turnover": "off",
    "policy.cooldown": "0s",
}
"""Changes after which only the market's own bounds apply."""
Changes = Mapping[str, object]


def agent_config(chain: LocalChain, folder: Path, changes: Changes | None = None, targets: Mapping[str, str] | None = None) -> LoadedConfig:
    """Write and load trimtab.toml of the chain, with bands; `changes` are values by dotted key ("portfolio.assets.0.feed"), None removes
    a key, "LIST.+" adds entries.
    """
    document = tomlkit.parse(with_bands(chain.config_text(targets=targets)))
    for key, value in ({"limits.first_purchase": "off"} | dict(changes or {})).items():
        *tables, name = key.split(".")
        table: Any = document
        for part in tables:
            table = table[_index(table, part)]
        if name == "+":
            for entry in value:  # type: ignore[attr-defined]  # tables to add to a list
                table.append(tomlkit.item(entry))
        elif value is None:
            del table[_index(table, name)]
        else:
            table[name] = value
    if names := beyond(limits := document["limits"]):  # type: ignore[arg-type]  # tomlkit's tables are typed as items
        limits["i_accept"] = names  # type: ignore[index]  # the same
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trimtab.toml"
    path.write_text(tomlkit.dumps(document))
    return load_config(path)


def _index(table: Any, part: str) -> int | str:
    """Return the key of a table, or the index in a list: a number, or the kind of its entry."""
    if not isinstance(table, list):
        return part
    return int(part) if part.isdigit() else [entry["kind"] for entry in table].index(part)


def beyond(limits: Mapping[str, object]) -> list[str]:
    """Return the limits of a test that exceed their ceilings, as names for `limits.i_accept`."""
    written = {key: limits[key] for key in CEILINGS if key in limits}
    return [key for key, value in written.items() if value == "off" or parse_share_with_unit_bps(value, key) > CEILINGS[key]]


def trusted_config(
    chain: LocalChain, folder: Path, changes: Changes | None = None, targets: Mapping[str, str] | None = None, vouched: bool = True
) -> LoadedConfig:
    """Load a config as `agent_config` does, with all contracts pinned. With `vouched`, the wallet's set-up transactions do not count as a
    loss.
    """
    loaded = agent_config(chain, folder, changes, targets)
    pin_key = _pinned_by(chain, loaded.config)
    pins = _PINS.get(pin_key or "")
    is_new = not wiring.store_file(loaded).exists()
    if pins is None:
        pin_all(loaded, [chain.transport])
    with wiring.open_store_offline(loaded) as (store, _):
        if pins is not None:
            store.trust.pin(*pins)
            if isinstance(table := loaded.config.futures, HyperliquidTable):
                store.trust.pin_markets(table.network, wiring.listed_market_numbers(table))
            for address in loaded.config.wallet.payout_addresses:
                store.requests.confirm_payout_address(address, pins[1])
        elif pin_key is not None and is_new:
            behind = [(token, *implementation) for token, implementation in store.trust.implementations().items()]
            _PINS[pin_key] = store.trust.pins(), int(time.time()), behind
        if vouched:
            store.balances.record_prior_day((), purse(chain).nonce)
    return loaded


_PINS: dict[str, tuple[dict[str, str], int, list[tuple[str, str, str]]]] = {}
"""Pins of a node whose contracts are those of the deployed world: code hashes, time, implementations."""


def _pinned_by(chain: LocalChain, config: Config) -> str | None:
    """Return a key of the contracts to pin and their node; None if a test may have changed them."""
    names = {spec.symbol for spec in chain.world.tokens}, {spec.name for spec in chain.world.pools}
    venue = config.futures is not None and config.futures.contract_name_by_address
    if names != (set(chain.tokens), set(chain.address_by_pool)) or lp_venues(config, ()) or venue:
        return None
    listed = {token.address: bytes(chain.w3.eth.get_code(token.address)).hex() for token in config.portfolio.listed_tokens}
    return repr((chain.chain_id, chain.url, chain.addresses, chain.address_by_pool, listed, config.venues, contract_names(config)))


@contextmanager
def agent_on(
    chain: LocalChain,
    folder: Path,
    changes: Changes | None = None,
    targets: Mapping[str, str] | None = None,
    transports: Sequence[Transport] | None = None,
    vouched: bool = True,
) -> Iterator[Agent]:
    """Open an agent with a new store and all contracts pinned."""
    with reopened_agent(chain, trusted_config(chain, folder, changes, targets, vouched), transports) as agent:
        yield agent


@contextmanager
def reopened_agent(
    chain: LocalChain, loaded: LoadedConfig, transports: Sequence[Transport] | None = None, clock: Clock | None = None
) -> Iterator[Agent]:
    """Open an agent over the store of an earlier one."""
    with open_agent(loaded, transports=transports or [chain.transport], clock=clock or chain.clock) as agent:
        yield agent


def yes(_: object) -> bool:
    """Confirm as the owner."""
    return True


def require_rebalance(agent: Agent, kind: OutcomeKind = OutcomeKind.DONE, progress: Callable[[str], None] = lambda _: None) -> StepOutcome:
    """Rebalance with the owner's yes, and assert that it ends so."""
    outcome = agent.rebalance(send=True, confirm=yes, progress=progress)
    assert outcome.kind is kind, outcome.reason
    return outcome


def meanwhile(happens: Callable[[], object]) -> Callable[[StepOutcome], bool]:
    """Return a confirmation before which something happens."""

    def confirm(_: StepOutcome) -> bool:
        happens()
        return True

    return confirm


def at_send(number: int, happens: Callable[[], object]) -> Callable[[str], None]:
    """Return a progress listener that calls `happens` after all checks of the `number`-th transaction, just before it is sent."""
    sends = 0

    def progress(event: str) -> None:
        nonlocal sends
        sends += event == "before:send"
        if event == "before:send" and sends == number:
            happens()

    return progress


def when_approved(happens: Callable[[], object]) -> Callable[[str], None]:
    """Return a progress listener that calls `happens` once the first transaction, an approval, is final."""
    done = False

    def progress(event: str) -> None:
        nonlocal done
        if event == "after:final" and not done:
            done = True
            happens()

    return progress


def allow(chain: LocalChain, *symbols: str, raw: int = 2**255) -> None:
    """Approve the router for these tokens, as if before the agent's first run."""
    for symbol in symbols:
        chain.send(chain.token_contract(symbol).functions.approve(chain.addresses.swap_router_02, raw), chain.wallet.address, gas=100_000)


def fund(chain: LocalChain, usd: Mapping[str, int | Fraction]) -> None:
    """Set the wallet's balance of each token to this value in dollars at present prices, and of all others to zero."""
    worth = {symbol: Fraction(usd.get(symbol, 0)) / chain.deployed_world.prices_usd[symbol] for symbol in chain.tokens}
    chain.set_balances({symbol: floor_int(coins * 10 ** chain.tokens[symbol].decimals) for symbol, coins in worth.items()})


def explain_balances(agent: Agent) -> None:
    """Confirm every balance change as the owner's."""
    api.list_transfers(agent)
    agent.context.store.balances.classify(None, None, agent.context.clock.now_s())


@dataclass(frozen=True)
class WalletBalances:
    """Balances of the wallet: base units by symbol, wei of native coin; and its next nonce."""

    raw: dict[str, int]
    native_wei: int
    nonce: int


def purse(chain: LocalChain) -> WalletBalances:
    """Read the wallet's balances from contracts and node, not by the agent's reader."""
    at = [chain.wallet.address, "latest"]
    native, nonce = chain.node.ask([("eth_getBalance", at), ("eth_getTransactionCount", at)])
    return WalletBalances(chain.balances(), int(native, 16), int(nonce, 16))


def worth(chain: LocalChain, balances: WalletBalances, prices_usd: Mapping[str, Fraction]) -> Fraction:
    """Return the value of all tokens and native coin at these prices, in dollars."""
    tokens = sum((raw * prices_usd[symbol] / 10 ** chain.tokens[symbol].decimals for symbol, raw in balances.raw.items()), Fraction(0))
    return tokens + balances.native_wei * prices_usd["WETH"] / 10**18


def loss_usd(chain: LocalChain, before: WalletBalances, prices_usd: Mapping[str, Fraction], gas: bool = True) -> Fraction:
    """Return the wallet's loss since `before` in dollars, at one set of prices; `gas` includes gas."""
    now = purse(chain)
    if not gas:
        now = replace(now, native_wei=before.native_wei)
    return worth(chain, before, prices_usd) - worth(chain, now, prices_usd)


def weights(chain: LocalChain, targets: Mapping[str, str], more_usd: Mapping[str, Fraction] | None = None) -> dict[str, Fraction]:
    """Return the weights of the target tokens in bps, from balances, world prices and `more_usd` held elsewhere."""
    values = {s: chain.balance(s) * chain.deployed_world.prices_usd[s] / 10 ** chain.tokens[s].decimals for s in targets}
    values |= {s: values[s] + usd for s, usd in (more_usd or {}).items()}
    total = sum(values.values(), Fraction(0))
    return {symbol: value / total * BPS for symbol, value in values.items()}


def off_target(chain: LocalChain, targets: Mapping[str, str], more_usd: Mapping[str, Fraction] | None = None) -> dict[str, Fraction]:
    """Return the distance of each weight from its target in bps."""
    return {s: abs(bps - Fraction(targets[s].rstrip("%")) * 100) for s, bps in weights(chain, targets, more_usd).items()}


def swap_of(outcome: StepOutcome) -> tuple[Plan, Intent, Receipt]:
    """Return plan, swap and receipt of a completed step with exactly one swap transaction besides approvals."""
    assert outcome.kind is OutcomeKind.DONE, outcome.reason
    assert outcome.plan is not None
    (swap,) = [intent for intent in outcome.transactions if intent.kind is IntentKind.SWAP]
    assert {intent.kind for intent in outcome.transactions} <= {IntentKind.APPROVE, IntentKind.SWAP}
    assert {intent.state for intent in outcome.transactions} == {IntentState.FINAL}
    assert swap.receipt is not None
    return outcome.plan, swap, swap.receipt


def require_exact(chain: LocalChain, outcome: StepOutcome, before: WalletBalances) -> None:
    """Assert that one swap transaction did exactly what the plan says, to the wei: legs, the wallet's events, balances; and that all gas
    is known.
    """
    plan, _, receipt = swap_of(outcome)
    assert receipt.status == 1
    for done in realised_legs(plan, receipt):
        assert (done.in_raw, done.out_raw) == (done.leg.amount_in_raw, done.leg.amount_out_raw)
    moved = {token: raw for token, raw in plan.wallet_changes().items() if raw}
    assert {token: raw for token, raw in receipt.net_transfers(chain.wallet.address).items() if raw} == moved
    after = purse(chain)
    raw_by_token = {chain.tokens[symbol].address: raw for symbol, raw in after.raw.items()}
    assert all(raw_by_token[token] == raw for token, raw in plan.holdings_after)
    untouched = set(raw_by_token) - {token for token, _ in plan.holdings_after}
    assert all(chain.tokens[s].address not in untouched or raw == before.raw[s] for s, raw in after.raw.items())
    assert after.nonce == before.nonce + len(outcome.transactions)
    paid = sum(intent.receipt.gas_cost_wei for intent in outcome.transactions if intent.receipt is not None)
    assert before.native_wei - after.native_wei == paid
    router = chain.addresses.swap_router_02
    assert all(chain.balance(symbol, router) == 0 for symbol in chain.tokens), "something stayed in the router"


def require_exact_rebalance(chain: LocalChain, agent: Agent, progress: Callable[[str], None] = lambda _: None) -> StepOutcome:
    """Rebalance with the owner's yes, and assert that it did exactly what its plan says."""
    before = purse(chain)
    outcome = require_rebalance(agent, progress=progress)
    require_exact(chain, outcome, before)
    return outcome


def allowances(chain: LocalChain) -> dict[str, int]:
    """Return the router's allowance of each token of the wallet."""
    at = chain.wallet.address, chain.addresses.swap_router_02
    return {symbol: int(chain.token_contract(symbol).functions.allowance(*at).call()) for symbol in chain.tokens}


def pool_prices(chain: LocalChain) -> dict[str, Fraction]:
    """Return the marginal price of every pool, from the contracts."""
    return {name: price_now(chain, name) for name in chain.address_by_pool}


def failed_verdicts(outcome: StepOutcome) -> list[Verdict]:
    """Return the verdicts that refuse."""
    assert outcome.plan is not None, outcome.reason
    return [verdict for verdict in outcome.plan.verdicts if not verdict.passed]


def legs_of(outcome: StepOutcome) -> tuple[Leg, ...]:
    """Return the legs of the plan."""
    assert outcome.plan is not None, outcome.reason
    return outcome.plan.legs


def skipped_text(skipped: Sequence[SkippedItem]) -> str:
    """Return all skipped items of a plan as one text."""
    return "; ".join(f"{item.subject}: {item.why}" for item in skipped)
