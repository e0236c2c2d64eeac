"""What a paper step sees: the real chain, with the paper wallet in the place of the real one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from agent.errors import Retryable
from agent.model import Allowance, Evidence, Head, Holding, PastPrices, Plan, Snapshot, StepInput
from agent.paper.chain import PaperChain
from agent.ports import EvidenceSource, Reader


class PaperReader:
    """ports.Reader. It carries nothing out: what waits stays waiting."""

    def __init__(self, reader: Reader, chain: PaperChain) -> None:
        """`reader` reads the real chain."""
        self._reader = reader
        self._chain = chain

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Raises Retryable while the endpoints are behind the block that the wallet last traded in."""
        found, state = self._chain.snapshot(), self._chain.state()
        if found.head.number < state.block:
            raise Retryable(f"the endpoints agree on block {found.head.number} only, which is behind our transaction in {state.block}")
        held = {holding.token: holding.raw for holding in state.balances}
        allowed = {(one.token, one.spender): one.raw for one in state.allowances}
        return replace(
            found,
            native_wei=state.native_wei,
            nonce_latest=state.nonce,
            nonce_pending=state.nonce + len(state.waiting),
            holdings=tuple(Holding(holding.token, held.get(holding.token, 0)) for holding in found.holdings),
            allowances=tuple(Allowance(one.token, one.spender, allowed.get((one.token, one.spender), 0)) for one in found.allowances),
            positions=(),
        )

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return self._reader.past(head, blocks)

    def deeper(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader. What is planned on them is carried out on more ticks of a later snapshot too."""
        return self._reader.deeper(snapshot, pools)


class PaperEvidence:
    """ports.EvidenceSource: tokens are tried out with what the real wallet has and allows, since the chain knows no other."""

    def __init__(self, source: EvidenceSource, chain: PaperChain) -> None:
        """`source` asks the real chain."""
        self._source = source
        self._chain = chain

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """See ports.EvidenceSource."""
        real = self._chain.real(step.snapshot.head.hash)
        held, allowed = ((), ()) if real is None else (real.holdings, real.allowances)
        return self._source.gather(replace(step, snapshot=replace(step.snapshot, holdings=held, allowances=allowed)), plan)
