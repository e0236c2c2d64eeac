"""Several portfolios on one chain, each with a wallet, a folder, variables, an endpoint and alerts of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.localchain import LocalChain
from agent.signing.keys import TestAccountKey, load_key
from agent.units import floor_int
from tests.support.agents import ROOMY, trusted_config


def wallet_of(account: int, chain: LocalChain) -> str:
    """Return the address of a published test account."""
    return load_key(TestAccountKey(account), chain.chain_id, ask=None).address


def add_portfolio(
    chain: LocalChain, folder: Path, name: str, account: int, usd: Mapping[str, int], changes: Mapping[str, object] | None = None
) -> Path:
    """Write NAME.toml of a published test account, as `add_wallet_portfolio`."""
    return add_wallet_portfolio(chain, folder, name, wallet_of(account, chain), usd, {"wallet.test_account": account} | dict(changes or {}))


def add_wallet_portfolio(
    chain: LocalChain, folder: Path, name: str, wallet: str, usd: Mapping[str, int], changes: Mapping[str, object]
) -> Path:
    """Write NAME.toml of a wallet with these values in dollars and equal targets of two tokens, with every contract trusted."""
    prices_usd = chain.deployed_world.prices_usd
    coins = {symbol: usd.get(symbol, 0) / prices_usd[symbol] for symbol in chain.tokens}
    chain.set_balances({symbol: floor_int(coins[symbol] * 10**token.decimals) for symbol, token in chain.tokens.items()}, wallet)
    own_folder = folder / name
    own_changes = {"wallet.address": wallet, "chain.rpc": [{"url": chain.url, "operator": "local"}]}
    loaded = trusted_config(chain, own_folder, ROOMY | own_changes | dict(changes), {"WETH": "50%", "USDC": "50%"})
    path = own_folder / f"{name}.toml"
    loaded.path.rename(path)
    return path
