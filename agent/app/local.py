"""Local chains: a served anvil with the contracts deployed and a config, and the world of the
demo.
"""

from __future__ import annotations

import csv
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent import wiring
from agent.app import service
from agent.app.agent import Agent, open_agent
from agent.app.controls.runner import ControlRunner
from agent.app.documents.status import ORDINARY_DAY_INDEX
from agent.app.paper import always_confirm
from agent.app.start.past_results import SMALL_MONEY_USD, small_money_year_text
from agent.app.start.trust import pin_all
from agent.artifacts import PERPS_MANIFEST, anvil_binary, npm_root
from agent.config.load import load_config
from agent.config.networks import BASE
from agent.config.writing.portfolio_templates import (
    PORTFOLIO_TEMPLATES,
    SMALL_TEMPLATE,
    apply_template,
)
from agent.config.writing.template import network_limits, with_safe
from agent.errors import ConfigError, TrimtabError
from agent.files import PAUSE_ENDING, replace_file
from agent.layers.futures.state import margin_account
from agent.localchain import (
    DEFAULT_WORLD,
    LocalChain,
    market,
    op_stack,
    open_anvil,
    open_eth_tester,
    safe,
)
from agent.localchain.config import CONFIG_MARKER
from agent.localchain.market import serve
from agent.localchain.nodes import require_free_port
from agent.localchain.perpetuals import LocalPerps, PerpSpec, futures_config
from agent.localchain.world import LiquidityRange, LocalWorld, V2Spec, V3Spec
from agent.margin import account as margin
from agent.margin.account import WAD
from agent.model.rollups import LOCAL_OP_STACK_ID
from agent.units import DAY_S, floor_int, value_text

if TYPE_CHECKING:
    from agent.app.documents.owner import LocalChainDocument, UnreducedPositionsDocument
    from agent.app.service import StoppableClock
    from agent.execution.step_context import StepOutcome
    from agent.model import MarginAccount

START_HOLDING_FACTORS = {"WETH": Fraction(7, 5), "USDC": Fraction(1, 2)}
"""Initial holdings of the served chain's wallet relative to its targets."""
COOLDOWN = "10s"
"""Cooldown in a served chain's config, so that the agent reacts to market moves at once."""


def serve_localchain(
    port: int,
    config_path: Path | None,
    report: Callable[[LocalChainDocument], None],
    *,
    futures: bool = False,
    on_base: bool = False,
    is_safe: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM; with `futures` also Perpetual Protocol v2. `on_base` serves
    the stand-in of Base instead, with 460 dollars. With `is_safe` a Safe has the portfolio as
    well, and its config is written instead.

    `report` is called once everything is ready and the config's contracts are pinned in its store.
    Raises ConfigError if the port is in use, if an existing config or store was not written by a
    local chain, or if the chain of an existing config still runs on another port.
    """
    if config_path is not None:
        require_local_files(config_path)
        _require_stopped(config_path, port)

    def on_ready(chain: LocalChain) -> None:
        if on_base:
            fund(chain, SMALL_MONEY_START_USD)
            config_text = base_config_text(chain)
        else:
            config_text = chain.config_text()
        unbalance(chain)
        wallet = chain.wallet.address
        if is_safe:
            wallet = safe.open_funded_safe(chain)
            config_text = with_safe(config_text.replace(chain.wallet.address, wallet, 1))
        if config_path is not None:
            publish_config(chain, config_path, config_text)
        owner_indexes = safe.OWNER_INDEXES if is_safe else ()
        report(
            {
                "chain_id": chain.chain_id,
                "url": chain.url,
                "wallet": wallet,
                "owners": {str(index): chain.accounts[index].address for index in owner_indexes},
                "tokens": {symbol: token.address for symbol, token in chain.tokens.items()},
                "pools": chain.address_by_pool,
                "feeds": dict(chain.feed_addresses),
                "config": None if config_path is None else str(config_path),
            }
        )

    if on_base:
        serve(port, None, on_ready, open_chain=open_local_base, mine=mine_at_base_fee)
    else:
        serve(port, None, on_ready, open_futures if futures else None)


SERVED_FUTURES_MARKETS = (PerpSpec("WETH", 4_000_000), PerpSpec("WBTC", 4_000_000))
SERVED_FUTURES_WEIGHTS = {"WETH": "60%", "WBTC": "-40%"}
FUTURES_COLLATERAL = "USDC"
SERVED_FUTURES_DEPOSIT = 2_000
SERVED_FUTURES_POSITIONS = {"WETH": Fraction(2, 5), "WBTC": Fraction(-1, 100)}
"""Sizes of the wallet's initial positions, off target so that a plan has orders."""


def open_futures(chain: LocalChain) -> None:
    """Deploy Perpetual Protocol v2, deposit for the wallet and open its first positions."""
    perps = LocalPerps(chain, FUTURES_COLLATERAL, SERVED_FUTURES_MARKETS)
    wallet = chain.wallet.address
    perps.deposit(wallet, SERVED_FUTURES_DEPOSIT * perps.collateral_token.unit)
    for symbol, position_size in SERVED_FUTURES_POSITIONS.items():
        perps.trade(wallet, symbol, int(position_size * WAD))
    chain.perps = perps


def move_market(port: int, moves: list[str]) -> dict[str, Any]:
    """Move the market of the chain served at `port`, such as WBTC=+30%. Raises ConfigError for an
    invalid move, or if no chain is served there.
    """
    factors = market.parse_moves(moves)
    prices_usd = market.request_move(port, factors)
    return {
        "moved": {symbol: f"{float(factor - 1) * 100:+g}%" for symbol, factor in factors.items()},
        "prices_usd": prices_usd,
    }


def store_beside(config_path: Path) -> Path:
    """Return the path of the store beside a served chain's config, with the same name."""
    return config_path.with_suffix(".db")


def require_local_files(config_path: Path) -> None:
    """Raise unless the files were written for a local chain. The config and journal of a real
    wallet are never overwritten.
    """
    if not config_path.parent.is_dir():
        raise ConfigError(
            f"--write-config {config_path}: {config_path.parent} does not exist", "create it first"
        )
    if store_beside(config_path) == config_path:
        raise ConfigError(
            f"--write-config {config_path}: the store beside it would have this name",
            "name a file that does not end in .db, such as trimtab.toml",
        )
    if config_path.exists():
        try:
            is_local = config_path.read_text(encoding="utf-8").startswith(CONFIG_MARKER)
        except (OSError, UnicodeDecodeError):
            is_local = False
        if not is_local:
            raise ConfigError(
                f"--write-config {config_path}: exists and does not belong to a local chain; nothing was changed",
                "name another file",
            )
    elif store_beside(config_path).exists():
        raise ConfigError(
            f"--write-config {config_path}: {store_beside(config_path).name} beside it belongs to something"
            " else; nothing was changed",
            "name another file",
        )


def _require_stopped(config_path: Path, port: int) -> None:
    """Raise if the chain of an existing config answers on another port than `port`: an agent may
    run on that config, and its journal lies beside it.
    """
    used_port = answering_port(config_path)
    if used_port not in (None, port):  # a port in use is refused on its own
        raise ConfigError(
            f"--write-config {config_path}: its chain still runs on port {used_port}; nothing was changed",
            "name another file, or stop that chain first",
        )


def answering_port(config_path: Path) -> int | None:
    """Return the port on which the chain of a config answers; None if it does not, or there is no
    valid config.
    """
    try:
        endpoint = load_config(config_path).config.chain.rpc[0]
        wiring.open_transport(endpoint).call("eth_chainId", [])
        return urlsplit(endpoint.read_url()).port
    except (TrimtabError, ValueError):
        return None


def unbalance(chain: LocalChain) -> None:
    """Let the wallet's portfolio drift, so that the first rebalance has trades to make."""
    for symbol, factor in START_HOLDING_FACTORS.items():
        chain.set_balance(symbol, floor_int(chain.balance(symbol) * factor))


def publish_config(chain: LocalChain, config_path: Path, config_text: str) -> None:
    """Pin the chain's contracts in the store beside `config_path`, then write `config_text` there,
    with that store and COOLDOWN. The store and the paper ledger of an earlier local chain are moved
    away, since nonces and blocks start anew.
    """
    config_path.unlink(missing_ok=True)
    store_path = store_beside(config_path)
    move_store_away(store_path)
    draft_path = config_path.with_name(f".{config_path.name}.draft")
    store_line = f'url = "sqlite:///{store_path.name}"'
    config_text = re.sub('(?m)^url = "sqlite:.*"$', lambda _: store_line, config_text)
    config_text = with_served_cooldown(config_text)
    if chain.perps is not None:
        # An idle chain writes no feed rounds.
        config_text += futures_config(chain.perps, SERVED_FUTURES_WEIGHTS, index_age="1d")
    replace_file(draft_path, config_text.encode())
    try:
        loaded_config = load_config(draft_path)
        move_store_away(wiring.store_file(replace(loaded_config, is_paper=True)))
        pin_all(loaded_config)
        draft_path.replace(config_path)
    finally:
        draft_path.unlink(missing_ok=True)


def move_store_away(store_path: Path) -> None:
    """Rename the files of a store of an earlier local chain, if there is one."""
    for file_suffix in ("", "-wal", "-shm", PAUSE_ENDING):
        old_file = store_path.with_name(store_path.name + file_suffix)
        if old_file.exists():
            old_file.replace(old_file.with_name(f"old-{os.getpid()}-{old_file.name}"))


def with_served_cooldown(config_text: str) -> str:
    """Return the text of a config with COOLDOWN."""
    return re.sub('(?m)^cooldown = ".*"$', f'cooldown = "{COOLDOWN}"', config_text)


POOL_RANGES = (
    LiquidityRange(None, None, 4_000),
    LiquidityRange(-1_500, 2_000, 3_500),
    LiquidityRange(-400, 300, 2_500),
)
"""Ranges of each V3 pool. Fewer than in DEFAULT_WORLD, since creating a position takes 0.1 s."""
SMALL_WORLD = replace(
    DEFAULT_WORLD,
    tokens=tuple(DEFAULT_WORLD.token(symbol) for symbol in ("WETH", "WBTC", "USDC")),
    pools=(
        V2Spec("WETH", "USDC", 20_000_000),
        V2Spec("WBTC", "WETH", 12_000_000),
        V3Spec("WETH", "USDC", 500, 40_000_000, POOL_RANGES),
        V3Spec("WETH", "USDC", 3_000, 15_000_000, POOL_RANGES),
        V3Spec("WBTC", "WETH", 500, 20_000_000, POOL_RANGES),
        V3Spec("WBTC", "USDC", 3_000, 25_000_000, POOL_RANGES),
    ),
)
DEMO_TARGETS = {"WBTC": "50%", "WETH": "30%", "USDC": "20%"}
DEMO_START_USD = {"WBTC": 25_000, "WETH": 15_000, "USDC": 10_000}
"""So much that gas hardly widens the ranges: the move is well beyond them."""
DEMO_FACTORS = {"WBTC": Fraction(116, 75), "WETH": Fraction(6, 5)}
"""Price moves that take 50/30/20 to 58/27/15 (worked case W2)."""
DEMO_FOLDER_PREFIX = "trimtab-demo-"


def _move_texts(factors: Mapping[str, Fraction]) -> dict[str, str]:
    """Return price factors as text by symbol."""
    return {symbol: f"{float(factor - 1) * 100:+.1f} %" for symbol, factor in factors.items()}


@dataclass(frozen=True, slots=True)
class DemoWorld:
    """A connected agent and its chain. `year_cost_text` is the measured cost of a year of such a
    portfolio, empty without a network or a measurement.
    """

    agent: Agent
    chain: LocalChain
    factors: Mapping[str, Fraction]
    is_on_base: bool = False
    year_cost_text: str = ""

    def move_market(self) -> dict[str, str]:
        """Move every pool and feed; return the moves as text by symbol."""
        prices_usd = self.chain.deployed_world.prices_usd
        self.chain.move_market(
            {symbol: prices_usd[symbol] * factor for symbol, factor in self.factors.items()}
        )
        if self.is_on_base:
            mine_at_base_fee(self.chain)
        return _move_texts(self.factors)


@contextmanager
def demo_world() -> Iterator[DemoWorld]:
    """Start all parts of the demo; stop and remove them at the end."""
    with (
        open_eth_tester(SMALL_WORLD) as chain,
        _demo_agent(chain, chain.config_text(targets=DEMO_TARGETS), DEMO_START_USD) as agent,
    ):
        yield DemoWorld(agent, chain, DEMO_FACTORS)


SMALL_MONEY_START_USD = {
    "WETH": SMALL_MONEY_USD * 3 // 10,
    "cbBTC": SMALL_MONEY_USD * 3 // 10,
    "USDC": SMALL_MONEY_USD * 4 // 10,
}
SMALL_MONEY_TARGETS = {"WETH": "30%", "cbBTC": "30%", "USDC": "40%"}
SMALL_MONEY_FACTORS = {"WETH": Fraction(8, 5), "cbBTC": Fraction(11, 10)}
"""Price moves that take WETH beyond its range."""
SMALL_MONEY_NATIVE_WEI = 10**16


_BASE_SYMBOLS = {"WBTC": "cbBTC"}


def _on_base(world: LocalWorld) -> LocalWorld:
    """Return a world with the symbols of Base."""
    return replace(
        world,
        tokens=tuple(
            replace(token, symbol=_BASE_SYMBOLS.get(token.symbol, token.symbol))
            for token in world.tokens
        ),
        pools=tuple(
            replace(pool, token_a=_BASE_SYMBOLS.get(pool.token_a, pool.token_a))
            for pool in world.pools
        ),
    )


BASE_WORLD = replace(_on_base(SMALL_WORLD), wallet_native_wei=SMALL_MONEY_NATIVE_WEI)
PRACTICE_WORLD = _on_base(DEFAULT_WORLD)
"""Five tokens, for every basket of the set-up."""


@contextmanager
def open_local_base(port: int = 0, *, world: LocalWorld = BASE_WORLD) -> Iterator[LocalChain]:
    """Open the stand-in of Base with a world, served at `port` (0: any). Raises ConfigError without anvil."""
    require_anvil("--network base", "only anvil charges a data fee")
    require_free_port(
        port, f"http://127.0.0.1:{port}"
    )  # before the deployment, which takes seconds
    with (
        open_anvil(world=world, network="optimism", chain_id=LOCAL_OP_STACK_ID) as chain,
        op_stack.serve_sequencer(chain.url or "", BASE.fees.priority_fee_wei, port) as url,
    ):
        op_stack.install_predeploys(chain)
        chain.node.url = url  # type: ignore[misc]  # anvil's
        mine_at_base_fee(chain)
        yield chain


def base_config_text(chain: LocalChain) -> str:
    """Return the config of the template for small money on the stand-in of Base."""
    template = PORTFOLIO_TEMPLATES[SMALL_TEMPLATE]
    template = replace(template, limits={**template.limits, **network_limits(BASE)})
    config_text = chain.config_text(targets=SMALL_MONEY_TARGETS)
    return CONFIG_MARKER + apply_template(config_text.removeprefix(CONFIG_MARKER), template)


def mine_at_base_fee(chain: LocalChain) -> None:
    """Mine a block with the base fee of an ordinary day on Base, from which each block follows by
    the rule of EIP-1559.
    """
    base_fee_wei = BASE.fees.gas_prices_wei[ORDINARY_DAY_INDEX] - BASE.fees.priority_fee_wei
    chain.node.rpc("anvil_setNextBlockBaseFeePerGas", hex(base_fee_wei))  # type: ignore[attr-defined]  # anvil
    chain.mine()


@contextmanager
def base_demo_world() -> Iterator[DemoWorld]:
    """Start all parts of the demo on the stand-in of Base, with 500 dollars in the template for
    small money; stop and remove them at the end. Raises ConfigError without anvil.
    """
    with open_local_base() as chain:
        chain.node.rpc("anvil_setBlockTimestampInterval", BASE.block_ms // 1000)  # type: ignore[attr-defined]  # anvil
        mine_at_base_fee(chain)
        with _demo_agent(chain, base_config_text(chain), SMALL_MONEY_START_USD) as agent:
            yield DemoWorld(
                agent,
                chain,
                SMALL_MONEY_FACTORS,
                is_on_base=True,
                year_cost_text=small_money_year_text(BASE.name),
            )


@contextmanager
def _demo_agent(chain: LocalChain, config_text: str, start_usd: dict[str, int]) -> Iterator[Agent]:
    """Open an agent on a portfolio worth `start_usd` by symbol, with this text as config."""
    with tempfile.TemporaryDirectory(prefix=DEMO_FOLDER_PREFIX) as folder:
        fund(chain, start_usd)
        config_path = Path(folder) / "trimtab.toml"
        replace_file(config_path, config_text.encode())
        loaded_config = load_config(config_path)
        pin_all(loaded_config, [chain.transport])
        with open_agent(loaded_config, transports=[chain.transport], clock=chain.clock) as agent:
            yield agent


def fund(chain: LocalChain, usd_by_symbol: Mapping[str, int]) -> None:
    """Set the wallet's balances to these values in USD, by symbol."""
    for symbol, value_usd in usd_by_symbol.items():
        raw_per_coin = 10 ** chain.tokens[symbol].decimals
        chain.set_balance(
            symbol, floor_int(value_usd / chain.deployed_world.prices_usd[symbol] * raw_per_coin)
        )


DEMO_INTERVAL = "1s"
DEMO_CONFIRM_BLOCKS = 3
"""Wait before a cycle, and the blocks that confirm a drift. Each cycle has one block, so the first
three cycles after a move only show the drift."""
CYCLE_PAUSE_S = 4
"""Wait after a cycle, in seconds, so that the dashboard reads the chain while no prices move. In
the middle of a move, pools contradict feeds."""
MOVE_INTERVAL_S = 30
DAYS_PER_MOVE = 7
DEMO_BANNER = (
    "Demo: recorded prices of 2021 replayed on a local chain, a week in each half minute. Not the"
    " market of today, and no real money."
)
PRICE_COLUMNS = {"WBTC": "BTC", "WETH": "ETH"}
"""Columns of the recorded prices by token of the demo."""
_DAILY_LIMITS = {"daily_turnover": "off", "daily_loss": "20%", "gas_per_day": "5"}
"""Wider daily limits, since a day passes in minutes here."""


@dataclass(frozen=True, slots=True)
class RecordedDay:
    """Dollar prices by token of the demo on one recorded day."""

    date: str
    prices: Mapping[str, Fraction]


@dataclass(frozen=True, slots=True)
class MarketMove:
    """A move of the demo's market to the recorded prices of `date`; `moves` are texts by symbol."""

    date: str
    moves: Mapping[str, str]


def recorded_days() -> tuple[RecordedDay, ...]:
    """Return every seventh day of the packaged prices of 2021."""
    from agent.app.research.backtests import sample_files

    with sample_files()[0].open(encoding="utf-8", newline="") as price_file:
        price_rows = list(csv.DictReader(price_file))[::DAYS_PER_MOVE]
    return tuple(
        RecordedDay(
            price_row["time"],
            {symbol: Fraction(price_row[column]) for symbol, column in PRICE_COLUMNS.items()},
        )
        for price_row in price_rows
    )


class LiveDemo:
    """A connected agent on a served chain, with its config, and the days that its market replays,
    of which the chain has the first.
    """

    def __init__(
        self,
        agent: Agent,
        chain: LocalChain,
        config: Path,
        clock: StoppableClock,
        days: Sequence[RecordedDay],
    ) -> None:
        self.config_path = config
        self.replay_path = config.with_name("replay.csv")
        """Each day that was reached, after the chain's time at which its prices began."""
        self._agent = agent
        self._chain = chain
        self._clock = clock
        self._days = days

    def play(self) -> Generator[StepOutcome | TrimtabError | MarketMove]:
        """Run cycles that send, and move the market between them; yield each outcome and move.
        After the last day the market stands still. Ends with StopRequested.
        """
        self._note_day(self._days[0])
        day_pairs = pairwise(self._days)
        last_move_s = -float(MOVE_INTERVAL_S)
        with ExitStack() as stack:
            run_service = stack.enter_context(
                service.report_run(self._agent, self._clock, DEMO_INTERVAL, sends=True)
            )
            cycles = self._agent.run(
                send=True,
                confirm=always_confirm,
                every=DEMO_INTERVAL,
                progress=run_service.on_stage,
                controls=ControlRunner(self._agent),
            )
            stack.enter_context(closing(cycles))
            for outcome_or_error in cycles:
                run_service.on_cycle(outcome_or_error)
                yield outcome_or_error
                self._clock.sleep(CYCLE_PAUSE_S)
                if time.monotonic() - last_move_s < MOVE_INTERVAL_S:
                    self._chain.mine()
                    continue
                day, next_day = next(day_pairs, (None, None))
                if day is None or next_day is None:
                    self._chain.mine()
                    continue
                factor_by_symbol = {
                    symbol: next_day.prices[symbol] / day.prices[symbol] for symbol in PRICE_COLUMNS
                }
                last_move_s = time.monotonic()
                yield MarketMove(next_day.date, _move_texts(factor_by_symbol))
                with (
                    self._clock.interruptible()
                ):  # each trade takes a second, so a signal interrupts
                    market.apply_move(self._chain, factor_by_symbol)
                self._note_day(next_day)

    def _note_day(self, day: RecordedDay) -> None:
        with self.replay_path.open("a", encoding="utf-8") as replay_file:
            replay_file.write(f"{self._chain.clock.now_s()},{day.date}\n")


@contextmanager
def live_demo(clock: StoppableClock) -> Iterator[LiveDemo]:
    """Start all parts of the browser demo except the dashboard; stop and remove them at the end.
    Raises ConfigError without anvil.
    """
    require_anvil("--serve", "processes of the dashboard read the chain")
    days = recorded_days()
    tokens = tuple(
        replace(token, price_usd=days[0].prices.get(token.symbol, token.price_usd))
        for token in SMALL_WORLD.tokens
    )
    with (
        tempfile.TemporaryDirectory(prefix=DEMO_FOLDER_PREFIX) as folder,
        open_anvil(world=replace(SMALL_WORLD, tokens=tokens)) as chain,
    ):
        fund(chain, DEMO_START_USD)
        config_path = Path(folder) / "trimtab.toml"
        replace_file(
            config_path, _with_demo_values(chain.config_text(targets=DEMO_TARGETS)).encode()
        )
        loaded_config = load_config(config_path)
        pin_all(loaded_config)
        with open_agent(loaded_config, clock=clock) as agent:
            yield LiveDemo(agent, chain, config_path, clock, days)


def require_anvil(option: str, why: str) -> None:
    """Raise ConfigError, with the remedy, if anvil is not installed."""
    try:
        anvil_binary()
    except ConfigError as error:
        raise ConfigError(
            f"{option} needs anvil, since {why}: {error.message}",
            error.remedy,
        ) from None


def _with_demo_values(config_text: str) -> str:
    """Return the demo's config for a time in which a day passes in minutes."""
    toml_values = {"cooldown": f'"{COOLDOWN}"', "confirm_blocks": str(DEMO_CONFIRM_BLOCKS)}
    toml_values |= {
        setting_key: f'"{toml_value}"' for setting_key, toml_value in _DAILY_LIMITS.items()
    }
    for setting_key, toml_value in toml_values.items():
        config_text = re.sub(
            rf"(?m)^{setting_key} = .*$", f"{setting_key} = {toml_value}", config_text
        )
    return config_text


FUTURES_DEMO_WEIGHTS = {"WETH": "60%", "WBTC": "40%"}
FUTURES_DEMO_TARGETS = {"WBTC": "40%", "WETH": "25%", "USDC": "35%"}
FUTURES_DEMO_START_USD = {"WBTC": 6_000, "WETH": 3_750, "USDC": 5_250}
"""The spot portfolio at its targets, beside the margin account."""
FUTURES_DEMO_MARGIN_USD = 5_000
FUTURES_DEMO_LEVERAGE = "3x"
DEMO_CRASHES = (
    {"WETH": Fraction(85, 100), "WBTC": Fraction(85, 100)},
    {"WETH": Fraction(82, 100), "WBTC": Fraction(84, 100)},
)
"""Price factors of each crash. At 3x, the first breaches the leverage limit of 4x; both together
breach the maintenance margin.
"""
PREMIUM_FACTOR = Fraction(101, 100)
"""Price of a perpetual as a multiple of its index on the day with funding."""
TWAP_S = 1_860
PERP_LIQUIDITY_USD = 4_000_000
"""USD that the makers hold in the market of each perpetual."""


class FuturesDemoWorld:
    """A connected agent with a futures layer, its chain, and its first positions to compare
    with.
    """

    def __init__(self, agent: Agent, chain: LocalChain, perps: LocalPerps) -> None:
        self.agent = agent
        self._chain = chain
        self._perps = perps
        self._first_account: MarginAccount | None = None

    def remember_positions(self) -> None:
        """Store the current positions for `unreduced_positions`."""
        self._first_account = margin_account(self.agent.step_input().snapshot)

    def crash(self, factors: Mapping[str, Fraction]) -> dict[str, str]:
        """Move tokens, indexes and perpetuals; return the moves as text by symbol."""
        prices_usd = self._chain.deployed_world.prices_usd
        moved_prices_usd = {
            symbol: prices_usd[symbol] * factor for symbol, factor in factors.items()
        }
        self._chain.move_market(moved_prices_usd)
        self._perps.move_pools(moved_prices_usd, self._sleep)
        # The mark price is a half-hour average.
        self._chain.warp(TWAP_S)
        return _move_texts(factors)

    def pass_a_day_at_a_premium(self) -> None:
        """Let the perpetuals trade above their index for a day."""
        prices_usd = self._chain.deployed_world.prices_usd
        premium_prices_usd = {
            symbol: prices_usd[symbol] * PREMIUM_FACTOR for symbol in self._perps.markets
        }
        self._perps.move_pools(premium_prices_usd, self._sleep)
        self._chain.warp(DAY_S)

    def unreduced_positions(self) -> UnreducedPositionsDocument:
        """Return the leverage that the initial positions would have at current prices without
        funding, and whether they would be liquidated.
        """
        account = margin_account(self.agent.step_input().snapshot)
        if self._first_account is None or account is None:
            raise RuntimeError("the margin account is not known")
        account = replace(self._first_account, markets=account.markets)
        leverage = margin.leverage(account)
        return {
            "leverage": None if leverage is None else value_text(leverage, 0, 6),
            "is_liquidated": margin.is_liquidatable(account),
        }

    def _sleep(self, seconds: float) -> None:
        self._chain.clock.sleep(seconds)


@contextmanager
def futures_demo_world() -> Iterator[FuturesDemoWorld]:
    """Start all parts of the demo with futures; stop and remove them at the end. Raises ConfigError
    if the contracts of Perpetual Protocol are missing and cannot be installed.
    """
    try:
        npm_root(PERPS_MANIFEST)
    except ConfigError as error:
        raise ConfigError(
            f"--futures: the contracts of Perpetual Protocol v2 are not installed: {error.message}",
            "in the checkout: .venv/bin/python scripts/make/npm_install.py --dev",
        ) from None
    perp_specs = [PerpSpec(symbol, PERP_LIQUIDITY_USD) for symbol in FUTURES_DEMO_WEIGHTS]
    with open_anvil(world=SMALL_WORLD) as chain:
        with chain.node.one_second_blocks():
            perps = LocalPerps(chain, FUTURES_COLLATERAL, perp_specs)
        chain.perps = perps
        perps.deposit(chain.wallet.address, FUTURES_DEMO_MARGIN_USD * perps.collateral_token.unit)
        futures_text = futures_config(
            perps, FUTURES_DEMO_WEIGHTS, leverage=FUTURES_DEMO_LEVERAGE, index_age="1d"
        )
        with _demo_agent(
            chain,
            chain.config_text(targets=FUTURES_DEMO_TARGETS) + futures_text,
            FUTURES_DEMO_START_USD,
        ) as agent:
            yield FuturesDemoWorld(agent, chain, perps)
