"""The files of the pure packages, as the contract in pyproject.toml lists their modules."""

from __future__ import annotations

import tomllib
from pathlib import Path

CONTRACT_NAME = "The pure packages do no input or output"


def expand_patterns(text: str) -> list[str]:
    """Return the file patterns of a comma-separated list, in which `pure` is for all pure files."""
    return [
        pattern
        for part in text.split(",")
        for pattern in (_pure_patterns() if part == "pure" else [part])
    ]


def _pure_patterns() -> list[str]:
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    modules = next(
        contract["source_modules"] for contract in contracts if contract["name"] == CONTRACT_NAME
    )
    paths = [module.replace(".", "/") for module in modules]
    return [pattern for path in paths for pattern in (f"{path}.py", f"{path}/*")]
