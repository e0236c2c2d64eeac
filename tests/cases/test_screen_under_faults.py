"""What a node fails to answer about one token is not the token's fault: it is asked once more, then the step ends and nothing is traded
(T37).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.artifacts import own_artifact
from agent.chain.rpc import RpcFault
from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from tests.support.agents import ROOMY, fund, off_target, purse, reopened_agent, trusted_config, yes
from tests.support.fakes.transport import RecordingTransport
from tests.support.samples import slow

TARGETS = {"WETH": "40%", "WBTC": "20%", "USDC": "25%", "USDT": "15%"}
FAULTS: dict[str, object] = {
    "header-not-found": RpcFault(-32000, "header not found"),
    "internal-error": RpcFault(-32603, "Internal error"),
    "no-method": RpcFault(-32601, "the method eth_call does not exist or is not available"),
    "timeout": RpcFault(-32000, "execution aborted (timeout = 5s)"),
    "missing-state": RpcFault(-32000, "missing trie node 5a1f (path ) state is not available", "0x"),
    "null": None,
    "no-data": "0x",
    "page": "<html>502 Bad Gateway</html>",
}
RATE_LIMIT = RpcFault(-32005, "daily request count exceeded, request rate limited")


@dataclass
class FakeFault:
    """Answers `answer` to calls of one token: the trials of the screen, or its single calls; at most `times` times."""

    token: str
    answer: object
    part: str
    times: int

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        if method != "eth_call" or self.times <= 0 or not self._is_meant(params[0]):
            return answer
        self.times -= 1
        return self.answer

    def _is_meant(self, call: dict[str, Any]) -> bool:
        if self.part == "trials":
            data = str(call.get("data", ""))
            return data.startswith(own_artifact("TokenScreen").bytecode) and self.token[2:].lower() in data.lower()
        return "from" in call and call.get("to") == self.token and str(call["data"]).startswith("0xa9059cbb")


OFTEN = [("header-not-found", "trials"), ("header-not-found", "single-calls"), ("null", "single-calls"), ("no-data", "trials")]
RARELY = [(fault, part) for fault in FAULTS for part in ("trials", "single-calls") if (fault, part) not in OFTEN]
RARELY.remove(("no-data", "single-calls"))  # what tokens without return values answer


@pytest.mark.parametrize(("fault", "part"), [*OFTEN, *slow(RARELY)])
def test_fault_about_one_token__ends_the_step_unquarantined(chain: LocalChain, tmp_path: Path, fault: str, part: str) -> None:
    fund(chain, {"WETH": 60_000, "WBTC": 20_000, "USDC": 10_000, "USDT": 10_000})
    before = purse(chain)
    node_fault = FakeFault(chain.tokens["WETH"].address, FAULTS[fault], part, 10**6)
    with reopened_agent(
        chain, trusted_config(chain, tmp_path, ROOMY, TARGETS), [RecordingTransport(chain.transport, "liar", node_fault)]
    ) as agent:
        with pytest.raises(Retryable, match="token screen"):
            agent.rebalance(send=True, confirm=yes)
        assert purse(chain) == before
        node_fault.times = 1
        outcome = agent.rebalance(send=True, confirm=yes)
        assert node_fault.times == 0, "one fault was met"
        assert outcome.kind is OutcomeKind.DONE, outcome.reason
        assert outcome.step_input.targets.quarantined_tokens == ()
        assert max(off_target(chain, TARGETS).values()) < 60


def test_a_rate_limit_ends_the_step_without_another_request(chain: LocalChain, tmp_path: Path) -> None:
    fund(chain, {"WETH": 60_000, "WBTC": 20_000, "USDC": 10_000, "USDT": 10_000})
    node_fault = FakeFault(chain.tokens["WETH"].address, RATE_LIMIT, "trials", 1)
    with reopened_agent(
        chain, trusted_config(chain, tmp_path, ROOMY, TARGETS), [RecordingTransport(chain.transport, "liar", node_fault)]
    ) as agent:
        with pytest.raises(Retryable, match="rate limited"):
            agent.rebalance(send=True, confirm=yes)
        assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.DONE
