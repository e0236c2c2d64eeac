"""The wheel in environments of its own: each command works, or names the extra that it lacks; reports need no npm."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from agent.config.load import load_config
from agent.store import open_store
from agent.web.pages import PAGES, STATIC_FILES
from scripts.check.check_install import PYTHONS, interpreter
from tests.cli.tools import first_document
from tests.support import agents
from tests.support.worlds import missing

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
BACKTEST = ("backtest", "--sample", "--target", "BTC=50,ETH=30,USD=20", "--band", "10%rel")


@dataclass(frozen=True)
class WheelEnvironment:
    """An environment with the wheel, and a home of its own."""

    folder: Path
    home_name: str = "home"

    @property
    def home(self) -> Path:
        return self.folder / self.home_name

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`trimtab` to its end."""
        process = self.start(*words)
        out, err = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`trimtab` with nothing of this checkout or of the machine's node in reach."""
        self.home.mkdir(exist_ok=True)
        places = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), "PATH": str(self.folder / "bin")}
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))}
        program = [str(self.folder / "bin" / "trimtab"), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(program, cwd=self.home, env={**variables, **places}, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(ROOT)], check=True)
    return next(folder.glob("trimtab-*.whl"))


def environment(folder: Path, *program_name: str, python: str = sys.executable) -> WheelEnvironment:
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
    done = subprocess.run([*uv, *program_name], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing(f"the packages cannot be had: {done.stderr[-300:]}")
    return WheelEnvironment(folder)


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> WheelEnvironment:
    return environment(tmp_path_factory.mktemp("core"), str(wheel), "--constraint", "locks/requirements.lock")


@pytest.fixture(scope="module")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> WheelEnvironment:
    return environment(tmp_path_factory.mktemp("whole"), f"trimtab[local,analysis] @ {wheel}", "--constraint", "locks/requirements.lock")


@pytest.fixture(scope="module")
def dashboard(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> WheelEnvironment:
    return environment(tmp_path_factory.mktemp("dashboard"), f"trimtab[dashboard] @ {wheel}", "--constraint", "locks/requirements.lock")


def test_the_wheel_holds_templates_styles_and_scripts(wheel: Path) -> None:
    web = {str(path.relative_to(ROOT)) for path in (ROOT / "agent" / "web").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {"agent/web/templates/base.html", "agent/web/templates/report.html", "agent/web/static/report.css"} <= web
    pages = {f"agent/_data/docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert web | pages | {"agent/py.typed"} <= names
    assert ("agent/_data/site/refusals.html" in names) == (ROOT / "build" / "site" / "index.html").is_file()


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("demo",), "trimtab[local]"),
        (BACKTEST, "trimtab[analysis]"),
        ((*BACKTEST, "--html", "report.html"), "trimtab[analysis]"),
        (("stress", "--sample", "--target", "BTC=50,USD=50", "--band", "10%rel"), "trimtab[analysis]"),
        (("serve",), "trimtab[dashboard]"),
        (("serve", "--setup"), "trimtab[dashboard]"),
        (("mcp",), "trimtab[mcp]"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_core_names_the_extra_that_a_command_lacks(core: WheelEnvironment, command: tuple[str, ...], extra: str) -> None:
    done = core.run(*command)
    assert done.returncode != 0
    assert extra in done.stderr
    assert "Traceback" not in done.stderr


def test_core_is_trimtab_with_web3_7_and_without_scipy(core: WheelEnvironment) -> None:
    assert core.run("--version").stdout.startswith("trimtab ")
    packages = {path.name for path in core.folder.glob("lib/python*/site-packages/*.dist-info")}
    assert any(package.startswith("web3-7.") for package in packages), packages
    names = {package.split("-")[0] for package in packages}
    assert "trimtab" in names
    assert not names & {"scipy", "pytest", "hatchling", "uniswap_python", "eth_tester"}


def test_the_demo_runs_from_the_wheel(whole: WheelEnvironment) -> None:
    done = whole.run("demo")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Uniswap contracts" in done.stdout


def test_a_backtest_draws_its_page_from_the_wheel_without_npm(whole: WheelEnvironment) -> None:
    """In a home of its own, since the demo's has the npm packages."""
    fresh = replace(whole, home_name="home without npm")
    done = fresh.run(*BACKTEST, "--html", "report.html")
    assert done.returncode == 0, done.stderr[-2000:]
    page = (fresh.home / "report.html").read_text()
    assert "plotly.js" in page
    assert not (fresh.home / "cache" / "trimtab" / "npm").exists()


def test_the_dashboard_serves_its_pages_and_files_from_the_wheel(dashboard: WheelEnvironment, tmp_path: Path) -> None:
    loaded = load_config(agents.config(tmp_path))
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    process = dashboard.start("serve", "--port", "0", "--json", "--config", str(loaded.path))
    try:
        address = first_document(process)["url"]
        for page in PAGES:
            text = urlopen(address.rstrip("/") + page.path).read().decode()
            names = set(re.findall(r'"/static/([^"]+)"', text))
            assert {"dashboard.css", "dashboard.js"} <= names <= set(STATIC_FILES), page
            assert not re.findall(r"(?:https?:)?//[a-z]", text), page
        for name in STATIC_FILES:
            assert urlopen(f"{address}static/{name}").read() == (ROOT / "agent" / "web" / "static" / name).read_bytes()
        assert urlopen(f"{address}api/v1/openapi.json").read() == (ROOT / "agent" / "web" / "api" / "openapi.json").read_bytes()
    finally:
        process.terminate()
        _, output = process.communicate()
    assert process.returncode == 0, output


EXTRAS = "local,analysis,dashboard,mcp"
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


@pytest.fixture(scope="module", params=PYTHONS)
def everything(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> WheelEnvironment:
    """The wheel with all that is played below, on each Python that this machine has."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} on this machine")
    folder = tmp_path_factory.mktemp(f"python{request.param}")
    return environment(folder, f"trimtab[{EXTRAS}] @ {wheel}", "--constraint", "locks/requirements.lock", python=python)


def test_each_python_plays_demo_and_backtest(everything: WheelEnvironment) -> None:
    demo = everything.run("demo")
    assert demo.returncode == 0, demo.stderr[-2000:]
    assert "Uniswap contracts" in demo.stdout
    backtest = everything.run(*BACKTEST, "--html", "report.html")
    assert backtest.returncode == 0, backtest.stderr[-2000:]
    assert "plotly.js" in (everything.home / "report.html").read_text()


def test_each_python_serves_pages_and_an_assistant(everything: WheelEnvironment, tmp_path: Path) -> None:
    loaded = load_config(agents.config(tmp_path))
    open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native).close()
    config = ("--config", str(loaded.path))
    process = everything.start("serve", "--port", "0", "--json", *config)
    try:
        address = first_document(process)["url"]
        assert b"trimtab" in urlopen(address).read()
        assert urlopen(f"{address}api/v1/openapi.json").status == 200
    finally:
        process.terminate()
        _, output = process.communicate()
    assert process.returncode == 0, output
    requests = [
        {"id": 1, "method": "initialize", "params": HELLO},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {"id": 3, "method": "tools/call", "params": {"name": "history", "arguments": {"limit": 1}}},
    ]
    assistant = everything.start("mcp", *config)
    answer_by_id = {}
    pending_ids = {1, 2, 3}
    assert assistant.stdin is not None
    assert assistant.stdout is not None
    try:
        for message in requests:
            assistant.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            assistant.stdin.flush()
            while message.get("id") in pending_ids:
                answer = json.loads(assistant.stdout.readline())
                answer_by_id[answer.get("id")] = answer.get("result")
                pending_ids.discard(answer.get("id"))
    finally:
        assistant.stdin.close()
        errors = assistant.stderr.read() if assistant.stderr is not None else ""
    assert assistant.wait() == 0, errors
    assert {"status", "history"} <= {tool["name"] for tool in answer_by_id[2]["tools"]}
    assert not answer_by_id[3].get("isError"), answer_by_id[3]
