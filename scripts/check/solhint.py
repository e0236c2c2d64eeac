#!/usr/bin/env python3
"""Lint our Solidity with the locked solhint; print its report, and fail on any warning."""

from pathlib import Path

from agent.artifacts import run_node

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"

if __name__ == "__main__":
    sources = sorted(
        str(path.relative_to(CONTRACTS))
        for folder in ("src", "test")
        for path in (CONTRACTS / folder).rglob("*.sol")
    )
    report = run_node(
        ["node_modules/solhint/solhint.js", "--max-warnings", "0", *sources], CONTRACTS
    ).strip()
    print(report or f"solhint: {len(sources)} files clean")
