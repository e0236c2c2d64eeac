"""Documents of set-up and monitoring (init, templates, profiles, wallet keys, doctor, trust, alerts,
localchain, demo) and of errors.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from agent.accounting.export import format_utc
from agent.app.documents import Address, ConvertedBy, Decimal, Of, one_of
from agent.app.documents.futures import (
    FundingDocument,
    FuturesPositionsDocument,
    MarginDocument,
)
from agent.app.documents.owner import ContractDocument, EditDocument
from agent.app.documents.plans import (
    EndpointDocument,
    PlanDocument,
    RebalanceDocument,
    VerdictDocument,
)
from agent.app.documents.status import LeastTotalDocument, StatusDocument

Moment = Annotated[str, ConvertedBy(lambda at_s, _: format_utc(at_s))]
TokenPlace = Annotated[str, Field(pattern=r"^(native|0x[0-9a-fA-F]{40})$")]
"""Address of a token, or "native"."""
TrustDocument = TypedDict(
    "TrustDocument", {"block": int, "pinned": bool, "contracts": list[ContractDocument]}
)
QuietHoursDocument = TypedDict(
    "QuietHoursDocument", {"hours": str, "timezone": str | None, "urgent": list[str]}
)
FailureDocument = TypedDict("FailureDocument", {
    "kind": str, "message": str, "remedy": str, "exit": int,
    "code": NotRequired[str], "verdicts": NotRequired[list[VerdictDocument]],
    "proposal": NotRequired[dict[str, Any]],
})  # fmt: skip
"""An error: kind, message, remedy, exit code, and the code of its cause if it has one. A proposal
that awaits its signer adds its file.
"""
NewAssetDocument = TypedDict("NewAssetDocument", {
    "symbol": str, "address": str, "target": str, "feed": Address | None,
})  # fmt: skip
InitDocument = TypedDict("InitDocument", {
    "config": str, "chain_id": int, "token_list_sha256": str | None, "template": str | None,
    "numeraire": str, "numeraire_usd": Decimal, "least_total": list[LeastTotalDocument],
    "assets": list[NewAssetDocument], "warnings": list[str], "next": list[str],
})  # fmt: skip
PastResultDocument = TypedDict("PastResultDocument", {
    "from": str, "until": str, "return": str, "return_of_holding": str, "max_drawdown": str,
    "max_drawdown_of_holding": str, "rebalances": int, "costs": str, "basis": str,
})  # fmt: skip
"""Back-test of a basket on the packaged prices: ratios as decimal strings, `costs` in the
numeraire. It says nothing about the future.
"""
TemplateTokenDocument = TypedDict(
    "TemplateTokenDocument", {"symbol": str, "address": TokenPlace, "target": str}
)
TemplateDocument = TypedDict("TemplateDocument", {
    "name": str, "about": str, "shares_bps": dict[str, int],
    "tokens": list[TemplateTokenDocument], "policy": dict[str, Any], "limits": dict[str, Any],
    "weights": dict[str, Any] | None, "todo": str, "futures_notional": str | None,
    "past": PastResultDocument | None,
})  # fmt: skip
"""A portfolio template; policy, limits and weights are config tables."""
TemplatesDocument = TypedDict("TemplatesDocument", {
    "network": str, "chain_id": int, "templates": list[TemplateDocument], "futures": str,
})  # fmt: skip
ExportedProfileDocument = TypedDict("ExportedProfileDocument", {
    "profile": str, "sha256": str, "chain_id": int, "left_out": list[str],
})  # fmt: skip
ProfileAssetDocument = TypedDict("ProfileAssetDocument", {
    "symbol": str, "address": TokenPlace, "source": str, "profile_address": TokenPlace | None,
    "differs": bool, "feed": Address | None, "before_bps": int | None, "after_bps": int | None,
})  # fmt: skip
DroppedAssetDocument = TypedDict("DroppedAssetDocument", {
    "symbol": str, "address": TokenPlace, "before_bps": int | None,
})  # fmt: skip
PolicyChangeDocument = TypedDict("PolicyChangeDocument", {"key": str, "before": str, "after": str})
ProfileLimitDocument = TypedDict("ProfileLimitDocument", {
    "key": str, "yours": str, "profile": str, "taken": bool, "why": str,
})  # fmt: skip


class ImportedProfileDocument(EditDocument):
    """Changes of an imported profile, with the transition of `edit`."""

    profile: str
    sha256: str
    config: str
    chain_id: int
    assets: list[ProfileAssetDocument]
    left_alone: list[DroppedAssetDocument]
    policy: list[PolicyChangeDocument]
    limits: list[ProfileLimitDocument]
    notes: list[str]
    past: PastResultDocument | None


NewKeyDocument = TypedDict("NewKeyDocument", {
    "address": Address, "keystore": str | None, "keyring": str | None, "warnings": list[str],
    "config": list[str],
})  # fmt: skip
"""A new key's places, and the lines of the config that name it."""
AgentApprovalDocument = TypedDict("AgentApprovalDocument", {
    "outcome": Annotated[str, one_of("planned", "declined", "done")], "account": Address,
    "network": str, "name": str, "agent": Address | None, "key": str, "until": str,
    "replaces": Address | None, "kept": str | None,
})  # fmt: skip
"""Approval of an agent's key at a futures venue: `agent` is None until the key is created, `key` is
its location, `until` the end of the approval in UTC, `replaces` the agent that currently has the
name, `kept` the file that an older key was moved to.
"""
KeyAddressDocument = TypedDict("KeyAddressDocument", {
    "address": Address, "verified": bool, "keystore": NotRequired[str],
    "keyring": NotRequired[str], "config": NotRequired[str],
})  # fmt: skip
NewPasswordDocument = TypedDict(
    "NewPasswordDocument", {"address": Address, "keystore": str, "warnings": list[str]}
)


class ProbedEndpointDocument(EndpointDocument):
    """Record of an endpoint with its head, None if the probe failed or the endpoint lags."""

    head: int | None


OK, NOTE, FAIL = "ok", "warn", "fail"
CheckLine = tuple[str, str, str, str]
"""(check, state, finding, remedy)."""
CheckDocument = TypedDict("CheckDocument", {
    "check": str, "state": Annotated[str, one_of(OK, NOTE, FAIL)], "found": str, "remedy": str,
})  # fmt: skip
DoctorDocument = TypedDict("DoctorDocument", {
    "endpoints": list[ProbedEndpointDocument], "checks": list[CheckDocument], "exit": int,
})  # fmt: skip
"""All checks; `exit` is the exit code of the first that fails."""
AssetAlertDocument = TypedDict("AssetAlertDocument", {
    "symbol": str, "price": Decimal | None, "alert_low": Decimal | None,
    "alert_high": Decimal | None, "to_low_bps": int | None, "to_high_bps": int | None,
    "weight_bps": int, "band_bps": list[int], "side": str,
})  # fmt: skip
AlertTargetDocument = TypedDict("AlertTargetDocument", {
    "name": str, "ready": bool, "url_env": str, "events": list[str],
    "delivered": Annotated[Moment | None, Of("delivered_s")],
    "failed": Annotated[Moment | None, Of("failed_s")],
    "failures_in_row": Annotated[int, Of("failures")], "why": str, "waiting": int, "lost": int,
})  # fmt: skip


class AlertDocument(TypedDict):
    key: str
    event: Annotated[str, Of("kind")]
    text: str
    since: Annotated[Moment | None, Of("since_s")]
    told: Annotated[Moment | None, Of("told_s")]
    waits: Annotated[bool, ConvertedBy(lambda untold, _: untold > 0), Of("untold")]


AlertsDocument = TypedDict("AlertsDocument", {
    "block": int, "assets": list[AssetAlertDocument], "events": list[str],
    "quiet": QuietHoursDocument | None, "cooldown_s": int, "targets": list[AlertTargetDocument],
    "forgotten_targets": list[str], "open": list[AlertDocument], "last": list[AlertDocument],
})  # fmt: skip
TestedTargetDocument = TypedDict("TestedTargetDocument", {
    "name": str, "delivered": bool, "why": str,
})  # fmt: skip
AlertTestDocument = TypedDict("AlertTestDocument", {
    "reached": bool, "targets": list[TestedTargetDocument],
})  # fmt: skip
LocalChainDocument = TypedDict("LocalChainDocument", {
    "chain_id": int, "url": str | None, "wallet": Address, "tokens": dict[str, Address],
    "pools": dict[str, Address], "feeds": dict[str, Address], "config": str | None,
})  # fmt: skip
DashboardDocument = TypedDict("DashboardDocument", {"url": str})
"""Address at which the dashboard answers."""
TokenDocument = TypedDict("TokenDocument", {
    "id": str, "name": str, "scopes": list[str], "created": str, "expires": str,
    "state": Annotated[str, one_of("active", "expired", "revoked")],
})  # fmt: skip
TokensDocument = TypedDict("TokensDocument", {"tokens": list[TokenDocument]})


class NewTokenDocument(TokenDocument):
    """A new token of the API with its text, which is shown once."""

    token: str


NewUserDocument = TypedDict(
    "NewUserDocument", {"user": str, "read_only": bool, "secret": str, "otpauth": str}
)
"""A new user of the dashboard with the secret of its one-time codes, which is shown once."""
UserDocument = TypedDict(
    "UserDocument", {"user": str, "read_only": bool, "created": str, "locked_s": int}
)
UsersDocument = TypedDict("UsersDocument", {"users": list[UserDocument]})
RemovedUserDocument = TypedDict("RemovedUserDocument", {"removed": str})
UserEventDocument = TypedDict(
    "UserEventDocument", {"time": str, "event": str, "user": str, "address": str, "detail": str}
)
UserLogDocument = TypedDict("UserLogDocument", {"events": list[UserEventDocument]})
DemoDocument = TypedDict("DemoDocument", {
    "before": StatusDocument, "moves": dict[str, str], "drifted": StatusDocument,
    "plan": PlanDocument, "rebalance": RebalanceDocument, "after": StatusDocument,
    "next": PlanDocument,
})  # fmt: skip
UntouchedDocument = TypedDict("UntouchedDocument", {
    "leverage": Decimal | None, "is_liquidated": bool,
})  # fmt: skip
"""The initial positions before any reduction: their leverage, and whether liquidators close them.
"""
CrashDocument = TypedDict("CrashDocument", {
    "moves": dict[str, str], "margin": MarginDocument, "rebalance": RebalanceDocument,
    "after": MarginDocument, "untouched": UntouchedDocument,
})  # fmt: skip
FuturesDemoDocument = TypedDict("FuturesDemoDocument", {
    "before": StatusDocument, "opened": RebalanceDocument, "positions": FuturesPositionsDocument,
    "crashes": list[CrashDocument], "funding": FundingDocument, "final": StatusDocument,
    "left": FuturesPositionsDocument,
})  # fmt: skip
ErrorDocument = TypedDict("ErrorDocument", {"error": FailureDocument})
