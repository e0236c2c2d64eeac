"""Controls of the dashboard: forms, the plan that each confirms, and submission to the queue."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fastapi.requests import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from agent.errors import Retryable, TrimtabError
from agent.model import ControlKind, ControlOrigin, ControlSubmission
from agent.web.access import (
    Access,
    RefusedRequest,
    matches_token,
    read_session_form,
    secret_refusal,
)
from agent.web.app_modules import alert_channels, edit_backtests, profiles, queue, shown_plans
from agent.web.document_cache import CacheProcess, DocumentCache
from agent.web.pages import CONTROL_PAGE, REVIEW_PAGE, Renderer
from agent.web.probes import documents_with_run
from agent.web.reading import AppProcess, Documents
from agent.web.sessions import PlanReview, Session

BACKTEST_TIMEOUT_S = 300.0
"""Maximum duration of a backtest, which is then aborted."""
MAX_BACKTESTS = 4
"""Backtests running or waiting; more are refused."""
BACKTEST_NICENESS = 19
"""A backtest that takes minutes must not delay a cycle of the agent or a page."""
MAX_REVIEWS = 8
"""Reviews kept per session; a further one drops the oldest."""
IMMEDIATE_KINDS = frozenset({"pause", "resume", "device"})
"""Kinds that take effect without a plan to confirm."""
ASSET_FIELDS = (
    "stop_loss",
    "take_profit",
    "trailing_stop",
    "entry",
    "alert_above",
    "alert_below",
    "band",
)
"""Keys of an asset that the form of its orders sets."""
TARGET_NAME_FIELD = "alert-target"
VARIABLE_FIELD = "url_env"
EVENT_FIELD = "event"
"""Fields of the form of an alert target: its name, the variable of its address, and each event."""
VARIABLE_PATTERN = re.compile("[A-Za-z_][A-Za-z0-9_]{0,49}")
"""Shorter than the config allows: what is longer is rather a key, which no page repeats."""
VARIABLE_ERROR = (
    "Variable: not the name of an environment variable. Write the address into .env beside the"
    " config, and its name here, such as TRIMTAB_MAIL."
)
PROFILE_FIELD = "profile"
"""Field with the text of a profile, in place of the arguments that follow from it."""
LONG_TEXT_FIELDS = frozenset({PROFILE_FIELD, "reason"})
"""Fields whose words are no recovery phrase, and which may name hashes: no reason keeps a pause from
being carried out."""
FIELDS_BY_KIND: Mapping[str, Sequence[str]] = {
    "pause": ("reason", "hard"),
    "resume": (),
    "rebalance": (),
    "confirm": (),
    "invest": (),
    "withdraw": ("amount", "in", "pro-rata", "to", "again"),
    "edit": (
        "in-slices",
        "set",
        "asset",
        *ASSET_FIELDS,
        PROFILE_FIELD,
        TARGET_NAME_FIELD,
        VARIABLE_FIELD,
        EVENT_FIELD,
    ),
    "stop": ("to-stable", "send-to"),
    "device": ("remove", "endpoint", "key", "auth", "page"),
    "holdings": ("apply", "deposits-to", "take", "forget"),
}
"""Fields of the forms of each kind, named like the arguments of the control; `asset` is the symbol
to which ASSET_FIELDS belong.
"""
TARGET_PREFIX = "target"
SETTING_PREFIX = "set"
PRESENT_VALUE_PREFIX = "was"
"""Prefixes of the fields of a target by symbol, a setting by key, and its present value."""


async def read_control_form(
    request: Request, access: Access
) -> tuple[Session, dict[str, list[str]]]:
    """Return session and fields of a form that a user who may control sent. Raises
    RefusedRequest.
    """
    session, fields = await read_session_form(request)
    if session.read_only:
        path = request.scope["path"]
        with suppress(TrimtabError):
            await access.record_event(
                "control_refused", session.name, request.scope["address"], f"{path} read-only"
            )
        raise RefusedRequest(403, "403: this user is read-only\n")
    return session, fields


class ControlPages:
    """The page of controls, and reviews, which are kept on the server with their session."""

    def __init__(self, access: Access, cache: DocumentCache, renderer: Renderer) -> None:
        self._access = access
        self._cache = cache
        self._renderer = renderer
        self._plan_process = AppProcess()
        self._backtest_process = AppProcess(BACKTEST_NICENESS)
        self._alert_process = AppProcess()
        self._plan_lock = asyncio.Lock()
        self._backtest_lock = asyncio.Lock()
        self._alert_lock = asyncio.Lock()
        self._backtest_count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End the processes that plan, backtest and test alert targets."""
        for task in self._tasks:
            task.cancel()
        self._plan_process.stop()
        self._backtest_process.stop()
        self._alert_process.stop()

    async def show_controls(self, request: Request) -> Response:
        """Answer with the page of controls."""
        session: Session | None = request.scope["session"]
        if session is None:
            raise RefusedRequest(404, "404: no such page\n")
        cache = self._cache
        cache.follow(queue.dashboard_controls)
        cache.read_if_old(*CONTROL_PAGE.read_functions)
        # start the process of controls now, so that a pause does not wait for its start
        self._run_task(self._warm_up())
        html = self._renderer.render_page(
            CONTROL_PAGE, documents_with_run(cache), cache.read_errors, cache.version, session
        )
        return HTMLResponse(html)

    async def handle_form(self, request: Request) -> Response:
        """Answer a form: carry out what needs no plan at once, show anything else with its plan to
        confirm.
        """
        session, fields = await read_control_form(request, self._access)
        kind = request.path_params["kind"]
        if kind not in FIELDS_BY_KIND:
            raise RefusedRequest(404, "404: no such control\n")
        review = requested_review(kind, fields)
        is_immediate = kind in IMMEDIATE_KINDS or (review.on_paper and not review.asks_on_paper)
        if is_immediate and not review.error:
            await self._submit(request, session, review, "")
            if not review.error:
                return RedirectResponse("/controls", 303)
        elif not review.error:
            self._run_task(self._warm_up())
            if not review.asks_on_paper:
                self._run_task(self._plan(review))
        review_id = secrets.token_urlsafe(16)
        while len(session.reviews) >= MAX_REVIEWS:
            session.reviews.pop(next(iter(session.reviews))).is_dropped = True
        session.reviews[review_id] = review
        return RedirectResponse(f"/controls/review/{review_id}", 303)

    async def show_review(self, request: Request) -> Response:
        """Answer with the page of a review."""
        session: Session | None = request.scope["session"]
        review = None if session is None else session.reviews.get(request.path_params["review"])
        if review is None:
            raise RefusedRequest(404, "404: no such request, or an old one; ask again\n")
        return self._review_page(request, review, 200)

    async def confirm(self, request: Request) -> Response:
        """Queue the control of a review, once, if the form showed its present plan."""
        session, fields = await read_control_form(request, self._access)
        review = session.reviews.get(request.path_params["review"])
        if review is None:
            raise RefusedRequest(404, "404: no such request, or an old one; ask again\n")
        if not review.is_confirmable:
            return self._review_page(request, review, 409)
        plan_hash = review.plan_hash
        if not matches_token(fields.get("plan_hash"), plan_hash):
            return PlainTextResponse("409: the form showed another plan\n", 409)
        if review.kind == "stop" and fields.get("yes") != ["yes"]:
            review.error = "To stop, tick the box as well."
            response = self._review_page(request, review, 409)
            review.error = ""
            return response
        review.is_queued = True  # before any await: of two simultaneous confirmations, one passes
        await self._submit(request, session, review, plan_hash)
        if review.error:
            return self._review_page(request, review, 409)
        return RedirectResponse("/controls", 303)

    async def test_alert_target(self, request: Request) -> Response:
        """Begin a test of an alert target of the config, unless one goes on; the page of alerts
        shows its result.
        """
        session, fields = await read_control_form(request, self._access)
        target_name = "".join(fields.get("target", ()))
        targets = self._cache.documents.get("alerts", {}).get("targets", ())
        if target_name not in {target["name"] for target in targets}:
            raise RefusedRequest(404, "404: no such alert target\n")
        if session.alert_tests.get(target_name) != TEST_BEGUN_TEXT:
            session.alert_tests[target_name] = TEST_BEGUN_TEXT
            self._run_task(self._test_alert_target(session, target_name, request.scope["address"]))
        return RedirectResponse("/alerts", 303)

    async def _test_alert_target(
        self, session: Session, target_name: str, client_address: str
    ) -> None:
        """Send a test message, one at a time, in a process that ends with it; none without its entry
        in the audit log.
        """
        detail = f"alerts test {target_name}"
        try:
            await self._access.record_event("control", session.name, client_address, detail)
            async with self._alert_lock:
                try:
                    test_document = await self._alert_process.call(
                        alert_channels.send_test_alerts, self._cache.config_file, target_name
                    )
                finally:
                    self._alert_process.stop()
            why = test_document["targets"][0]["why"]
            time_text = time.strftime("%H:%M UTC", time.gmtime())
            result_text = f"Test delivered at {time_text}."
            if why:
                result_text = f"Test not delivered at {time_text}: {why}."
        except TrimtabError as error:
            result_text = f"Test not sent: {error}"
        session.alert_tests[target_name] = result_text
        self._cache.announce_change()

    def _run_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warm_up(self) -> None:
        with suppress(TrimtabError):
            await self._cache.call(CacheProcess.CONTROLS, queue.warm_up)

    async def _plan(self, review: PlanReview) -> None:
        """Plan a request, one at a time, unless its session dropped it in the meantime."""
        try:
            async with self._plan_lock:
                if review.is_dropped:
                    return
                if profile_text := dict(review.arguments).get(PROFILE_FIELD):
                    review.arguments = await self._plan_process.call(
                        profiles.profile_arguments,
                        self._cache.config_file,
                        profile_text,
                        tuple(
                            argument
                            for argument in review.arguments
                            if argument[0] != PROFILE_FIELD
                        ),
                    )
                review.plan_document = await self._plan_process.call(
                    shown_plans.preview_control,
                    self._cache.config_path,
                    ControlKind(review.kind),
                    review.arguments,
                )
        except TrimtabError as error:
            review.error = str(error)
        else:
            self._cache.refresh()
            if review.trades_differently:
                self._run_task(self._backtest(review))
        self._cache.announce_change()

    async def _backtest(self, review: PlanReview) -> None:
        """Backtest an edit beside its plan, one at a time."""
        self._backtest_count += 1
        try:
            if self._backtest_count > MAX_BACKTESTS:
                raise TrimtabError("other backtests are waiting", "ask again in a few minutes")
            async with self._backtest_lock, asyncio.timeout(BACKTEST_TIMEOUT_S):
                if review.is_dropped:
                    return
                review.backtest = await self._backtest_process.call(
                    edit_backtests.edit_backtest,
                    self._cache.config_file,
                    review.arguments,
                )
        except TimeoutError:
            self._backtest_process.stop()
            review.backtest_error = f"it took longer than {BACKTEST_TIMEOUT_S:.0f} s; run trimtab backtest at the terminal"
        except TrimtabError as error:
            review.backtest_error = str(error)
        finally:
            self._backtest_count -= 1
        self._cache.announce_change()

    async def _submit(
        self, request: Request, session: Session, review: PlanReview, plan_hash: str
    ) -> None:
        submission = ControlSubmission(
            ControlKind(review.kind),
            review.arguments,
            session.name,
            ControlOrigin.DASHBOARD,
            plan_hash,
        )
        try:
            control_id = await self._cache.call(
                CacheProcess.CONTROLS,
                queue.submit_for_user,
                self._access.users_place,
                session.user_id,
                submission,
                request.scope["address"],
                review.on_paper,
            )
        except TrimtabError as error:
            review.error = str(error)
            # it may be queued if only the answer is missing
            review.is_queued &= isinstance(error, Retryable)
        else:
            review.error = ""
            session.requested_control = (review.kind, control_id)
            await self._cache.follow_pause()
        self._cache.follow(queue.dashboard_controls)

    def _review_page(self, request: Request, review: PlanReview, status: int) -> Response:
        cache = self._cache
        documents: Documents = {
            **documents_with_run(cache),
            "review": review.plan_document or {},
            "backtest": review.backtest or {},
        }
        page = REVIEW_PAGE._replace(path=request.scope["path"], title=review_title(review))
        html = self._renderer.render_page(
            page, documents, {}, cache.version, request.scope["session"], review
        )
        return HTMLResponse(html, status)


TEST_BEGUN_TEXT = "Sending a test."
TITLE_BY_KIND = {
    "pause": "Pause",
    "resume": "Resume",
    "rebalance": "Rebalance now",
    "confirm": "Confirm the waiting plan",
    "invest": "Invest new deposits",
    "withdraw": "Withdraw",
    "stop": "Stop",
    "device": "Alerts on a device",
    "holdings": "Ledgers and positions",
}
"""Title of a review by kind, apart from edits."""


def review_title(review: PlanReview) -> str:
    """Return the title of the page of a review: of an edit, what it changes."""
    if review.kind == "edit":
        return f"Edit {', '.join(review.edited_parts)}"
    return TITLE_BY_KIND[review.kind]


def requested_review(kind: str, fields: Mapping[str, Sequence[str]]) -> PlanReview:
    """Return the request of a form. What may be a secret, as what is no variable's name, is not
    kept.
    """
    refusal_by_field = {
        field_name: refusal
        for field_name, typed_texts in fields.items()
        if field_name not in LONG_TEXT_FIELDS
        for refusal in map(secret_refusal, typed_texts)
        if refusal
    }
    form_fields = {
        field_name: typed_texts
        for field_name, typed_texts in fields.items()
        if field_name not in ("csrf", *refusal_by_field)
    }
    for typed_text in fields.get(VARIABLE_FIELD, ()):
        if kind == "edit" and not VARIABLE_PATTERN.fullmatch(typed_text.strip()):
            form_fields[VARIABLE_FIELD] = [""]
            return PlanReview(kind, (), error=VARIABLE_ERROR, form_fields=form_fields)
    typed_refusals = [
        refusal
        for field_name, refusal in refusal_by_field.items()
        if field_name != "csrf" and not field_name.startswith(f"{PRESENT_VALUE_PREFIX}:")
    ]
    if typed_refusals and kind != ControlKind.DEVICE.value:  # a browser's subscription is a URL
        return PlanReview(kind, (), error=typed_refusals[0], form_fields=form_fields)
    on_paper = fields.get("paper") == ["yes"]
    arguments = form_arguments(kind, fields)
    return PlanReview(kind, arguments, on_paper=on_paper, form_fields=form_fields)


def form_arguments(kind: str, fields: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Return the arguments of a form: fields that are filled in, and targets that were changed."""
    filled_fields = {
        field_name: typed_text.strip()
        for field_name in FIELDS_BY_KIND[kind]
        for typed_text in fields.get(field_name, ())[:1]
        if typed_text.strip()
    }
    symbol = filled_fields.pop("asset", "")
    target_name = filled_fields.pop(TARGET_NAME_FIELD, "")
    variable = filled_fields.pop(VARIABLE_FIELD, "")
    if filled_fields.pop(EVENT_FIELD, ""):
        events = ", ".join(fields[EVENT_FIELD])
    else:
        events = "all"
    arguments = [
        ("set", f'portfolio.assets.{symbol}.{field_name}="{typed_text}"')
        if field_name in ASSET_FIELDS
        else (field_name, typed_text)
        for field_name, typed_text in filled_fields.items()
    ]
    if target_name:
        key = f"alerts.targets.{target_name}"
        arguments += [("set", f'{key}.url_env="{variable}"'), ("set", f'{key}.events="{events}"')]
    if kind == "edit":
        for form_field, typed_texts in fields.items():
            prefix, _, symbol_or_key = form_field.partition(":")
            typed_text = typed_texts[0].strip()
            if prefix == TARGET_PREFIX:
                typed_text = typed_text.removesuffix("%").strip()
            present_texts = list(fields.get(f"{PRESENT_VALUE_PREFIX}:{symbol_or_key}", ()))
            is_changed = [typed_text] != present_texts
            if symbol_or_key and is_changed and prefix in (TARGET_PREFIX, SETTING_PREFIX):
                assignment = (
                    f"{symbol_or_key}={typed_text}%"
                    if prefix == TARGET_PREFIX
                    else f'{symbol_or_key}="{typed_text}"'
                )
                arguments.append((prefix, assignment))
    return tuple(arguments)
