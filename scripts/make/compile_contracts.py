"""Compile contracts/src into abis/ and contracts/test into tests/abis/ with npm's solc.

--check compares instead of writing. contracts/compiled.json records the sources of each contract and
a hash over sources and artifact. With it `outdated_contracts` finds outdated artifacts without running solc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from agent.artifacts import npm_root, run_node  # noqa: E402 the checkout, also when trimtab is not installed

ARTIFACT_FOLDER_BY_SOURCE = {
    REPO / "contracts" / "src": REPO / "abis",
    REPO / "contracts" / "test": REPO / "tests" / "abis",
}
"""Artifact folder by source folder. Attack contracts have their own, outside the wheel."""
RECORD_PATH = REPO / "contracts" / "compiled.json"
SETTINGS = {
    "optimizer": {"enabled": True, "runs": 200},
    # The oldest EVM version of any supported chain: no PUSH0, no transient storage.
    "evmVersion": "paris",
    "viaIR": False,
    # Without a metadata hash, the bytecode does not depend on paths or comments.
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
}
SETTINGS_BY_CONTRACT = {
    # It runs in every rebalance, so lower gas justifies slower compilation and longer code. Every
    # chain with Uniswap V4 has transient storage.
    "Rebalancer": {
        "optimizer": {"enabled": True, "runs": 1_000_000},
        "viaIR": True,
        "evmVersion": "cancun",
    },
}
# One solc process compiles each file on its own, so that a broken file does not hide the others. Imported contracts get no code.
DRIVER = """
const fs = require('fs'), path = require('path');
const {folders, jobs, modules} = JSON.parse(fs.readFileSync(0, 'utf8'));
const solc = require(path.join(modules, 'solc'));
let read;
const find = (wanted) => {
  for (const base of [...folders, modules]) {
    const file = path.join(base, wanted);
    if (!fs.existsSync(file)) continue;
    read.push(wanted);
    return {contents: fs.readFileSync(file, 'utf8')};
  }
  return {error: 'not found: ' + wanted};
};
const kept = ['abi', 'evm.bytecode.object', 'evm.deployedBytecode.object'];
const results = {};
for (const {name, folder, settings: rules} of jobs) {
  const file = name + '.sol';
  read = [file];
  const settings = {...rules, outputSelection: {[file]: {[name]: kept}}};
  const input = {language: 'Solidity', sources: {[file]: {content: fs.readFileSync(path.join(folder, file), 'utf8')}}, settings};
  const output = JSON.parse(solc.compile(JSON.stringify(input), {import: find}));
  const messages = (output.errors || []);
  const contract = ((output.contracts || {})[file] || {})[name];
  results[name] = {errors: messages.filter((m) => m.severity === 'error').map((m) => m.formattedMessage),
    warnings: messages.filter((m) => m.severity !== 'error').map((m) => m.formattedMessage), contract, read};
}
fs.writeSync(1, JSON.stringify({version: solc.version(), results}));
"""
LIFTOFF_OPTION = "--liftoff-only"
"""Option of V8: compile solc's WebAssembly by the fast compiler alone, since optimising it would take longer than
compiling these contracts."""


def compiler_settings(name: str) -> dict[str, Any]:
    """Return the compiler settings for a contract."""
    return SETTINGS | SETTINGS_BY_CONTRACT.get(name, {})


def fingerprint(name: str, file_names: list[str], artifact: str) -> str:
    """Return the hash over a contract's sources, settings, compiler and artifact."""
    modules = npm_root()
    hashes = []
    for file_name in file_names:
        paths = (base / file_name for base in (*ARTIFACT_FOLDER_BY_SOURCE, modules))
        source = next((path.read_bytes() for path in paths if path.is_file()), b"")
        hashes.append((file_name, hashlib.sha256(source).hexdigest()))
    solc = json.loads((modules / "solc" / "package.json").read_text(encoding="utf-8"))["version"]
    record_text = json.dumps([solc, DRIVER, compiler_settings(name), hashes, artifact])
    return hashlib.sha256(record_text.encode()).hexdigest()


def outdated_contracts() -> list[str]:
    """Return the names of contracts whose sources, settings, compiler or artifact differ from the
    record, and of records and artifacts without a source.
    """
    records = json.loads(RECORD_PATH.read_text(encoding="utf-8"))
    sources = find_sources(None)
    artifacts = {
        path.stem for folder in ARTIFACT_FOLDER_BY_SOURCE.values() for path in folder.glob("*.json")
    }
    outdated = set(records) ^ set(sources) | artifacts ^ set(sources)
    for name in sources.keys() - outdated:
        artifact = (ARTIFACT_FOLDER_BY_SOURCE[sources[name]] / f"{name}.json").read_text(
            encoding="utf-8"
        )
        if fingerprint(name, records[name]["read"], artifact) != records[name]["sha256"]:
            outdated.add(name)
    return sorted(outdated)


def compile_all(
    sources: dict[str, Path],
) -> tuple[dict[str, str], dict[str, list[str]], list[str]]:
    """Compile contracts; return artifact texts and files read, by contract name, and problems. `sources` are folders by
    contract name. A file Name.sol must contain a contract Name.
    """
    jobs = [
        {"name": name, "folder": str(folder), "settings": compiler_settings(name)}
        for name, folder in sources.items()
    ]
    request = {
        "folders": [str(folder) for folder in ARTIFACT_FOLDER_BY_SOURCE],
        "jobs": jobs,
        "modules": str(npm_root()),
    }
    compiler_output = json.loads(
        run_node([LIFTOFF_OPTION, "-e", DRIVER], REPO, stdin=json.dumps(request))
    )
    artifact_texts = {}
    files_read = {}
    problems = []
    for name, result in compiler_output["results"].items():
        problems += result["errors"]
        problems += [f"warning counts as an error: {text}" for text in result["warnings"]]
        contract = result.get("contract")
        if contract is None or result["errors"]:
            if not result["errors"]:
                problems.append(f"{name}.sol holds no contract {name}")
            continue
        artifact = {
            "abi": contract["abi"],
            "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
            "deployedBytecode": "0x" + contract["evm"]["deployedBytecode"]["object"],
            "compiler": {
                "version": compiler_output["version"],
                "settings": compiler_settings(name),
            },
        }
        artifact_texts[name] = json.dumps(artifact, indent=1) + "\n"
        files_read[name] = result["read"]
    return artifact_texts, files_read, problems


def find_sources(contract_names: list[str] | None) -> dict[str, Path]:
    """Return the folder of each contract by name, sorted. Exits if two folders have the same name."""
    folders: dict[str, Path] = {}
    for folder in ARTIFACT_FOLDER_BY_SOURCE:
        for path in folder.glob("*.sol"):
            if path.stem in folders:
                raise SystemExit(f"{path.stem}.sol is in two folders")
            folders[path.stem] = folder
    return {
        name: folders[name]
        for name in sorted(folders)
        if contract_names is None or name in contract_names
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with the artifacts and write nothing"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this contract only; may be repeated"
    )
    options = parser.parse_args()
    sources = find_sources(options.only)
    artifact_texts, files_read, problems = compile_all(sources)
    records = json.loads(RECORD_PATH.read_text(encoding="utf-8")) if RECORD_PATH.is_file() else {}
    new_records = {
        name: {"read": files_read[name], "sha256": fingerprint(name, files_read[name], text)}
        for name, text in artifact_texts.items()
    }
    for name, text in artifact_texts.items():
        path = ARTIFACT_FOLDER_BY_SOURCE[sources[name]] / f"{name}.json"
        if not options.check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            problems.append(f"{path.relative_to(REPO)} differs from what {name}.sol compiles to")
        elif records.get(name) != new_records[name]:
            problems.append(f"{name}: differs from {RECORD_PATH.relative_to(REPO)}")
    if not options.check:
        all_records = {
            name: record for name, record in records.items() if name in find_sources(None)
        } | new_records
        RECORD_PATH.write_text(
            json.dumps(all_records, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
    for problem in problems:
        print(problem, file=sys.stderr)
    print(
        f"{'compared' if options.check else 'compiled'} {len(artifact_texts)} of {len(sources)} contracts"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
