#!/usr/bin/env python3
"""Import the modules that commands import, and tests if pytest is installed, so that Python caches
their bytecode. They are a tenth of the installed modules.

Bytecode is written even if the environment disables it. Compiling the tests here saves each process
of `make test` from doing so at the same time.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import sys
from contextlib import redirect_stdout, suppress

sys.dont_write_bytecode = False
LATER = (
    "web3",
    "uniswap",
    "eth_tester",
    "eth.vm.forks",
    "keyring",
    "apprise",
    "alembic.command",
    "pip",
)
"""Modules that functions import when they run."""

import agent  # noqa: E402 after the setting above

if __name__ == "__main__":
    module_names = [
        module.name
        for module in pkgutil.walk_packages(agent.__path__, "agent.")
        if "migrations" not in module.name
    ]
    for name in (*LATER, *module_names):
        with suppress(ImportError):  # belongs to an extra that is not installed
            if name == "uniswap":
                from agent.chain.second_quote import web3_6_names

                with web3_6_names():
                    import uniswap  # noqa: F401
            elif not name.endswith("__main__"):
                importlib.import_module(name)
    with (
        suppress(ImportError),
        redirect_stdout(io.StringIO()),
    ):  # errors in tests are reported when they run
        import pytest

        pytest.main(["--collect-only"])
