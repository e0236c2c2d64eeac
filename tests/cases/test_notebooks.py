"""Every notebook of examples/ runs as it is written, in a kernel of its own, and shows a picture; the committed ones have no outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from agent.localchain import LocalChain
from tests.support.agents import ROOMY, agent_on, fund, yes

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
FIGURE = "application/vnd.plotly.v1+json"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[nbformat.NotebookNode]:
    """The outputs of a notebook that runs in this folder, in order; what Jupyter and IPython keep stays in the folder."""
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(folder / "kernel"))
    notebook = nbformat.read(FOLDER / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def texts(outputs: list[nbformat.NotebookNode], kind: str = "text/plain") -> str:
    return "\n".join(output.data.get(kind, "") for output in outputs if "data" in output)


def names_of_lines(outputs: list[nbformat.NotebookNode]) -> list[list[str]]:
    """The names of the lines of each figure."""
    figures = [output.data[FIGURE] for output in outputs if FIGURE in output.get("data", {})]
    return [[trace.get("name", "") for trace in figure["data"]] for figure in figures]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_is_valid_small_and_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 10_000
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_own_signal_shows_a_result_and_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = run("own_signal.ipynb", tmp_path, monkeypatch)
    assert "Backtest(2024-01-01 to 2024-03-30" in texts(outputs)
    assert any("<polyline" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert names_of_lines(outputs) == [["portfolio", "buy and hold", "drawdown"]]
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_compare_and_tune_shows_each_trigger_and_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = run("compare_and_tune.ipynb", tmp_path, monkeypatch)
    assert "recommended: tracking normal)" in texts(outputs)
    names = ["tracking rule", "band of a tenth", "each week", "function"]
    assert names_of_lines(outputs) == [[*(name for name in names for _ in ("value", "beyond holding")), "buy and hold"], [""]]
    assert [name in texts(outputs, "text/html") for name in names] == [True] * 4


def test_live_history_shows_steps_and_weights(anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent_on(anvil_chain, tmp_path, ROOMY, {"WETH": "50%", "USDC": "50%"}) as agent:
        fund(anvil_chain, {"WETH": 10_000})
        agent.rebalance(send=True, confirm=yes)
        agent.rebalance(send=True, confirm=yes)
    outputs = run("live_history.ipynb", tmp_path, monkeypatch)
    assert "AgentHistory(3 steps, newest " in texts(outputs)
    assert names_of_lines(outputs) == [["value", "WETH", "USDC"]]
