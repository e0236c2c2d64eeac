"""Answers of the guided set-up: each is checked on its own, and all together make a new config;
at the terminal and in the browser.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.app.documents.status import headroom_warnings
from agent.app.start.amounts import (
    DEFAULT_CEILING_USD,
    LARGEST_CEILING_USD,
    NUMERAIRE,
    ceiling_of,
    paper_capital,
    parse_amount,
    require_ceiling,
)
from agent.app.start.capital import (
    draft_config,
    minimum_capital,
    minimum_capitals,
)
from agent.app.start.cost_rows import NO_COSTS, CostSummary, cost_summary, too_little_lines
from agent.app.start.doctor.route_checks import usual_route_warnings
from agent.app.start.past_prices import needed_past_prices
from agent.app.start.past_results import (
    OTHER_YEARS_BASIS,
    PAST_BASIS,
    other_year_results,
    past_falls_text,
    small_money_lines,
    template_result,
)
from agent.app.start.questions import question_texts
from agent.app.start.setup import (
    NewConfig,
    find_preset,
    local_start,
    network_name,
    require_endpoints,
    write_new_config,
)
from agent.app.start.tracking_losses import config_loss_document, first_purchase_lines
from agent.app.start.year_costs import year_cost_lines
from agent.config.load import load_config
from agent.config.networks.presets import PRESETS
from agent.config.tables.fields import parse_address, parse_variable
from agent.config.writing import portfolio_templates
from agent.errors import ConfigError
from agent.figures import as_sentence, format_figure
from agent.key_variables import process_environment
from agent.model import LIMITS
from agent.model.limits import ABOVE_CEILING_TEXT
from agent.units import BPS, Value, format_bps, parse_bps
from agent.weights.asset_classes import AssetClass, class_of

if TYPE_CHECKING:
    from agent.app.documents.owner import InitDocument, PastResultDocument
    from agent.config.schema import Config

LOCAL_RPC = (("TRIMTAB_LOCAL_RPC", "local"),)
ESTIMATE_NOTE = "An estimate; trimtab doctor computes it with the pools found and current prices"
FIRST_PURCHASE_NOTE = (
    "The first purchase goes to the targets at once: it waits for no trigger, and limits.turnover and"
    " limits.daily_turnover do not bind it. If the other limits permit only a part, parts follow"
    " (limits.first_purchase)."
)
WAIT_NOTE = "Until the agent has chosen its targets, it buys nothing."
NO_ALERT_ANSWERS = ("", "none", "no", "off")
ALL_CASH_ANSWERS = ("", "all")


@dataclass(frozen=True, slots=True)
class Basket:
    """A portfolio template on a network, with its past results and its minimum capital in the
    numeraire on an ordinary day, here and by network.
    """

    name: str
    about: str
    targets: tuple[tuple[str, str], ...]
    past_result: PastResultDocument | None
    other_year_results: list[PastResultDocument]
    past_falls: str
    minimum_capital: str
    minimum_capitals: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InitAnswers(NewConfig):
    """Answers so far. Each method that takes text checks it and raises ConfigError with the
    remedy.
    """

    @property
    def ceiling(self) -> str:
        """Return the portfolio.max_live_value that these answers write."""
        return self.max_live_value or ceiling_of(self.use_cash or None) or str(DEFAULT_CEILING_USD)

    @property
    def texts(self) -> dict[str, str]:
        """Return the answers in words, by field."""
        alert_variable = self.alert_target[1] if self.alert_target else ""
        return {
            "network": self.network,
            "wallet": self.wallet,
            "endpoints": ", ".join(
                f"{variable}={operator} ({variable_state(variable)})"
                for variable, operator in self.endpoints
            )
            or ("that of the chain's file" if self.is_local else ""),
            "basket": self._basket_text,
            "cash": self._cash_text,
            "ceiling": (
                f"{format_figure(self.ceiling, 'amount')} {NUMERAIRE} at most are managed, and paid"
                " out in a day"
            ),
            "alert": (
                f"{alert_variable} ({variable_state(alert_variable)})" if alert_variable else "none"
            ),
        }

    @property
    def _cash_text(self) -> str:
        """Return the cash to use, and that of paper trading if it is not the same."""
        if self.use_cash:
            return f"{format_figure(self.use_cash, 'amount')} {NUMERAIRE}"
        paper_cash = format_figure(paper_capital(None, self.ceiling, NUMERAIRE), "amount")
        return f"all {NUMERAIRE}; on paper {paper_cash} {NUMERAIRE}, two thirds of the ceiling"

    @property
    def _basket_text(self) -> str:
        """Return the holdings, with the name of their template if they have one."""
        if not self.template:
            return " ".join(f"{symbol} {share}" for symbol, share in self.targets)
        template = portfolio_templates.find_template(self.template)
        targets = portfolio_templates.template_targets(template, find_preset(self.network))
        return f"{' '.join(f'{symbol} {share}' for symbol, share in targets)} ({self.template})"

    @property
    def is_local(self) -> bool:
        """Return whether the network is a chain of `trimtab localchain`."""
        return self.network not in PRESETS

    def with_network(self, network_name_or_file: str) -> InitAnswers:
        """Return the answers with a network, by name or by a local chain's config file. Endpoints
        of another network are dropped.
        """
        if not network_name_or_file:
            raise ConfigError(
                "no network is chosen",
                f"choose from {', '.join(PRESETS)}, or name the config file of a running trimtab"
                " localchain",
            )
        network = network_name(network_name_or_file)
        find_preset(network)
        is_local = network not in PRESETS
        endpoints = self.endpoints if network == self.network else ()
        return replace(
            self,
            network=network,
            endpoints=endpoints or (LOCAL_RPC if is_local else ()),
        )

    def with_wallet(self, address_text: str) -> InitAnswers:
        """Return the answers with the wallet's address."""
        if not address_text:
            raise ConfigError("no wallet is named", "write its address, 0x and 40 hex digits")
        return replace(self, wallet=parse_address(address_text, "wallet"))

    def with_endpoints(self, endpoints_text: str) -> InitAnswers:
        """Return the answers with endpoints, VARIABLE=OPERATOR separated by spaces, of at least two
        operators.
        """
        endpoints = []
        for endpoint_pair in endpoints_text.replace(",", " ").split():
            variable, equals, operator = endpoint_pair.partition("=")
            if not equals:
                raise ConfigError(
                    "endpoints: not VARIABLE=OPERATOR",  # not repeated: a URL is a secret
                    "for example RPC_URL_1=alchemy RPC_URL_2=infura; the URLs stay in the variables",
                )
            endpoints.append((variable, operator))
        require_endpoints(endpoints, "endpoints", is_local=self.is_local)
        return replace(self, endpoints=tuple(endpoints))

    def with_basket(self, basket_text: str, offered_baskets: Sequence[Basket]) -> InitAnswers:
        """Return the answers with a basket by number or name, or with own targets such as WETH=50%
        USDC=50%.
        """
        names_by_number = {
            str(number): basket.name for number, basket in enumerate(offered_baskets, 1)
        }
        template_name = names_by_number.get(basket_text, basket_text)
        if template_name in [basket.name for basket in offered_baskets]:
            return replace(self, template=template_name, targets=())
        targets = []
        for target_pair in basket_text.replace(",", " ").split():
            symbol, equals, share_text = target_pair.partition("=")
            if not (symbol and equals and share_text):
                raise ConfigError(
                    f"basket: {basket_text[:60]!r} is neither a number of the list nor SYMBOL=SHARE",
                    f"write 1 to {len(offered_baskets)}, or for example WETH=50% USDC=50%",
                )
            targets.append((symbol, share_text))
        total_bps = sum(parse_bps(share_text, f"basket {symbol}") for symbol, share_text in targets)
        symbols = [token.symbol for token in find_preset(self.network).tokens]
        target_symbols = [symbol for symbol, _ in targets]
        unknown_symbols = [symbol for symbol in target_symbols if symbol not in symbols]
        repeated_symbols = [symbol for symbol in symbols if target_symbols.count(symbol) > 1]
        if unknown_symbols:
            shares_fault = f"name {unknown_symbols[0]}, which is not one of {', '.join(symbols)}"
            remedy = "leave it out"
        elif repeated_symbols:
            shares_fault = f"name {repeated_symbols[0]} twice"
            remedy = "name it once"
        elif total_bps != BPS:
            difference_text = format_bps(abs(BPS - total_bps))
            difference_word = "is missing" if total_bps < BPS else "too much"
            shares_fault = f"sum to {format_bps(total_bps)}, {difference_text} {difference_word}"
            remedy = "make them sum to 100 %"
        elif NUMERAIRE not in target_symbols:
            shares_fault = f"lack {NUMERAIRE}, the unit of account"
            remedy = f"give {NUMERAIRE} a share, 0 % for none"
        elif len(targets) == 1:
            shares_fault = f"are of {NUMERAIRE} alone: there is nothing to trade"
            remedy = "give another token a share"
        else:
            return replace(self, template="", targets=tuple(targets))
        raise ConfigError(f"basket: the shares {shares_fault}", remedy)

    def with_cash(self, cash_text: str) -> InitAnswers:
        """Return the answers with the most numeraire to use; "all" or nothing for all of it. A new
        amount drops the ceiling, which was named for another.
        """
        amount = (
            ""
            if cash_text.lower() in ALL_CASH_ANSWERS
            else parse_amount(cash_text, "cash", "write 1000, or all")
        )
        if amount == self.use_cash:
            return self
        return replace(self, use_cash=amount, max_live_value="")

    def with_ceiling(self, ceiling_text: str) -> InitAnswers:
        """Return the answers with the largest value that the agent manages; nothing for the one
        that follows from the cash. Raises ConfigError for one below the cash.
        """
        if not ceiling_text:
            return replace(self, max_live_value="")
        amount = parse_amount(
            ceiling_text, "ceiling", f"write {self.ceiling}", largest=LARGEST_CEILING_USD
        )
        require_ceiling(self.use_cash or None, amount, "ceiling")
        return replace(self, max_live_value=amount)

    def year_costs(self) -> list[str]:
        """Return whether the amount is worth it: about the loss behind a perfect tracker, what would
        change whether it is worth it, then two lines with the rebalances and cost of a year at three gas
        prices.
        """
        config = self._draft_config
        total_value = self._total_value
        loss = config_loss_document(config, Fraction(1), total_value)
        too_little = too_little_lines(config, total_value)
        ceiling_note = "" if self.use_cash else f" {self._ceiling_text}"
        return [
            f"Is it worth it? {ESTIMATE_NOTE}.{ceiling_note}",
            *too_little,
            *([] if loss is None else [*loss["lines"], *loss["warnings"]]),
            *usual_route_warnings(config),
            *([] if too_little else first_purchase_lines(config, Fraction(1), total_value)),
            _first_purchase_note(config),
            *year_cost_lines(config, Fraction(1), total_value),
            *small_money_lines(self.template, self.network),
        ]

    def costs(self) -> CostSummary:
        """Return whether the amount is worth it, with one figure a row."""
        config = self._draft_config
        summary = cost_summary(config, self._total_value, self.template or None, self.network)
        amount_text = format_figure(self.use_cash or self.ceiling, "amount")
        basis_text = f"With {amount_text} {NUMERAIRE}{'' if self.use_cash else ', the ceiling'}"
        notes = [
            f"{basis_text}: {ESTIMATE_NOTE[:1].lower()}{ESTIMATE_NOTE[1:]}.",
            *summary["notes"],
            _first_purchase_note(config),
            *(
                headroom_warnings(config, Fraction(self.use_cash))
                if self.use_cash
                else [
                    f"The cash is all of the wallet's, which is not read here. {self._ceiling_text}"
                ]
            ),
            *usual_route_warnings(config),
        ]
        return {**summary, "notes": notes}

    @property
    def _ceiling_text(self) -> str:
        return f"{format_figure(self.ceiling, 'amount')} is the ceiling: above it {ABOVE_CEILING_TEXT}."

    @property
    def _draft_config(self) -> Config:
        """Return the config of the answers so far. Raises ConfigError."""
        preset = find_preset(self.network)
        template = portfolio_templates.find_template(self.template) if self.template else None
        targets = self.targets
        if template is not None:
            targets = tuple(portfolio_templates.template_targets(template, preset))
        return draft_config(template, preset, targets, self.use_cash, self.ceiling)

    @property
    def _total_value(self) -> Value:
        return Fraction(self.use_cash or self.ceiling)

    def with_alert(self, variable_text: str) -> InitAnswers:
        """Return the answers with the variable that holds the alert target's address, or none."""
        if variable_text.lower() in NO_ALERT_ANSWERS:
            return replace(self, alert_target=None)
        if "://" in variable_text or "@" in variable_text:
            raise ConfigError(
                "alerts: that is an address, which may be a secret and is not kept here",
                "put it into a variable, a mail address as mailto://…, and name the variable:"
                " TRIMTAB_ALERTS",
            )
        target_name = self.alert_target[0] if self.alert_target else "owner"
        return replace(self, alert_target=(target_name, parse_variable(variable_text, "alerts")))

    def write(self, path: Path) -> InitDocument:
        """Write the config. Raises ConfigError, and then leaves no file."""
        return write_new_config(path, self)


def baskets(network: str) -> list[Basket]:
    """Return the templates that a network has tokens and supplies for. Raises ConfigError for an unknown
    network.
    """
    preset = find_preset(network)
    offered_baskets = []
    for template in portfolio_templates.PORTFOLIO_TEMPLATES.values():
        try:
            targets = tuple(portfolio_templates.template_targets(template, preset))
            portfolio_templates.require_supplies(template, preset, targets)
        except ConfigError:
            continue
        offered_baskets.append(
            Basket(
                template.name,
                template.about,
                targets,
                template_result(network, template.name),
                other_year_results(network, template.name),
                past_falls_text(network, template.name),
                minimum_capital(template, preset),
                minimum_capitals(template),
            )
        )
    return offered_baskets


def variable_state(variable_name: str) -> str:
    """Return whether a variable is set in the environment, without its value."""
    return "set" if process_environment().get(variable_name) else "not set yet"


OWN_WEIGHTS = "own"
"""Name of the basket of typed weights, whose fields are named SHARE plus the symbol."""
SHARE_FIELD_PREFIX = "share:"
SHARE_PATTERN = re.compile(r"[0-9]{1,3}(\.[0-9]{1,2})?")
NO_SHARE_PATTERN = re.compile(r"(0+(\.0+)?)?")
OPTION_PREFIX_PATTERN = re.compile(r"^(--)?[a-z]+: ")


def check_setup(field_texts: Mapping[str, str]) -> dict[str, Any]:
    """Return `errors` by field; `answer_texts`, the valid answers in words; `costs`, whether the
    amount is worth it, None with errors; whether typed weights are the basket, and the symbols of wrong ones; `baskets` and
    `tokens` of the network, and the `basis` of past results here and in other years; what the tokens `follow`, by
    symbol; names and hints of the `questions` by field; the `turnover_limits` that a local chain gives by key; the
    `unset_variables` of endpoints, which this process does not have. A field that is missing has its default.
    """
    answers, error_by_field, offered_baskets = parse_answers(field_texts)
    local_chain = None if "network" in error_by_field else local_start(answers.network)
    chain_limits = {} if local_chain is None else local_chain.turnover_limits
    symbols = [] if "network" in error_by_field else _token_symbols(answers)
    return {
        "errors": error_by_field,
        "answer_texts": {
            field: answer_text
            for field, answer_text in answers.texts.items()
            if field not in error_by_field
        },
        "costs": None if error_by_field else _costs(answers),
        "own_weights": _chooses_own_weights(field_texts),
        "wrong_shares": wrong_shares(field_texts),
        "baskets": [
            _basket_document(basket, offered_baskets, chain_limits) for basket in offered_baskets
        ],
        "networks": list(PRESETS),
        "tokens": symbols,
        "follow": {
            symbol: class_of(symbol).value
            for symbol in symbols
            if class_of(symbol) in (AssetClass.ETHER, AssetClass.BITCOIN)
        },
        "basis": PAST_BASIS,
        "other_years_basis": OTHER_YEARS_BASIS,
        "numeraire": NUMERAIRE,
        "questions": question_texts(),
        "unset_variables": [
            variable for variable, _ in answers.endpoints if not process_environment().get(variable)
        ],
        "turnover_limits": chain_limits,
    }


def write_setup(path: str, field_texts: Mapping[str, str]) -> dict[str, Any]:
    """Write the config as `trimtab init` does, and return its document, with the commands that come
    `next`, the past prices that they read, its `costs`, its `sha256`, and the `gas` that the wallet
    needs. Raises ConfigError, and then leaves no file.
    """
    answers, error_by_field, _ = parse_answers(field_texts)
    if error_by_field:
        field = next(iter(error_by_field))
        raise ConfigError(f"{field}: {error_by_field[field]}", "correct it")
    init_document = answers.write(Path(path))
    loaded_config = load_config(path)
    wallet = loaded_config.config.wallet
    config_option = "" if Path(path) == Path("trimtab.toml") else f" --config {shlex.quote(path)}"
    local_chain = local_start(answers.network)
    next_commands = [
        command if local_chain is None else command.replace("=…", f"={local_chain.url}")
        for command in init_document["next"]
    ]
    next_commands = [
        f"{command}  (asks before it pins)" if command.startswith("trimtab trust") else command
        for command in next_commands
    ]
    if wallet.test_account is None and not wallet.safe:
        first_command_index = next(
            (index for index, command in enumerate(next_commands) if command.startswith("trimtab")),
            len(next_commands),
        )
        next_commands.insert(
            first_command_index,
            "trimtab wallet import  (in a terminal, with the key of the wallet, unless wallet.json"
            " has it already)",
        )
    paper_cash = paper_capital(answers.use_cash or None, answers.ceiling, NUMERAIRE)
    next_commands += [
        f"trimtab paper{config_option} --once --start {NUMERAIRE}={paper_cash}"
        "  (try it on paper first: nothing is sent)",
        f"trimtab run{config_option}  (decides but sends nothing; with --send it trades)",
        f"trimtab serve{config_option}  (this dashboard, after the first step)",
    ]
    return {
        **init_document,
        "next": next_commands,
        "needed_prices": needed_past_prices(loaded_config),
        "costs": _costs(answers),
        "gas": loaded_config.config.limits.native_floor or "",
        "sha256": loaded_config.digest,
    }


def take_back_setup(path: str, sha256: str) -> None:
    """Remove the config that `write_setup` wrote. Raises ConfigError if it is another by now, with
    another `sha256`, or if it has a ledger, live or on paper, and then leaves it.
    """
    config_path = Path(path)
    loaded_config = load_config(config_path)
    if loaded_config.digest != sha256:
        raise ConfigError(f"{path}: was changed meanwhile", "edit it in its folder")
    if any(
        wiring.has_store(replace(loaded_config, is_paper=on_paper)) for on_paper in (False, True)
    ):
        raise ConfigError(
            f"{path}: has a ledger already",
            "begin another portfolio in a folder of its own",
        )
    config_path.unlink()


def parse_answers(
    field_texts: Mapping[str, str],
) -> tuple[InitAnswers, dict[str, str], list[Basket]]:
    """Return the valid answers, the errors by field, and the baskets of the network. Wallet and
    endpoint of a local chain are those of its file, unless they are typed.
    """
    answers = InitAnswers()
    error_by_field = dict[str, str]()

    def apply_field(
        field: str, with_answer: Callable[[InitAnswers, str], InitAnswers], default_text: str
    ) -> None:
        nonlocal answers
        try:
            answers = with_answer(answers, field_texts.get(field, "").strip() or default_text)
        except ConfigError as error:
            error_by_field[field] = error_text(error)

    default_network = "" if "network" in field_texts else "ethereum"
    apply_field("network", InitAnswers.with_network, default_network)
    offered_baskets = [] if "network" in error_by_field else _baskets(answers)
    local_chain = None if "network" in error_by_field else local_start(answers.network)
    if local_chain is not None:
        answers = replace(answers, endpoints=())
    apply_field("wallet", InitAnswers.with_wallet, local_chain.wallet if local_chain else "")
    if not answers.is_local or field_texts.get("endpoints", "").strip():
        apply_field("endpoints", InitAnswers.with_endpoints, "")
    if offered_baskets:
        apply_field(
            "basket",
            lambda answers_so_far, basket_text: _with_basket(
                answers_so_far, basket_text, field_texts, offered_baskets
            ),
            "",
        )
    apply_field("cash", InitAnswers.with_cash, "all")
    apply_field("ceiling", InitAnswers.with_ceiling, "")
    apply_field("alert", InitAnswers.with_alert, "none")
    return answers, error_by_field, offered_baskets


def _baskets(answers: InitAnswers) -> list[Basket]:
    return baskets(answers.network) if answers.is_local else _preset_baskets(answers.network)


@cache
def _preset_baskets(network: str) -> list[Basket]:
    return baskets(network)


def _with_basket(
    answers: InitAnswers,
    chosen_basket: str,
    field_texts: Mapping[str, str],
    offered_baskets: list[Basket],
) -> InitAnswers:
    is_basket = chosen_basket in [basket.name for basket in offered_baskets]
    if is_basket and _has_typed_weights(field_texts):
        raise ConfigError(
            f"Own weights are typed, and {chosen_basket} is chosen",
            "choose My own weights, or empty their fields",
        )
    if _chooses_own_weights(field_texts):
        return _with_own_weights(answers, field_texts, offered_baskets)
    if not is_basket:
        raise ConfigError("No basket is chosen", "choose a listed one, or type your own weights")
    return answers.with_basket(chosen_basket, offered_baskets)


def _chooses_own_weights(field_texts: Mapping[str, str]) -> bool:
    """Return whether the basket is that of typed weights: it was chosen, or none was and a weight
    was typed.
    """
    basket = field_texts.get("basket", "").strip()
    return basket == OWN_WEIGHTS or (not basket and _has_typed_weights(field_texts))


def _has_typed_weights(field_texts: Mapping[str, str]) -> bool:
    return any(
        field.startswith(SHARE_FIELD_PREFIX) and not NO_SHARE_PATTERN.fullmatch(_percent(text))
        for field, text in field_texts.items()
    )


def _with_own_weights(
    answers: InitAnswers, field_texts: Mapping[str, str], offered_baskets: list[Basket]
) -> InitAnswers:
    """Return the answers with weights typed in percent. Errors speak of the fields of the page."""
    share_by_symbol = {
        symbol: _percent(share_text)
        for symbol in _token_symbols(answers)
        if (share_text := field_texts.get(SHARE_FIELD_PREFIX + symbol, "")).strip()
    }
    if not share_by_symbol:
        raise ConfigError("No weights were entered", "write the share of each token in percent")
    wrong_symbols = wrong_shares(field_texts)
    wrong_texts = [
        f"{symbol}: {share_by_symbol[symbol][:20]!r} is not a share in percent"
        for symbol in share_by_symbol
        if symbol in wrong_symbols
    ]
    if wrong_texts:
        raise ConfigError("; ".join(wrong_texts), "write 0 to 100, with a point, such as 60.5")
    targets_text = " ".join(f"{symbol}={share}%" for symbol, share in share_by_symbol.items())
    return answers.with_basket(targets_text, offered_baskets)


def wrong_shares(field_texts: Mapping[str, str]) -> list[str]:
    """Return the symbols of typed weights that are no shares in percent."""
    return [
        field.removeprefix(SHARE_FIELD_PREFIX)
        for field, text in field_texts.items()
        if field.startswith(SHARE_FIELD_PREFIX)
        and text.strip()
        and not SHARE_PATTERN.fullmatch(_percent(text))
    ]


def _percent(share_text: str) -> str:
    return share_text.strip().removesuffix("%").strip()


def error_text(error: ConfigError) -> str:
    """Return an error of a field: what is wrong, and what to do."""
    sentences = [OPTION_PREFIX_PATTERN.sub("", error.message), error.remedy]
    return " ".join(f"{as_sentence(sentence)}." for sentence in sentences if sentence)


def _first_purchase_note(config: Config) -> str:
    """Return how the first purchase goes, and that it waits for an allocator's first choice."""
    allocator = config.portfolio.weights
    waits = allocator is not None and allocator.until_chosen == "wait"
    return f"{WAIT_NOTE} {FIRST_PURCHASE_NOTE}" if waits else FIRST_PURCHASE_NOTE


def _costs(answers: InitAnswers) -> CostSummary:
    try:
        return answers.costs()
    except ConfigError as error:
        return {**NO_COSTS, "alarms": [error_text(error)]}


def _same_holdings_text(
    basket: Basket, offered_baskets: Sequence[Basket], chain_limits: Mapping[str, str]
) -> str:
    """Return what tells a basket from an earlier one with the same holdings; empty without one. The
    limits of a local chain hold for every basket.
    """
    earlier_baskets = offered_baskets[: offered_baskets.index(basket)]
    same_name = next(
        (other.name for other in earlier_baskets if other.targets == basket.targets), ""
    )
    if not same_name:
        return ""
    template = portfolio_templates.find_template(basket.name)
    earlier_limits = portfolio_templates.find_template(same_name).limits
    limits_text = ", ".join(
        f"{name.replace('_', ' ')} {limit}"
        for name, limit in template.limits.items()
        if name not in chain_limits
        and earlier_limits.get(name, LIMITS[name].initial_value) != limit
    )
    return f"Holds the same as {same_name}" + (
        f"; its limits: {limits_text}" if limits_text else ""
    )


def _basket_document(
    basket: Basket, offered_baskets: Sequence[Basket], chain_limits: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "name": basket.name,
        "same_as": _same_holdings_text(basket, offered_baskets, chain_limits),
        "about": basket.about.partition("; --")[0],  # without its option of the command
        "targets": [f"{symbol} {share}" for symbol, share in basket.targets],
        "minimum_capital": basket.minimum_capital,
        "minimum_capitals": basket.minimum_capitals,
        "past": basket.past_result,
        "other_years": basket.other_year_results,
        "past_falls": basket.past_falls,
    }


def _token_symbols(answers: InitAnswers) -> list[str]:
    return [token.symbol for token in find_preset(answers.network).tokens]
