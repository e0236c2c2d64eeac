"""[telegram]: the bot of `trimtab telegram`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from agent.config.tables.fields import Duration, Variable, VariableTable, is_base_url
from agent.errors import ConfigError

TELEGRAM_API = "https://api.telegram.org"
LONGEST_POLL_S = 50
LONGEST_CODE_S = 900


class TelegramTable(VariableTable):
    """The Telegram bot (docs/telegram.md)."""

    token_env: Variable
    """Variable with the token of @BotFather."""
    chats: list[Annotated[int, Field(strict=True, gt=0)]] = Field(min_length=1, max_length=8)
    """Private chats that may command it."""
    api: str = TELEGRAM_API
    """Address of the Bot API, or of a server of your own."""
    poll: Duration = 30
    """Longest wait of one request for messages."""
    code_ttl: Duration = 300
    """Validity of a one-time code, at most 15m."""
    dashboard: str | None = None
    """Address of `trimtab serve`, for links to its confirmation."""

    @model_validator(mode="after")
    def _check_values(self) -> TelegramTable:
        if not is_base_url(self.api):
            raise ValueError(f"api: not an https address without a trailing slash; {TELEGRAM_API}")
        if self.dashboard is not None and not is_base_url(self.dashboard):
            raise ValueError("dashboard: not an https address without a trailing slash")
        if not 1 <= self.poll <= LONGEST_POLL_S:
            raise ValueError(f"poll: {self.poll}s; write 1s to {LONGEST_POLL_S}s, such as 30s")
        if not 1 <= self.code_ttl <= LONGEST_CODE_S:
            raise ValueError(f"code_ttl: {self.code_ttl}s; write 1s to 15m, such as 5m")
        return self

    def read_bot_token(self) -> str:
        """Return the bot's token. Raises ConfigError if its variable has none."""
        bot_token = self.variable(self.token_env)
        if not _TOKEN.fullmatch(bot_token):
            raise ConfigError(
                f"telegram.token_env: environment variable {self.token_env} has no bot token",
                "export the token of @BotFather, or put it into .env beside the config",
            )
        return bot_token


_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{20,80}")
