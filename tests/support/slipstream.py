"""Aerodrome Slipstream's contracts, compiled from the sources of an npm package by the compiler that they name.

The package, sphere-mezo-solidity-files, is pinned by hash in contracts/package-lock.json, for tests alone; nothing of it is in this
repository. Its files say GPL-2.0-or-later or MIT, an interface and the licence of the whole project BUSL-1.1. SOURCES differ from the
public repository, aerodrome-finance/slipstream at 7844368, in paths of imports only.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

from filelock import FileLock

from agent.artifacts import Artifact, npm_root, run_node

PACKAGE = "sphere-mezo-solidity-files"
SOURCES = {
    "CLPool": "contracts/core/CLPool.sol",
    "CLFactory": "contracts/core/CLFactory.sol",
    "QuoterV2": "contracts/periphery/lens/QuoterV2.sol",
    "DynamicSwapFeeModule": "contracts/core/fees/DynamicSwapFeeModule.sol",
    "CustomSwapFeeModule": "contracts/core/fees/CustomSwapFeeModule.sol",
}
DRIVER = """
const fs = require('fs'), path = require('path');
const {modules, folder, sources} = JSON.parse(fs.readFileSync(0, 'utf8'));
const solc = require(path.join(modules, 'solc-0.7'));
const contents = (file) => ({content: fs.readFileSync(path.join(folder, file), 'utf8')});
const input = {language: 'Solidity', sources: Object.fromEntries(Object.values(sources).map((file) => [file, contents(file)])),
  settings: {optimizer: {enabled: true, runs: 1}, metadata: {bytecodeHash: 'none'},
    outputSelection: {'*': {'*': ['abi', 'evm.bytecode.object']}}}};
const find = (file) => ({contents: contents(file).content});
const {contracts, errors} = JSON.parse(solc.compile(JSON.stringify(input), {import: find}));
const failed = (errors || []).filter((e) => e.severity === 'error');
if (failed.length) throw new Error(failed[0].formattedMessage);
const compiled = Object.entries(sources).map(([name, file]) => [name, contracts[file][name]]);
fs.writeSync(1, JSON.stringify(Object.fromEntries(compiled.map(([name, c]) => [name, [c.abi, '0x' + c.evm.bytecode.object]]))));
"""


@lru_cache
def slipstream_artifacts() -> dict[str, Artifact]:
    """Return ABI and creation code of SOURCES by name. They are compiled once, and kept beside the packages."""
    modules = npm_root()
    folder = modules / PACKAGE / "domains" / "aerodrome-slipstream"
    request = json.dumps({"modules": str(modules), "folder": str(folder), "sources": SOURCES})
    installed = (modules / ".package-lock.json").read_bytes()
    name = hashlib.sha256(installed + DRIVER.encode() + json.dumps(SOURCES).encode()).hexdigest()[:16]
    cache = modules / ".cache" / "trimtab" / f"slipstream-{name}.json"
    cache.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cache}.lock"):
        if not cache.is_file():
            cache.write_text(run_node(["-e", DRIVER], modules, stdin=request))
    return {contract: Artifact(abi, code) for contract, (abi, code) in json.loads(cache.read_text()).items()}
