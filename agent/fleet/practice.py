"""Practice: a local chain beside the set-up page, on which a portfolio trades on paper without an
endpoint, an account or money.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import wiring
from agent.app.local import (
    PRACTICE_WORLD,
    answering_port,
    mine_at_base_fee,
    move_market,
    move_store_away,
    open_local_base,
    require_anvil,
    require_local_files,
    with_served_cooldown,
)
from agent.app.start.setup import local_start
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.files import replace_file
from agent.localchain import LocalChain
from agent.localchain.market import serve
from agent.localchain.nodes import free_port


def chain_file(config: str) -> Path:
    """Return the config file of the chain, beside `config`. A folder of portfolios omits it."""
    return Path(config).with_name(f".practice-{Path(config).stem}.toml")


def serve_practice(on_ready: Callable[[str], None], config: str) -> None:
    """Serve the stand-in of Base, as `trimtab localchain --network base` does, until SIGINT or SIGTERM,
    unless it is served already,
    and call `on_ready` with its config file. It begins anew, on the port that `config` names if that
    is written, whose paper ledger is moved away. Raises ConfigError without anvil.
    """
    file = chain_file(config)
    require_local_files(file)
    if answering_port(file) is not None:
        on_ready(str(file))
        return
    require_anvil("Practice", "processes of the page read the chain")
    practice = practice_document(config)
    port = free_port() if practice is None else practice["port"]

    open_chain = partial(open_local_base, world=PRACTICE_WORLD)

    def publish(chain: LocalChain) -> None:
        if practice is not None:
            move_store_away(_paper_ledger(config))
        replace_file(file, with_served_cooldown(chain.config_text()).encode())
        on_ready(str(file))

    serve(port, None, publish, open_chain=open_chain, mine=mine_at_base_fee)


def practice_document(config: str) -> dict[str, Any] | None:
    """Return `port` and `tokens` of the chain of a config, and the file name of its paper `ledger`;
    None for a config of another network, or that is not written.
    """
    chain = local_start(str(chain_file(config)))
    if chain is None or not Path(config).is_file():
        return None
    loaded_config = load_config(config)
    endpoint = loaded_config.config.chain.rpc[0]
    if endpoint.url is None or endpoint.url.get_secret_value() != chain.url:
        return None
    portfolio = loaded_config.config.portfolio
    symbols = [asset.symbol for asset in portfolio.assets]
    return {
        "port": urlsplit(chain.url).port,
        "tokens": [symbol for symbol in symbols if symbol != portfolio.numeraire],
        "ledger": _paper_ledger(config).name,
    }


def kept_ledger(config: str) -> str:
    """Return the file name of the last paper ledger that was moved away for a new chain; empty
    without any.
    """
    ledger = _paper_ledger(config)
    kept_files = ledger.parent.glob(f"old-*-{escape(ledger.name)}")
    last_file = max(kept_files, key=lambda file: file.stat().st_mtime_ns, default=None)
    return "" if last_file is None else last_file.name


def _paper_ledger(config: str) -> Path:
    return wiring.store_file(replace(load_config(config), is_paper=True))


def move_price(config: str, symbol: str, move: str) -> str:
    """Move a price on the chain of a config, such as +10%, and return the new one in USD. Raises
    ConfigError and Retryable.
    """
    practice = practice_document(config)
    if practice is None:
        raise ConfigError(f"{config}: its chain is not one of practice", "choose Practice")
    prices_usd: dict[str, str] = move_market(practice["port"], [f"{symbol}={move}"])["prices_usd"]
    return prices_usd[symbol]
