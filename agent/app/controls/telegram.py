"""The Telegram bot: long polling, commands of allowed private chats, one-time codes, and messages
about plans that wait. It loads no key; its actions go through the queue of controls.

https://core.telegram.org/bots/api (getUpdates, sendMessage, responses with parameters.retry_after).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent import wiring
from agent.app.agent import open_agent
from agent.app.controls import messages
from agent.app.controls.queue import (
    is_served,
    link_key,
    resume_without_run,
    submit_control,
    waiting_plan,
)
from agent.app.controls.shown_plans import preview_control
from agent.app.documents.controls import stored_plan_document
from agent.app.documents.status import status_document
from agent.chain.rpc import Transport
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.config.secrets.known import secrets_of
from agent.config.tables.telegram import TelegramTable
from agent.errors import ConfigError, PassingFault, TrimtabError
from agent.model import (
    ControlArguments,
    ControlKind,
    ControlOrigin,
    ControlState,
    ControlSubmission,
    PlanLink,
)
from agent.observe.logs import Redactor
from agent.ports import Clock
from agent.store import Store
from agent.store.controls import PhoneCode
from agent.store.files.pause import KillSwitch
from agent.store.files.secret import ensure_secret
from agent.wiring.signed_proposals import unstopped_texts

if TYPE_CHECKING:
    from telegram import Bot, Message, Update
    from telegram.error import NetworkError

log = logging.getLogger("trimtab.telegram")
CODE_DIGITS = 8
LINK_DIGITS = 16
MAX_AGE_S = 300
"""Maximum age of a command. Older messages arrived while the bot was down."""
CONTROL_LIFETIME_S = 300
"""Time that a run has to take a command."""
MAX_LEAD_S = 60
"""Maximum lead of a message's date over this machine's clock."""
FORWARD_FIELDS = frozenset(
    {"forward_date", "forward_from", "forward_from_chat", "forward_sender_name"}
)
"""Fields of forwarded messages before version 7 of the Bot API."""
MAX_NAME_LENGTH = 32
MAX_REASON_LENGTH = 200
"""Maximum length of the reason for a pause."""
MAX_MESSAGE_LENGTH = 4_000
"""Maximum length of a message that the bot sends; Telegram allows 4,096 characters."""
WATCH_INTERVAL_S = 2.0
FIRST_RETRY_S = 1.0
MAX_RETRY_S = 60.0
CHAIN_COMMANDS = ("/status", "/plan")
MAX_REPORTED_STRANGERS = 10
STRANGER_WINDOW_S = 86_400
REPORTED_STATES = frozenset(
    state.value
    for state in (
        ControlState.DONE,
        ControlState.REFUSED,
        ControlState.FAILED,
        ControlState.EXPIRED,
    )
)
T = TypeVar("T")


class PhoneActions(Protocol):
    """Requests that the bot can make. Each call may read the chain and take seconds."""

    def status(self) -> dict[str, Any]:
        """Return the document of `trimtab status`."""

    def plan(self) -> dict[str, Any]:
        """Return the plan that waits, or one made now, as a shown plan."""

    def submit(
        self, kind: ControlKind, plan_hash: str, asked_by: str, arguments: ControlArguments = ()
    ) -> bool:
        """Queue a control, and return whether a run takes it; pause at once, and resume at once
        without a run.
        """


@dataclass
class TelegramBot:
    """The bot of one store. `now` is this machine's clock, `bot` the Bot API."""

    table: TelegramTable
    store: Store
    actions: PhoneActions
    secret: bytes
    bot: Bot
    redactor: Redactor
    switch: KillSwitch
    config_path: Path
    link_key: bytes = b""
    now: Callable[[], float] = time.time
    watch_interval_s: float = WATCH_INTERVAL_S
    _reported_s_by_chat_id: dict[int, float] = field(default_factory=dict)
    _reply_tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _dropped_chats: set[int] = field(default_factory=set)
    _read_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Poll and watch until cancelled; call `on_started` once Telegram has accepted the token.
        Raises ConfigError if it is refused.
        """
        await self._call_api(self.bot.initialize)
        on_started()
        tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._watch_store())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.bot.shutdown()

    async def _poll(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._handle_updates()
                retry_s = FIRST_RETRY_S
            except (
                PassingFault
            ) as fault:  # the store's; Telegram delivers what was not recorded again
                log.error("%s", self.redactor.redact(str(fault)))
                await asyncio.sleep(retry_s)
                retry_s = min(MAX_RETRY_S, 2 * retry_s)

    async def _handle_updates(self) -> None:
        last_update = self.store.telegram_bot.last_update_number(int(self.now()))
        updates = await self._call_api(
            partial(self._get_updates, last_update + 1 if last_update else None)
        )
        for update in updates:
            # recorded first: a command is lost rather than carried out twice
            if self.store.telegram_bot.mark_update_handled(update.update_id, int(self.now())):
                await self._handle(update)

    def _allowed_chats(self) -> tuple[int, ...]:
        """Return the chats that the bot began with and the config still has; those of before while
        it is invalid. A chat that it has dropped needs a restart.
        """
        with suppress(ConfigError):
            telegram_table = load_config(self.config_path, checks_permissions=False).config.telegram
            configured_chats = () if telegram_table is None else telegram_table.chats
            self._dropped_chats |= {*self.table.chats} - {*configured_chats}
        return tuple(chat for chat in self.table.chats if chat not in self._dropped_chats)

    async def _get_updates(self, offset: int | None) -> tuple[Update, ...]:
        return await self.bot.get_updates(
            offset=offset, timeout=self.table.poll, allowed_updates=["message"]
        )

    async def _watch_store(self) -> None:
        while True:
            await asyncio.sleep(self.watch_interval_s)
            try:
                await self._send_offer()
                await self._report_ended_controls()
            except TrimtabError as error:
                log.error("%s", self.redactor.redact(str(error)))

    async def _handle(self, update: Update) -> None:
        message = update.message
        if message is None or not (message.text or "").strip():
            return
        chat = message.chat
        if chat.type != "private" or chat.id not in self._allowed_chats():
            await self._report_stranger(chat.id)
            return
        if (reason := self._refusal(message)) is not None:
            await self._send(chat.id, f"Not done: {reason}")
            return
        command, *arguments = (message.text or "").split()
        command = command.partition("@")[0].lower()
        reply_task = asyncio.create_task(self._reply(chat.id, command, arguments))
        if command in CHAIN_COMMANDS:  # a pause must not wait behind it
            self._reply_tasks.add(reply_task)
            reply_task.add_done_callback(self._reply_tasks.discard)
        else:
            await reply_task

    def _refusal(self, message: Message) -> str | None:
        """Return why a message of an allowed chat is no command of its owner; None if it is one."""
        age_s = self.now() - message.date.timestamp()
        if age_s > MAX_AGE_S:
            return f"the message is {age_s / 60:.0f} minutes old. Send it again."
        if age_s < -MAX_LEAD_S:
            return (
                f"the message is dated {-age_s:.0f} s in the future. Correct this machine's clock."
            )
        sender = message.from_user
        if (
            message.forward_origin
            or message.is_automatic_forward
            or FORWARD_FIELDS & {*message.api_kwargs}
        ):
            return "a forwarded message is no command. Write it yourself."
        if message.via_bot or message.sender_business_bot or sender is None or sender.is_bot:
            return "a message by a bot is no command. Write it yourself."
        if sender.id != message.chat.id or message.sender_chat:
            return "a message of another sender is no command."
        if message.edit_date is not None or message.is_from_offline:
            return "an edited or scheduled message is no command. Send it again."
        command, at_sign, addressed_bot = (message.text or "").split(maxsplit=1)[0].partition("@")
        if at_sign and addressed_bot.lower() != self.bot.username.lower():
            return f"{command[:MAX_NAME_LENGTH]} is for @{addressed_bot[:MAX_NAME_LENGTH]}, not for this bot."
        return None

    async def _reply(self, chat_id: int, command: str, arguments: Sequence[str]) -> None:
        try:
            answer = await self._answer(chat_id, command, arguments)
        except TrimtabError as error:
            answer = f"Not done: {self.redactor.redact(error.message)}"
            if error.remedy:
                answer += f"\n{self.redactor.redact(error.remedy)}"
        await self._send(chat_id, answer)

    async def _answer(self, chat_id: int, command: str, arguments: Sequence[str]) -> str:
        match command, arguments:
            case "/status", []:
                return messages.status_text(await self._read_document(self.actions.status))
            case "/plan", []:
                return self._plan_with_code(chat_id, await self._read_document(self.actions.plan))
            case "/pause", words:
                await self._submit(
                    chat_id, ControlKind.PAUSE, "", _pause_arguments(chat_id, " ".join(words))
                )
                return "\n".join(
                    ["Paused: nothing is sent until /resume.", *unstopped_texts(self.store)]
                )
            case "/resume", []:
                code = self._new_code(chat_id, ControlKind.RESUME, "")
                return f"To resume sending: /resume {code} within {self._code_lifetime()}"
            case "/resume", [code]:
                return await self._redeem(chat_id, code, (ControlKind.RESUME,))
            case "/confirm", [code]:
                return await self._redeem(
                    chat_id, code, (ControlKind.CONFIRM, ControlKind.REBALANCE)
                )
            case "/help" | "/start", _:
                return messages.HELP_TEXT
            case _:
                return f"Not done: no such command.\n{messages.HELP_TEXT}"

    async def _read_document(self, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a document that is read from the chain, one at a time."""
        async with self._read_lock:
            return await asyncio.to_thread(action)

    def _plan_with_code(self, chat_id: int, plan_document: dict[str, Any]) -> str:
        reply_text = messages.plan_text(plan_document)
        if not plan_document["plan_hash"]:
            return reply_text
        code = self._new_code(
            chat_id, ControlKind(plan_document["kind"]), plan_document["plan_hash"]
        )
        reply_text += f"\nTo carry it out: /confirm {code} within {self._code_lifetime()}"
        if self.table.dashboard is None:
            return reply_text
        until_s = int(self.now()) + self.table.code_ttl
        link = PlanLink(plan_document["plan_hash"][:LINK_DIGITS], until_s).query(self.link_key)
        return f"{reply_text}\nIn the dashboard, after login: {self.table.dashboard}/login?to=/controls&{link}"

    def _code_lifetime(self) -> str:
        return f"{self.table.code_ttl / 60:g} minutes"

    def _new_code(self, chat_id: int, kind: ControlKind, plan_hash: str) -> str:
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"
        now_s = int(self.now())
        phone_code = PhoneCode(
            chat_id,
            self._digest(chat_id, code),
            kind.value,
            plan_hash,
            now_s + self.table.code_ttl,
            issued_s=now_s,
        )
        self.store.telegram_bot.store_code(phone_code, now_s)
        return code

    def _digest(self, chat_id: int, code: str) -> str:
        code_bytes = f"trimtab phone code 1 {chat_id} {code}".encode()
        return hmac.new(self.secret, code_bytes, hashlib.sha256).hexdigest()

    async def _redeem(
        self, chat_id: int, code: str, permitted_kinds: tuple[ControlKind, ...]
    ) -> str:
        code_digest = self._digest(chat_id, code) if code.isascii() and code.isdecimal() else ""
        phone_code = self.store.telegram_bot.use_code(chat_id, code_digest, int(self.now()))
        if phone_code is None or ControlKind(phone_code.kind) not in permitted_kinds:
            return "Not done: the code is wrong, used or expired. /plan or /resume makes a new one."
        is_resume = phone_code.kind == ControlKind.RESUME.value
        if is_resume and self.switch.paused_at_or_after(phone_code.issued_s):
            return "Not done: a pause came after this code. /resume makes a new one."
        if await self._submit(chat_id, ControlKind(phone_code.kind), phone_code.plan_hash):
            return "Queued for trimtab run --send. The result will be reported here."
        if is_resume:
            return (
                "No run is active, so it is carried out at once. The result will be reported here."
            )
        lifetime_text = f"{CONTROL_LIFETIME_S / 60:g} minutes"
        return f"Queued, but no run is active: start trimtab run --send within {lifetime_text}."

    async def _submit(
        self, chat_id: int, kind: ControlKind, plan_hash: str, arguments: ControlArguments = ()
    ) -> bool:
        return await asyncio.to_thread(
            self.actions.submit, kind, plan_hash, requester_name(chat_id), arguments
        )

    async def _send_offer(self) -> None:
        bot_store = self.store.telegram_bot
        offer = waiting_plan(self.store, self.secret)
        if offer is None or bot_store.newest_reported_offer() == offer.hash:
            return
        plan_document = dict(stored_plan_document(offer))
        text_by_chat_id = {
            chat_id: f"A plan is waiting for you.\n{self._plan_with_code(chat_id, plan_document)}"
            for chat_id in self._allowed_chats()
        }
        bot_store.mark_offer_reported(offer.hash)
        for chat_id, text in text_by_chat_id.items():
            await self._send(chat_id, text)

    async def _report_ended_controls(self) -> None:
        for event in self.store.controls.events(self.store.telegram_bot.last_reported_number()):
            if not self.store.telegram_bot.mark_line_reported(event.sequence_number):
                continue
            if event.origin == ControlOrigin.TELEGRAM.value and event.state in REPORTED_STATES:
                for chat_id in self._allowed_chats():
                    if (
                        event.asked_by == requester_name(chat_id)
                        and event.kind != ControlKind.PAUSE.value
                    ):
                        await self._send(chat_id, messages.control_end_text(event))

    async def _report_stranger(self, chat_id: int) -> None:
        """Report the number of an unknown chat to the allowed chats; its sender gets no answer."""
        now_s = self.now()
        self._reported_s_by_chat_id = {
            stranger_id: seen_s
            for stranger_id, seen_s in self._reported_s_by_chat_id.items()
            if now_s - seen_s < STRANGER_WINDOW_S
        }
        if (
            chat_id in self._reported_s_by_chat_id
            or len(self._reported_s_by_chat_id) >= MAX_REPORTED_STRANGERS
        ):
            return
        self._reported_s_by_chat_id[chat_id] = now_s
        log.warning("ignored a message from chat %d", chat_id)
        for allowed_chat_id in self._allowed_chats():
            await self._send(allowed_chat_id, f"Ignored a message from unknown chat {chat_id}.")

    async def _send(self, chat_id: int, text: str) -> None:
        with suppress(_UnsentError):
            await self._call_api(
                lambda: self.bot.send_message(chat_id, text[:MAX_MESSAGE_LENGTH]), is_send=True
            )

    async def _call_api(self, call: Callable[[], Awaitable[T]], *, is_send: bool = False) -> T:
        """Return the answer of the Bot API; wait out failures. A message that may have arrived is
        not sent again (_UnsentError). Raises ConfigError if the token is refused.
        """
        from telegram import error as telegram_error

        retry_s = FIRST_RETRY_S
        while True:
            try:
                return await call()
            except telegram_error.RetryAfter as error:
                retry_after = error.retry_after
                retry_s = (
                    retry_after if isinstance(retry_after, int) else retry_after.total_seconds()
                )
                log.warning("Telegram asks to wait %.0f s", retry_s)
            except (telegram_error.InvalidToken, telegram_error.Forbidden) as error:
                if is_send and isinstance(error, telegram_error.Forbidden):
                    log.error("a chat refuses messages; start the bot there")
                    raise _UnsentError from None
                raise ConfigError(
                    "telegram.token_env: Telegram refuses the token",
                    f"put the bot token that @BotFather issued into {self.table.token_env}",
                ) from None
            except telegram_error.Conflict:
                log.error("another process polls with this bot's token")
                retry_s = min(MAX_RETRY_S, max(2 * retry_s, 2.0))
            except telegram_error.NetworkError as error:
                log.warning("Telegram: %s", type(error).__name__)
                if is_send and _forbids_resend(error):
                    raise _UnsentError from None
                retry_s = min(MAX_RETRY_S, 2 * retry_s)
            await asyncio.sleep(retry_s)


class _UnsentError(Exception):
    """A message that is not sent again: it was refused, or may have arrived."""


def _forbids_resend(error: NetworkError) -> bool:
    """Return whether a message must not be sent again: it is invalid, or may have arrived."""
    from httpx import ConnectError, ConnectTimeout
    from telegram.error import BadRequest, TimedOut

    if isinstance(error.__cause__, ConnectError | ConnectTimeout):
        return False
    return isinstance(error, BadRequest | TimedOut) or error.__cause__ is not None


def requester_name(chat_id: int) -> str:
    """Return the name under which a chat requests controls."""
    return f"telegram {chat_id}"


def _pause_arguments(chat_id: int, words: str) -> ControlArguments:
    """Return the arguments of a pause with these words as its reason; none without words."""
    reason = "".join(character for character in words if character.isprintable())
    if not reason:
        return ()
    return (("reason", f"{reason[:MAX_REASON_LENGTH]} ({requester_name(chat_id)})"),)


class QueueActions:
    """Actions on a config, loaded for each, through the queue of controls. A pause uses the config
    that was valid at the start. `redactor` learns the secrets of each config.
    """

    def __init__(
        self,
        config: ConfigSource,
        transports: Sequence[Transport] | None = None,
        clock: Clock | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._config = config
        self._initial_config = load_config(config)
        self._transports = transports
        self._clock = clock
        self._redactor = redactor or Redactor()

    def _load_config(self) -> LoadedConfig:
        loaded_config = load_config(self._config)
        self._redactor.add(secrets_of(loaded_config))
        return loaded_config

    def status(self) -> dict[str, Any]:
        """See PhoneActions."""
        with open_agent(
            self._load_config(), transports=self._transports, clock=self._clock
        ) as agent:
            return dict(status_document(agent.status()))

    def plan(self) -> dict[str, Any]:
        """See PhoneActions."""
        loaded_config = self._load_config()
        with wiring.open_store_offline(loaded_config) as (store, _):
            has_offer = store.controls.offered_plan() is not None
        kind = ControlKind.CONFIRM if has_offer else ControlKind.REBALANCE
        return dict(
            preview_control(loaded_config, kind, transports=self._transports, clock=self._clock)
        )

    def submit(
        self, kind: ControlKind, plan_hash: str, asked_by: str, arguments: ControlArguments = ()
    ) -> bool:
        """See PhoneActions."""
        is_pause = kind is ControlKind.PAUSE
        loaded_config = self._initial_config if is_pause else self._load_config()
        control = submit_control(
            loaded_config,
            ControlSubmission(
                kind,
                arguments,
                asked_by,
                ControlOrigin.TELEGRAM,
                plan_hash,
                lifetime_s=CONTROL_LIFETIME_S,
            ),
            now=time.time if self._clock is None else self._clock.now_s,
        )
        if is_pause:
            return True
        if kind is ControlKind.RESUME:
            resume_without_run(loaded_config, control)
        return is_served(loaded_config)


@contextmanager
def open_bot(config: ConfigSource) -> Iterator[TelegramBot]:
    """Open the bot of a config. Raises ConfigError without [telegram], its token or its package."""
    loaded_config = load_config(config)
    telegram_table = loaded_config.config.telegram
    if telegram_table is None:
        raise ConfigError(
            "telegram: not configured",
            "write [telegram] with token_env and chats (docs/telegram.md)",
        )
    token = telegram_table.read_bot_token()
    try:
        from telegram import Bot
        from telegram.request import HTTPXRequest
    except ImportError:
        raise ConfigError(
            "telegram: python-telegram-bot is not installed", "pip install 'trimtab[telegram]'"
        ) from None
    # Their log lines contain request URLs, which include the token.
    for logger_name in ("httpx", "httpcore", "telegram"):
        logging.getLogger(logger_name).setLevel(logging.CRITICAL)
    bot = Bot(
        token,
        base_url=f"{telegram_table.api}/bot",
        request=HTTPXRequest(connect_timeout=10.0, read_timeout=20.0),
        get_updates_request=HTTPXRequest(
            connect_timeout=10.0, read_timeout=telegram_table.poll + 10.0
        ),
    )
    secret = ensure_secret(wiring.store_file(loaded_config))
    redactor = Redactor([f"{telegram_table.api}/bot{token}", *secrets_of(loaded_config)])
    with wiring.open_store_offline(loaded_config) as (store, switch):
        yield TelegramBot(
            telegram_table,
            store,
            QueueActions(loaded_config.path, redactor=redactor),
            secret,
            bot,
            redactor,
            switch,
            loaded_config.path,
            link_key(loaded_config),
        )


def serve_telegram(config: ConfigSource, on_started: Callable[[], None] = lambda: None) -> None:
    """Run the bot until interrupted; call `on_started` after its checks."""
    with open_bot(config) as bot:
        asyncio.run(bot.run(on_started))
