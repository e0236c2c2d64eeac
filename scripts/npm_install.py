#!/usr/bin/env python3
"""Installs the locked npm packages into contracts/node_modules, by the machine's node or the one from PyPI."""

from pathlib import Path

from agent.artifacts import run_node

CONTRACTS = Path(__file__).resolve().parent.parent / "contracts"

if __name__ == "__main__":
    run_node(["install", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"], CONTRACTS, program="npm")
