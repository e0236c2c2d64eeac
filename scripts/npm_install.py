#!/usr/bin/env python3
"""Installs the locked npm packages into contracts/node_modules, by the machine's node or the one
from PyPI; --dev: developers' and those of futures too.
"""

import sys
from pathlib import Path

from agent.artifacts import CONTRACTS, NPM_INSTALL, PERPS, run_node

REPO = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    if "--dev" in sys.argv[1:]:
        everything = [option for option in NPM_INSTALL if option != "--omit=dev"]
        run_node(everything, REPO / CONTRACTS.in_repo, program="npm")
        run_node(everything, REPO / PERPS.in_repo, program="npm")
    else:
        run_node(NPM_INSTALL, REPO / CONTRACTS.in_repo, program="npm")
