"""`trimtab init` with its answers on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.tools import CommandResult
from tests.support.constants import WALLET

TWO = ("--target", "WETH=60%", "--target", "USDC=40%")
RPC_PAIRS = (("RPC_A", "alpha"), ("RPC_B", "beta"))
RPC = tuple(word for variable, operator in RPC_PAIRS for word in ("--rpc", f"{variable}={operator}"))
Bare = Callable[..., CommandResult]


def init(bare: Bare, config: Path, *args: str, wallet: str = WALLET, rpc: tuple[str, ...] = RPC) -> CommandResult:
    return bare("init", "--wallet", wallet, *rpc, *args, "--config", str(config), "--json")
