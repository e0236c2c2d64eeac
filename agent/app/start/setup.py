"""A new config, written from options or answers."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.app.documents import fill
from agent.app.documents.owner import NewAssetDocument
from agent.app.documents.status import ceiling_warnings, minimum_totals_of_config
from agent.app.start import past_prices, past_results, tracking_losses
from agent.app.start.amounts import (
    LARGEST_CASH_USD,
    LARGEST_CEILING_USD,
    NUMERAIRE,
    ceiling_of,
    parse_amount,
    with_amounts,
)
from agent.app.start.doctor.route_checks import usual_route_warnings
from agent.app.start.shared_wallets import SHARED_WALLET_TEXT, configs_of_wallet
from agent.app.start.year_costs import year_cost_lines
from agent.chain import watch
from agent.chain.lens import query_lens
from agent.chain.rpc import Transport
from agent.chain.safe import SafeContract
from agent.config.load import (
    UNSAVED_REMEDY,
    load_config,
    load_config_text,
)
from agent.config.loaded import PAPER_FILE, USUAL_STORE, paper_file
from agent.config.networks.other_names import name_remedy
from agent.config.networks.presets import PRESETS, Preset, TemplateAsset
from agent.config.redaction import SQLITE_PREFIX
from agent.config.schema import Config
from agent.config.secrets.env_file import read_variables
from agent.config.tables.chain import RpcTable
from agent.config.tables.fields import parse_address, parse_variable
from agent.config.tables.futures import HyperliquidTable
from agent.config.tables.portfolio import NATIVE
from agent.config.variables import VARIABLES_KEY, Variables
from agent.config.writing import portfolio_templates
from agent.config.writing.futures_template import (
    find_futures_profile,
    futures_text,
    futures_weights,
    read_venue,
)
from agent.config.writing.portfolio_templates import PortfolioTemplate
from agent.config.writing.template import render_config, replace_setting, with_safe
from agent.config.writing.token_lists import read_token_list, refuse_look_alike
from agent.errors import READ_FAILURES, ConfigError, ErrorCode, TrimtabError
from agent.files import create_file
from agent.policy import minimum
from agent.reference import is_dollar
from agent.units import parse_bps, safe_label, value_text

if TYPE_CHECKING:
    from agent.app.documents.owner import (
        InitDocument,
    )


MAX_ROUND_AGE_S = 90_000
"""Maximum age of a round: the slowest feed heartbeat, a day, plus an hour of tolerance."""
MAX_ENDPOINT_PRICE_RATIO = Fraction(101, 100)
"""Largest ratio between the prices that two endpoints report."""
_PRICE_PATTERN = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def usd_price(
    numeraire: TemplateAsset,
    price: str | None,
    rpc: Sequence[tuple[str, str]],
    now_s: Callable[[], float] = time.time,
    *,
    variables: Variables,
) -> Fraction:
    """Return dollars per coin of the numeraire: `price`, 1 for a dollar token, or the token's feed
    at the endpoints of `rpc`, (variable, operator) pairs, whose URLs are in `variables`. Raises
    ConfigError without a price, or if endpoints disagree.
    """
    if price is not None:
        if not _PRICE_PATTERN.fullmatch(price) or Decimal(price) == 0:
            raise ConfigError(
                f"--price: {price!r} is not a price in dollars", "write a plain number such as 3000"
            )
        return Fraction(Decimal(price))
    if is_dollar(numeraire.symbol):
        return Fraction(1)
    endpoint_prices = (
        []
        if numeraire.feed is None
        else list(_feed_prices(numeraire.feed, rpc, variables, now_s()))
    )
    if (
        not endpoint_prices
        or max(endpoint_prices) > min(endpoint_prices) * MAX_ENDPOINT_PRICE_RATIO
    ):
        price_fault = "differs between endpoints" if endpoint_prices else "is unknown"
        raise ConfigError(
            f"--numeraire {numeraire.symbol}: the config's caps are in {numeraire.symbol}, and its price"
            f" {price_fault}",
            f"give dollars per {numeraire.symbol} by --price, or export"
            f" {rpc[0][0] if rpc else 'the --rpc variable'} to read its feed",
        )
    return min(endpoint_prices)


def _feed_prices(
    feed: str, rpc: Sequence[tuple[str, str]], variables: Variables, now_s: float
) -> Iterator[Fraction]:
    """Yield the dollar price from each endpoint that reports a fresh round."""
    for variable, operator in rpc:
        try:
            transport = _open_endpoint(variable, operator, variables)
            latest_round, _ = watch.read_feed(
                feed,
                query_lens(transport, [feed_call for _, feed_call in watch.feed_questions(feed)]),
            )
        except TrimtabError:
            continue
        if (
            latest_round is None
            or latest_round.answer <= 0
            or now_s - latest_round.updated_at_s > MAX_ROUND_AGE_S
        ):
            continue
        yield Fraction(latest_round.answer, 10**latest_round.decimals)


@dataclass(frozen=True, slots=True)
class FuturesStart:
    """Futures layer of a new config: a risk profile and target weights by symbol (none: the
    proportions of the spot targets). `venue` is the file or name of the venue; None stands for the
    config file that was given as network.
    """

    profile: str
    venue: Path | None
    targets: Sequence[tuple[str, str]] = ()

    def config_text(self, numeraire: str, assets: Sequence[TemplateAsset]) -> str:
        """Return the [futures] of the config. Raises ConfigError."""
        profile = find_futures_profile(self.profile)
        if self.venue is None:
            raise ConfigError(
                "--futures: no venue is given",
                "write --futures-venue hyperliquid-testnet or hyperliquid, or name the file of its"
                " contracts; docs/futures.md shows its form",
            )
        venue = read_venue(self.venue)
        spot_targets = {asset.symbol: asset.target for asset in assets}
        weights = futures_weights(venue, spot_targets, self.targets)
        return futures_text(profile, venue, numeraire, weights, spot_targets)


MIN_OPERATORS = 2
"""Operators that have to agree on a live chain (docs/endpoints.md#quorum)."""


@dataclass(frozen=True, slots=True)
class NewConfig:
    """What a new config is written from: the options of `trimtab init`, or the answers of a dialogue
    or a page. An empty text or tuple means not given.

    `targets` are (symbol or address, share) pairs, `endpoints` (variable, operator) pairs; without
    any, the endpoint is that of the local chain's config given as `network`. `numeraire_price` is in
    dollars, by default from the numeraire's feed. A `template` replaces the targets; `stable_share`
    is its share of stable tokens. `futures` adds a futures layer, its margin in the numeraire.
    `use_cash` is the maximum numeraire to take from the wallet, `alert_target` a target's (name,
    variable), `max_live_value` the cap on the managed value and on a day's payouts, by default
    `ceiling_of`. With `is_safe` the wallet is a Safe, whose owners sign.
    """

    network: str = "ethereum"
    wallet: str = ""
    targets: Sequence[tuple[str, str]] = ()
    numeraire: str = NUMERAIRE
    endpoints: Sequence[tuple[str, str]] = ()
    token_list: Path | None = None
    token_list_sha256: str | None = None
    template: str = ""
    stable_share: str | None = None
    numeraire_price: str | None = None
    futures: FuturesStart | None = None
    use_cash: str = ""
    alert_target: tuple[str, str] | None = None
    max_live_value: str = ""
    is_safe: bool = False


def write_new_config(path: Path, new_config: NewConfig) -> InitDocument:
    """Write a commented config. Raises ConfigError if the file exists, a symbol is unknown or
    ambiguous, or the shares do not sum to 100 %.
    """
    network = network_name(new_config.network)
    new_config = replace(new_config, network=network)
    numeraire = new_config.numeraire
    endpoints = new_config.endpoints
    token_list = new_config.token_list
    preset = find_preset(network)
    if new_config.token_list_sha256 is not None and token_list is None:
        raise ConfigError(
            "--token-list-sha256: no token list is given",
            "add --token-list FILE, or omit the hash",
        )
    parsed_token_list = None
    if token_list is not None:
        parsed_token_list = read_token_list(
            token_list, preset.chain_id, new_config.token_list_sha256
        )
    listed_tokens = () if parsed_token_list is None else parsed_token_list.tokens
    chosen_template = _chosen_template(new_config)
    targets = new_config.targets
    if chosen_template is not None:
        targets = portfolio_templates.template_targets(
            chosen_template, preset, new_config.stable_share
        )
    assets = [
        _template_asset(symbol_or_address, share_text, preset, listed_tokens)
        for symbol_or_address, share_text in targets
    ]
    symbols = [asset.symbol for asset in assets]
    if numeraire not in symbols:
        raise ConfigError(
            f"--numeraire: {numeraire!r} is not a target",
            f"choose from {', '.join(symbols)}, or add it as a target",
        )
    require_endpoints(endpoints, "--rpc", is_local=network not in PRESETS, option="--rpc ")
    variables = read_variables(path.absolute().parent, (variable for variable, _ in endpoints))
    numeraire_usd = usd_price(
        assets[symbols.index(numeraire)],
        new_config.numeraire_price,
        endpoints,
        variables=variables,
    )
    local_chain = None if endpoints else local_start(network)
    config_text = render_config(
        preset,
        parse_address(new_config.wallet, "--wallet"),
        assets,
        _hubs(preset, assets),
        numeraire,
        endpoints if local_chain is None else [("LOCAL", "local")],
        numeraire_usd,
    )
    if chosen_template is not None:
        config_text = portfolio_templates.apply_template(config_text, chosen_template)
    futures = new_config.futures
    if futures is not None:
        if futures.venue is None and network not in PRESETS:
            futures = replace(futures, venue=Path(network))
        config_text += futures.config_text(numeraire, assets)
    config_text = _with_entered_amounts(config_text, new_config, numeraire, numeraire_usd)
    config_text = _with_alert_and_key(config_text, new_config, local_chain)
    config_text = replace_setting(config_text, f"sqlite:///{USUAL_STORE}", own_store_url(path))
    safe_warnings = _safe_warnings(new_config, variables)
    if new_config.is_safe:
        config_text = with_safe(config_text)
    config = _buildable_config(config_text, path)
    try:
        create_file(path, config_text.encode())
    except FileExistsError:
        raise existing_config_error(path) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}", "choose a folder that exists"
        ) from None
    use_cash_text = config.portfolio.use_cash
    ceiling = config.portfolio.max_live_value
    cash_amount = None if use_cash_text is None else Fraction(use_cash_text)
    assumed_capital = (
        Fraction(ceiling) if cash_amount is None and ceiling is not None else cash_amount
    )
    minimum_totals = minimum_totals_of_config(config, numeraire_usd, assumed_capital)
    loss = (
        None
        if assumed_capital is None
        else tracking_losses.config_loss_document(config, numeraire_usd, assumed_capital)
    )
    config_option = "" if path == Path("trimtab.toml") else f" --config {shlex.quote(str(path))}"
    next_commands = [
        f"export {variable}=…  (endpoint of operator {operator})"
        for variable, operator in endpoints
    ]
    trimtab_commands = ["doctor", "trust"]
    if isinstance(config.futures, HyperliquidTable):
        trimtab_commands += ["paper --once --value 800 --margin 100", "delegate"]
    next_commands += [
        f"trimtab {trimtab_command}{config_option}" for trimtab_command in trimtab_commands
    ]
    return {
        "config": str(path),
        "chain_id": preset.chain_id,
        "token_list_sha256": None if parsed_token_list is None else parsed_token_list.digest,
        "template": None if chosen_template is None else chosen_template.name,
        "numeraire": numeraire,
        "numeraire_usd": value_text(numeraire_usd, 0, 10),
        "ceiling": ceiling,
        "least_total": minimum_totals,
        "assets": [fill(NewAssetDocument, asset) for asset in assets],
        "warnings": [
            *(() if parsed_token_list is None else parsed_token_list.warnings),
            *minimum.asset_count_warnings(len(assets)),
            *ceiling_warnings(config, numeraire_usd, cash_amount),
            *_depeg_warnings(config),
            *usual_route_warnings(config),
            *_store_warnings(path, config.store.url),
            *safe_warnings,
            *_shared_wallet_warnings(path, config, network),
            *([] if loss is None else loss["warnings"]),
        ],
        "next": next_commands,
        "year_costs": []
        if assumed_capital is None
        else [
            *([] if loss is None else loss["lines"]),
            *tracking_losses.first_purchase_lines(config, numeraire_usd, assumed_capital),
            *year_cost_lines(config, numeraire_usd, assumed_capital),
            *past_results.small_money_lines(new_config.template, network),
        ],
        "tracking_loss": loss,
    }


def _buildable_config(config_text: str, path: Path) -> Config:
    """Return the config of a text before it is written. Raises ConfigError, also for rules that
    cannot be built, since a file that is there is never replaced.
    """
    loaded_config = load_config_text(
        config_text, path.absolute(), "the new config", remedy=UNSAVED_REMEDY
    )
    past_prices.needed_past_prices(loaded_config)
    return loaded_config.config


def _depeg_warnings(config: Config) -> list[str]:
    """Return a warning if limits.depeg is off, as it is where the numeraire has no feed."""
    if config.limits.depeg is not None:
        return []
    numeraire = config.portfolio.numeraire
    return [
        f"limits.depeg is off, because {numeraire} has no price feed here: a {numeraire} that leaves"
        " its peg is not noticed"
    ]


def existing_config_error(path: Path) -> ConfigError:
    """Return the error for a new config whose file exists."""
    return ConfigError(
        f"{path}: exists already; nothing was changed",
        "name another file, such as --config other.toml, or run it in another directory",
        code=ErrorCode.EXISTS,
    )


def own_store_url(config: Path) -> str:
    """Return the store's URL of a new config: a file of the config's name, so that each of several
    configs in a folder has its own; the usual one for a name that is reserved or no part of a URL.
    """
    is_plain = re.fullmatch(r"[A-Za-z0-9_-]+", config.stem) and config.stem != Path(PAPER_FILE).stem
    return f"{SQLITE_PREFIX}{f'{config.stem}.db' if is_plain else USUAL_STORE}"


def _store_warnings(config: Path, url: str) -> list[str]:
    """Return a warning if the new config's store exists, live or on paper: it may belong to another
    portfolio.
    """
    live_path = config.parent / url.removeprefix(SQLITE_PREFIX)
    store_path = next((path for path in (live_path, paper_file(live_path)) if path.exists()), None)
    if store_path is None:
        return []
    return [
        f"store.url: {store_path.name} exists already, and a store serves one portfolio; if it belongs"
        f' to another config, set [store] url = "sqlite:///{config.stem}-new.db"'
    ]


def _shared_wallet_warnings(path: Path, config: Config, network: str) -> list[str]:
    """Return a warning for each config beside the new one, or the local chain's, of the same wallet
    that has a store.
    """
    further_paths = []
    remedy = "use another wallet for this one"
    if _is_file(network):
        further_paths.append(Path(network).absolute())
        safe_option = " --safe" if config.wallet.safe else ""
        remedy = (
            "start a chain of its own for this one: trimtab localchain --port 8546"
            f"{safe_option} --write-config other.toml"
        )
    folder = path.absolute().parent
    return [
        f"wallet.address: {other_path.name if other_path.parent == folder else other_path} is a config"
        f" of the same wallet, {config.wallet.address}; {SHARED_WALLET_TEXT}: {remedy}. Only if this one"
        " shall replace the other, end that first:"
        f" trimtab stop --config {shlex.quote(str(other_path))} --send"
        for other_path in configs_of_wallet(path, config, further_paths)
    ]


@dataclass(frozen=True, slots=True)
class LocalStart:
    """Wallet and endpoint of a local chain: its published test account or Safe, its URL; and of its
    config the waits of the policy, which suit an idle chain, and the limits of turnover, with which
    several rebalances of a day can be tried.
    """

    wallet: str
    url: str
    policy_settings: Mapping[str, str | int]
    turnover_limits: Mapping[str, str]


def local_start(network: str) -> LocalStart | None:
    """Return wallet and endpoint from the config file of a local chain; None for any other network,
    which gets neither from a file. Raises ConfigError for an invalid file.
    """
    if network in PRESETS or not _is_file(network):
        return None
    loaded_config = load_config(network)
    config = loaded_config.config
    tables = loaded_config.toml_values
    url = config.chain.rpc[0].url
    is_local = config.chain.is_local and not config.chain.fork
    has_own_wallet = config.wallet.test_account is not None or config.wallet.safe
    if not is_local or not has_own_wallet or url is None:
        return None
    return LocalStart(
        config.wallet.address,
        url.get_secret_value(),
        _written(tables["policy"], "cooldown", "confirm_blocks"),
        _written(tables["limits"], "turnover", "daily_turnover"),
    )


def _written(table: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return those of the keys that a table has, with their values."""
    return {key: table[key] for key in keys if key in table}


def network_name(text: str) -> str:
    """Return a network's name as it is written, in any case; another text unchanged."""
    return text.lower() if text.lower() in PRESETS else text


def find_preset(network: str) -> Preset:
    """Return the preset of a network's name, or of the config file of a local chain. Raises
    ConfigError.
    """
    if network in PRESETS:
        return PRESETS[network]
    if not _is_file(network):
        is_path = Path(network).suffix or len(Path(network).parts) > 1
        fault = f"not found in {Path.cwd()}" if is_path else "not known"
        raise ConfigError(
            f"--network: {network[:60]!r} is {fault}",
            f"choose from {', '.join(PRESETS)}, name the config of a trimtab localchain, or write"
            " the config yourself",
        )
    loaded_config = load_config(network)
    config = loaded_config.config
    is_live = config.chain.fork or not config.chain.is_local  # a fork has the id of a live chain
    if is_live:
        raise ConfigError(
            f"--network {network}: not the config of a local chain",
            "start one with trimtab localchain --write-config FILE",
        )
    tokens = [
        TemplateAsset(token.symbol, token.address, "", token.feed, token.decimals)
        for token in config.portfolio.listed_tokens
    ]
    return Preset(
        config.chain.chain_id,
        config.chain.wrapped_native,
        tuple(loaded_config.toml_values["venues"]),
        tuple(tokens),
    )


def _is_file(path_text: str) -> bool:
    try:
        return Path(path_text).is_file()
    except OSError:  # for example a name that is too long
        return False


def _with_entered_amounts(
    config_text: str, new_config: NewConfig, numeraire: str, numeraire_usd: Fraction
) -> str:
    """Return the text of a config with the cash and ceiling of the options. Raises ConfigError."""

    def amount(amount_text: str, option: str, largest_usd: int) -> str | None:
        if amount_text in ("", "off"):
            return amount_text or None
        largest = largest_usd / numeraire_usd
        return parse_amount(amount_text, option, "write 1000", numeraire, largest)

    use_cash = amount(new_config.use_cash, "--use-cash", LARGEST_CASH_USD)
    ceiling = amount(new_config.max_live_value, "--ceiling", LARGEST_CEILING_USD)
    return with_amounts(config_text, use_cash, ceiling or ceiling_of(use_cash, numeraire_usd))


def _with_alert_and_key(
    config_text: str, new_config: NewConfig, local_chain: LocalStart | None
) -> str:
    """Return the config with an alert target, on a local chain with its test key or Safe, and with
    the endpoint, waits and turnover limits of `local_chain`. Raises ConfigError.
    """
    if local_chain is not None:
        url_line = f"url = {json.dumps(local_chain.url)}"
        config_text = replace_setting(config_text, "^url_env = .*", url_line)
        settings = {**local_chain.policy_settings, **local_chain.turnover_limits}
        for key, value in settings.items():
            setting_line = f"{key} = {json.dumps(value)}"
            config_text = replace_setting(config_text, f"^{key} = [^ \n]*", setting_line)
    if new_config.alert_target is not None:
        target_name, variable = new_config.alert_target
        parse_variable(variable, "--alert NAME=VARIABLE")
        config_text += f"[[alerts.targets]]\nname = {json.dumps(target_name)}\nurl_env = {json.dumps(variable)}\n"
    if new_config.network not in PRESETS:
        chain_wallet = load_config(new_config.network).config.wallet
        is_chain_wallet = chain_wallet.address == parse_address(new_config.wallet, "--wallet")
        if is_chain_wallet and chain_wallet.safe:
            config_text = with_safe(config_text)
        if is_chain_wallet and chain_wallet.test_account is not None:
            key_line = f"test_account = {chain_wallet.test_account}"
            key_line += "                 # a published test key, for local chains alone"
            config_text = replace_setting(config_text, '^keystore = "wallet.json".*', key_line)
    return config_text


def _safe_warnings(new_config: NewConfig, variables: Variables) -> list[str]:
    """Return a warning if the wallet is a Safe at an endpoint that answers, and --safe is missing.
    With --safe, raise ConfigError if it is none of a supported version.
    """
    for variable, operator in new_config.endpoints:
        try:
            transport = _open_endpoint(variable, operator, variables)
            transport.call("eth_chainId", [])
        except TrimtabError:
            continue
        contract = SafeContract(transport, parse_address(new_config.wallet, "--wallet"))
        if new_config.is_safe:
            with suppress(*READ_FAILURES):
                contract.require_supported()
        elif signers_text := contract.signers_text():
            return [
                f"the wallet is {signers_text}, and this config signs with a key: delete it and run"
                " trimtab init --safe"
            ]
    return []


def _open_endpoint(variable: str, operator: str, variables: Variables) -> Transport:
    """Open an endpoint of --rpc, for a short wait. Raises ConfigError if its variable is not set."""
    endpoint = RpcTable.model_validate(
        {"operator": operator, "url_env": variable}, context={VARIABLES_KEY: variables}
    )
    return wiring.open_transport(
        endpoint.model_copy(update={"timeout": past_prices.NEW_CONFIG_TIMEOUT_S})
    )


def require_endpoints(
    endpoints: Sequence[tuple[str, str]], field: str, *, is_local: bool, option: str = ""
) -> None:
    """Raise ConfigError unless the (variable, operator) pairs of `field` are valid, each variable is
    named once, and as many operators as have to agree are named: two on a live chain. Examples have
    `option` before each pair.
    """
    first_example = f"{option}RPC_URL_1=alchemy"
    examples = f"for example {first_example} {option}RPC_URL_2=infura"
    for variable, operator in endpoints:
        parse_variable(variable, field)
        if safe_label(operator, "") == "":
            raise ConfigError(
                f"{field}: the operator is up to 16 letters, digits, . _ -",
                f"for example {first_example}",
            )
    if len({variable for variable, _ in endpoints}) < len(endpoints):
        raise ConfigError(
            f"{field}: a variable is named twice, and its one endpoint cannot agree with itself",
            examples,
        )
    if not is_local and len({operator for _, operator in endpoints}) < MIN_OPERATORS:
        raise ConfigError(
            f"{field}: two different operators are needed, because money moves only when they agree",
            "add an endpoint of a second provider, which needs an account there; a node of this"
            f" machine may stand for both, with two variables: {examples}",
        )


def _chosen_template(new_config: NewConfig) -> PortfolioTemplate | None:
    """Return the named template, if any. Raises ConfigError unless targets or a template are
    given.
    """
    if not new_config.template:
        if new_config.stable_share is not None:
            raise ConfigError(
                "--stable: only valid with --template stable-reserve",
                "set the stable token's share with --target",
            )
        if not new_config.targets:
            raise ConfigError(
                "--target: missing",
                "give each token by --target SYMBOL=SHARE, or a ready portfolio by --template",
            )
        return None
    if new_config.targets:
        raise ConfigError("--target: a template has its own targets", "omit --template or --target")
    return portfolio_templates.find_template(new_config.template)


def _hubs(preset: Preset, assets: Sequence[TemplateAsset]) -> list[TemplateAsset]:
    """Return the wrapped native coin as a hub unless it is an asset. It prices gas, and most pools
    trade it.
    """
    if {preset.wrapped_native, NATIVE} & {asset.address for asset in assets}:
        return []
    return [token for token in preset.tokens if token.address == preset.wrapped_native]


def _template_asset(
    symbol_or_address: str, share_text: str, preset: Preset, listed_tokens: Sequence[TemplateAsset]
) -> TemplateAsset:
    """Return the asset for a symbol, an address or "native", with its share. Raises ConfigError for
    an unknown or ambiguous symbol.
    """
    target_text = f"{parse_bps(share_text, f'--target {symbol_or_address}') / 100:g}%"
    if symbol_or_address == NATIVE:
        return next(
            replace(
                token, symbol=token.symbol.removeprefix("W"), address=NATIVE, target=target_text
            )
            for token in preset.tokens
            if token.address == preset.wrapped_native
        )
    feed_by_address = {token.address: token.feed for token in preset.tokens}
    if symbol_or_address.startswith("0x"):
        address = parse_address(symbol_or_address, "--target")
        unlisted_token = TemplateAsset(
            f"T{address[2:8]}", address, target_text, feed_by_address.get(address)
        )
        return next(
            (
                replace(token, target=target_text)
                for token in (*preset.tokens, *listed_tokens)
                if token.address == address
            ),
            unlisted_token,
        )
    # The preset's entry takes precedence over the token list's, because it has the feed.
    matching_token_by_address = {
        token.address: token
        for token in reversed((*preset.tokens, *listed_tokens))
        if token.symbol == symbol_or_address
    }
    refuse_look_alike(
        symbol_or_address, next(iter(matching_token_by_address), None), preset.tokens, listed_tokens
    )
    if not matching_token_by_address:
        raise ConfigError(
            f"--target: {symbol_or_address!r} is not a known token",
            name_remedy(symbol_or_address, preset.chain_id)
            or f"known are {', '.join(token.symbol for token in preset.tokens)}; give any other token"
            " by address, or by --token-list",
        )
    if len(matching_token_by_address) > 1:
        raise ConfigError(
            f"--target: {symbol_or_address!r} matches several tokens: {', '.join(sorted(matching_token_by_address))}",
            "give the address instead",
        )
    return replace(next(iter(matching_token_by_address.values())), target=target_text)
