"""Configs and profiles in files, for tests of what one takes over from the other."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomlkit

from agent import app as api
from agent.app.start.setup import initialise
from agent.config.presets import ETHEREUM

WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
OTHER = "0x7D1AfA7B718fb893dB30A3aBc0Cfc608AaCfeBB0"
RPC = [("NOT_SET_A", "one"), ("NOT_SET_B", "two")]
ADDRESSES = {token.symbol: token.address for token in ETHEREUM.tokens}


@cache
def _made(template: str | None, targets: str, numeraire: str, comments: bool) -> str:
    if not comments:
        return tomlkit.dumps(tomllib.loads(_made(template, targets, numeraire, True)))
    with TemporaryDirectory() as folder:
        pairs = [] if template else [(pair.split("=")[0], pair.split("=")[1]) for pair in targets.split()]
        initialise(
            path := Path(folder) / "x.toml",
            "ethereum",
            WALLET,
            pairs,
            numeraire,
            RPC,
            template=template,
            price=None if numeraire == "USDC" else "3000",
        )
        return path.read_text()


def config(
    folder: Path,
    name: str = "mine",
    *,
    template: str | None = None,
    targets: str = "WETH=50% USDC=50%",
    numeraire: str = "USDC",
    comments: bool = True,
) -> Path:
    """As `trimtab init` writes it, with a store of its own name; without comments it is read and edited in a third of the time."""
    path = folder / f"{name}.toml"
    path.write_text(_made(template, targets, numeraire, comments).replace("sqlite:///trimtab.db", f"sqlite:///{name}.db"))
    path.chmod(0o600)
    return path


def profile(folder: Path, **changes: Any) -> Path:
    """A small profile, with `changes` of its tables; None takes a table away."""
    found: dict[str, Any] = {
        "profile": {"format": 1, "chain_id": 1, "numeraire": "USDC"},
        "assets": [{"symbol": "WETH", "target": "60%"}, {"symbol": "USDC", "target": "40%"}],
        "policy": {"trigger": {"kind": "threshold", "absolute": "5%"}, "destination": "target", "cooldown": "2h"},
        "limits": {},
    } | changes
    path = folder / "theirs.profile"
    path.write_text(tomlkit.dumps({name: table for name, table in found.items() if table is not None}))
    return path


def taken_over(path: Path, source: Path, **more: Any) -> dict[str, Any]:
    return api.import_profile(path, source, lambda *_: True, **more)
