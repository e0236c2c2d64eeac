"""Paper trading: create the paper wallet, and open an agent on the paper store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent import wiring
from agent.app import config_versions
from agent.app.agent import Agent, open_agent
from agent.chain.rpc import Transport
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.config.tables.fields import parse_pairs
from agent.errors import ConfigError, ErrorCode
from agent.execution.step_context import StepOutcome
from agent.model import PaperMargin, PaperWallet, Portfolio, Snapshot
from agent.paper import chain
from agent.paper.order_venue import PaperHyperliquid
from agent.ports import Clock
from agent.units import parse_raw

DEFAULT_NATIVE = "1"
NATIVE_DECIMALS = 18
VALUE_DECIMALS = 18


@dataclass(frozen=True, slots=True)
class PaperStart:
    """Initial paper wallet, as entered: `value` in whole coins of the numeraire, spread over the
    targets; or `amounts` as SYMBOL=NUMBER; or neither, for a copy of the real wallet. `native` is
    the amount of native coin for gas in addition to `value` or `amounts`, DEFAULT_NATIVE if empty,
    `margin` the collateral in the margin account, in whole coins.
    """

    value: str = ""
    amounts: str = ""
    native: str = ""
    margin: str = ""

    @property
    def is_set(self) -> bool:
        """True if an option was given; `native` is refused alone."""
        return bool(self.value or self.amounts or self.margin)


DEFAULT_START = PaperStart()
"""Start from a copy of the real wallet."""


def paper_config(config: ConfigSource) -> LoadedConfig:
    """Return the config with its paper store, for reading. Raises ConfigError without a paper
    store.
    """
    loaded_config = replace(load_config(config), is_paper=True)
    if not wiring.has_store(loaded_config):
        raise ConfigError("there are no paper books yet", "trimtab paper starts them")
    return loaded_config


@contextmanager
def open_paper(
    config: ConfigSource,
    start: PaperStart = DEFAULT_START,
    *,
    clock: Clock | None = None,
    transports: Sequence[Transport] | None = None,
    record_folder: Path | None = None,
) -> Iterator[Agent]:
    """Open an agent that trades on paper. Its wallet is created from `start` on the first run. No
    key is read. Raises ConfigError for an invalid or empty `start`, or another one on a later run.
    """
    loaded_config = replace(load_config(config), is_paper=True)
    if start.value and start.amounts:
        raise ConfigError(
            "--value and --start cannot be combined",
            "--start gives the balance of each token, --value the total value",
        )
    if start.native and not (start.value or start.amounts):
        raise ConfigError(
            "--native: a copy of the real wallet has its native coins",
            "omit it, or give the wallet's balances, too: --start or --value",
        )
    with open_agent(
        loaded_config, clock=clock, transports=transports, record_folder=record_folder
    ) as agent:
        store = agent.context.store
        begun_wallet = store.paper.wallet()
        if begun_wallet is None:
            wallet = replace(_initial_wallet(agent, start), start=astuple(start))
            require_holdings(wallet, agent.portfolio)
            store.balances.record_prior_day((), wallet.nonce)  # this wallet has no history
            store.paper.begin(wallet)
        elif start.is_set and begun_wallet.start != astuple(start):
            options = (
                ("--value", start.value),
                ("--start", start.amounts),
                ("--margin", start.margin),
            )
            given_text = " and ".join(option for option, text in options if text)
            raise ConfigError(
                f"paper trading has already started; {given_text} would apply to its first run only",
                f"omit them; to start over, {start_over_text(loaded_config)}",
                code=ErrorCode.PAPER_STARTED,
            )
        config_versions.record_version(loaded_config, store.configs, config_versions.YES_ORIGIN)
        yield agent


def require_holdings(wallet: PaperWallet, portfolio: Portfolio) -> None:
    """Raise ConfigError if a paper wallet has no asset of the portfolio and an empty margin account,
    or none.
    """
    asset_tokens = {asset.token.address for asset in portfolio.assets}
    if wallet.margin in (None, PaperMargin(0, 0, ())) and not any(
        holding.raw for holding in wallet.balances if holding.token in asset_tokens
    ):
        raise ConfigError(
            "the wallet holds none of the portfolio's assets",
            "give the paper wallet a balance: trimtab paper --start"
            f" {portfolio.numeraire.label}=500",
        )


def start_over_text(loaded_config: LoadedConfig) -> str:
    """Return how to begin a new paper store for a config."""
    if wiring.is_in_file(loaded_config):
        return f"remove {wiring.store_file(loaded_config)}"
    return "name another database in store.url"


def always_confirm(_: StepOutcome) -> bool:
    """Confirm every plan: of paper trading, which sends nothing, and of the demo in the browser."""
    return True


def _initial_wallet(agent: Agent, start: PaperStart) -> PaperWallet:
    """Return the initial paper wallet, with its margin account."""
    snapshot = agent.context.position_reader.snapshot()
    context = agent.context
    futures_policy = agent.context.futures_policy
    deposit_raw = 0 if start.value or start.amounts else None
    if start.margin:
        if futures_policy is None:
            raise ConfigError("--margin: the config has no [futures]", "omit it")
        decimals = agent.portfolio.token(futures_policy.collateral).decimals
        deposit_raw = parse_raw(start.margin, decimals, "--margin")
    wallet = _wallet_without_margin(agent, start, snapshot, deposit_raw or 0)
    if context.paper_chain is None or futures_policy is None:
        return wallet
    order_venue = context.order_venue()
    if isinstance(order_venue, PaperHyperliquid):
        return replace(wallet, margin=order_venue.opening_margin(snapshot, deposit_raw))
    return replace(wallet, margin=context.paper_chain.opening_margin(snapshot, deposit_raw))


def _wallet_without_margin(
    agent: Agent, start: PaperStart, snapshot: Snapshot, margin_raw: int
) -> PaperWallet:
    context = agent.context
    if not start.value and not start.amounts:
        return chain.wallet_from_real(snapshot, context.token_addresses)
    native_wei = parse_raw(start.native or DEFAULT_NATIVE, NATIVE_DECIMALS, "--native")
    if start.amounts:
        raw_by_token = dict.fromkeys(context.token_addresses, 0)
        for symbol, amount_text in parse_pairs(start.amounts, "--start").items():
            token = agent.token(symbol, "--start")
            raw_by_token[token.address] = parse_raw(
                amount_text, token.decimals, f"--start {symbol}"
            )
        return chain.wallet_from_amounts(snapshot, raw_by_token, native_wei)
    total_value = Fraction(parse_raw(start.value, VALUE_DECIMALS, "--value"), 10**VALUE_DECIMALS)
    if total_value == 0:
        raise ConfigError("--value: must be above 0", "write for example --value 10000")
    step_input = context.bare_input(
        snapshot, context.store.budgets.history(snapshot.head.timestamp_s)
    )
    return chain.wallet_from_value(step_input, total_value, native_wei, margin_raw)
