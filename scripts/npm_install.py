#!/usr/bin/env python3
"""Installs the locked npm packages into contracts/node_modules, by the machine's node or the one
from PyPI; --dev: developers' too.
"""

import sys
from pathlib import Path

from agent.artifacts import NPM_INSTALL, run_node

CONTRACTS = Path(__file__).resolve().parent.parent / "contracts"

if __name__ == "__main__":
    everything = [option for option in NPM_INSTALL if option != "--omit=dev"]
    run_node(everything if "--dev" in sys.argv[1:] else NPM_INSTALL, CONTRACTS, program="npm")
