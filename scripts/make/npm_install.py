#!/usr/bin/env python3
"""Install the locked npm packages into contracts/node_modules, with the machine's node or that of
PyPI; --dev adds the packages of developers and of futures.
"""

import sys
from pathlib import Path

from agent.artifacts import CONTRACTS_MANIFEST, NPM_INSTALL, PERPS_MANIFEST, run_node

REPO = Path(__file__).resolve().parents[2]

if __name__ == "__main__":
    if "--dev" in sys.argv[1:]:
        developer_options = [option for option in NPM_INSTALL if option != "--omit=dev"]
        run_node(developer_options, REPO / CONTRACTS_MANIFEST.repo_path, program="npm")
        run_node(developer_options, REPO / PERPS_MANIFEST.repo_path, program="npm")
    else:
        run_node(NPM_INSTALL, REPO / CONTRACTS_MANIFEST.repo_path, program="npm")
