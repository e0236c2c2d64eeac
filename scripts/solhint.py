#!/usr/bin/env python3
"""Lints our Solidity by the locked solhint; prints its report and fails on any warning."""

from pathlib import Path

from agent.artifacts import run_node

CONTRACTS = Path(__file__).resolve().parent.parent / "contracts"

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
