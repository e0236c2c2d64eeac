#!/usr/bin/env python3
"""Extract what published npm packages say of the networks in agent/config/networks, each value with
the files that state it, into tests/data/published_addresses.json. No code of the packages is run.

    .venv/bin/python scripts/make/published_addresses.py [--check]

--check compares with the file instead of writing it. Every package is pinned by version and hash.
"""

import base64
import hashlib
import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from eth_utils import to_checksum_address

from agent.artifacts import run_node
from agent.config.networks import NETWORKS, Network

RECORD = Path(__file__).resolve().parents[2] / "tests" / "data" / "published_addresses.json"

PACKAGES = {
    "@aave-dao/aave-address-book": (
        "4.68.1",
        "sha512-Tw1j/0OGN90m6cpaiNwpizxkBq4XzVgJqhz/fWdq9wF7yc2MAghVrsRWrCICBUiG+P7GKYd84mwULH0XVW3QTA==",
    ),
    "@dromos-labs/sdk.js": (
        "0.3.0-alpha.3",
        "sha512-WGn9GNHsO05bHViMbaSt4fAY3rnuvV/jtzpwNjcHY1tCxZRIhZmAFve13avsMmQFaFM0v4g0WznbFs3XHOOCXw==",
    ),
    "@enzymefinance/environment": (
        "6.3.61",
        "sha512-gL9MT9csPbnOPcq+sC10HdbmU0FyuXTpgWnxEO/hYE1ksATrQag4in6JJjho3Vj6eEMWf1liGIPGLVZ9DpmPjw==",
    ),
    "@pancakeswap/smart-router": (
        "7.7.3",
        "sha512-Ar1Fbo287arowv4X8AG7scaIwCCuEnNgGWYZBW9tCnH3B/9WeD9fHpKH3KeQmOeYriIGm9WAJSUMmapvd6E5gQ==",
    ),
    "@pancakeswap/tokens": (
        "0.9.1",
        "sha512-jIrJm0K+Cn665or6xHvKW44B7+Ya2jo5L/HWsE+Z1556nVFiaVfIWx6AKIMNACLDeAsgRBs/LOdJqtJzTxmFcQ==",
    ),
    "@pancakeswap/v2-sdk": (
        "1.2.2",
        "sha512-HfTNZIxs8Rn1whnV8/sbZTvSxR2Xp7jhbe4KNSQMyO7XqIJx5k32MHufOYK9e569vZf8719SW/KyLVm2qxtZMw==",
    ),
    "@pancakeswap/v3-sdk": (
        "3.10.2",
        "sha512-jHx+aEG4aYBnMU9Ks5uSRV9Y8mCM6JCwV47tD8mWRMk+EpOQc7S9zMeIqj+9LhNxKqZovmo870m7nk0XWTxz3Q==",
    ),
    "@paraswap/dex-lib": (
        "5.0.6",
        "sha512-m1WiNAtB1e+miR3T64ZHjpFh0h1mLYVd7QdSr5PQR6+opim87gxIwgxQkNOasGvJp99m79cn/TT82FYnXIVSgA==",
    ),
    "@uniswap/default-token-list": (
        "22.21.0",
        "sha512-X6OAvgmVR8lqd8Reyjm8pAozrWZXdfjlgevDSFofKafZD5SFXCMBnLPXImMcMdh0I15hre/1EO0xXL6h37KWYQ==",
    ),
    "@uniswap/permit2-sdk": (
        "1.4.0",
        "sha512-l/aGhfhB93M76vXs4eB8QNwhELE6bs66kh7F1cyobaPtINaVpMmlJv+j3KmHeHwAZIsh7QXyYzhDxs07u0Pe4Q==",
    ),
    "@uniswap/sdk-core": (
        "7.19.4",
        "sha512-jV9qVMMD6qvEATgfFnZ3QgrhIMv5lullzeGPWjyC4+sUctatft+1M+OtAZxxjbFm8NQfJA73hqIeFPOg4cUyoA==",
    ),
    "@uniswap/smart-order-router": (
        "4.31.10",
        "sha512-Bmg46KXDSfE1AAf1tPg+vDzMngVoGfzdohekhjJ1hIQG13tXcjEykqapQy+CrJUqXLL3lQvZj2uVEKfzCNH74Q==",
    ),
    "@uniswap/universal-router-sdk": (
        "5.13.0",
        "sha512-eAk5or7kZMV2ZlVr+NN0taDOm8MQs9KMfSEwXvC4ggfufVuswux/uVk2sNFx7C69f2Pj6bXLkZHoNH4xv1eqiA==",
    ),
    "@uniswap/v2-sdk": (
        "4.21.0",
        "sha512-enr8SZRwrSgc/TYGJv4YS5f9oV049HwZJUF/xy1ZS4Vf55ie282SwkPZNMjA7IV+cYPtl6HKermaebXlneDEbg==",
    ),
    "@uniswap/v3-sdk": (
        "3.31.0",
        "sha512-7M9LXSO+XhB/Y+9SwONHaiJqYSTlHMqOSqeWGpSNAQOZZd5P7z/FXyWmvL1OogVsghW0mMAwvNc+YHQvrI7ksg==",
    ),
    "viem": (
        "2.57.20",
        "sha512-LSvREzKT7xFXpmxW2YFJ/OtcZRkSGLp5zywSgadBf0qQCeqh2+FxHHWyrS2zEG7ZfBWQQvk8HI1i4HPzSMD14g==",
    ),
}
"""Version and hash (npm's integrity) of each package."""


class Names(NamedTuple):
    """What the packages call a network."""

    viem: str
    sdk_core: str
    dex_lib: str
    aave: str
    pancake: str


NAMES = {
    1: Names("mainnet", "MAINNET", "MAINNET", "Ethereum", "ETHEREUM"),
    10: Names("optimism", "OPTIMISM", "OPTIMISM", "Optimism", ""),
    56: Names("bsc", "BNB", "BSC", "BNB", "BSC"),
    130: Names("unichain", "UNICHAIN", "UNICHAIN", "", ""),
    137: Names("polygon", "POLYGON", "POLYGON", "Polygon", ""),
    8453: Names("base", "BASE", "BASE", "Base", "BASE"),
    42161: Names("arbitrum", "ARBITRUM_ONE", "ARBITRUM", "Arbitrum", "ARBITRUM_ONE"),
}
WRAPPED = {"WETH_UNDERLYING", "WBNB_UNDERLYING", "WPOL_UNDERLYING"}
SLIPSTREAM = {
    8453: "AerodromeSlipstream",
    10: "VelodromeSlipstreamNewFactory",
    130: "VelodromeSlipstream",
}
"""The deployment in dex-lib that our preset has."""

Read = Callable[[str], str]
"""Text of a file of the reader's package."""
Found = tuple[str, object, str]
"""Key, value, file."""


def block(text: str, opening: str) -> str:
    """Return what stands in the braces that follow `opening`; empty without them."""
    rest = text.partition(opening + "{")[2]
    depth = 1
    for index, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:index]
    return ""


def only(pattern: str, text: str) -> str:
    """Return the first match of a pattern. Raises ValueError if a package no longer says so."""
    found = re.search(pattern, text, re.DOTALL)
    if found is None:
        raise ValueError(f"no {pattern}")
    return found[1] if found.re.groups else found[0]


def values(text: str) -> dict[str, str]:
    """Return the fields `name: 'value'` of a block."""
    return dict(re.findall(r"^\s*(\w+): ?['\"`]([^'\"`]*)['\"`]", text, re.MULTILINE))


def viem(read: Read, network: Network) -> Iterator[Found]:
    file = f"chains/definitions/{NAMES[network.chain_id].viem}.ts"
    text = read(file).replace("_", "")
    for key, pattern in {
        "chain_id": r"\n  id: (\d+)",
        "title": r"\n  name: '([^']+)'",
        "native_symbol": r"symbol: '([^']+)'",
        "explorer": r"\n      url: '([^']+)'",
    }.items():
        yield key, re.findall(pattern, text)[0], file
    if block_ms := re.search(r"\n  blockTime: (\d+)", text):
        yield "block_ms", block_ms[1], file
    else:
        stack_file = "op-stack/chainConfig.ts"
        yield (
            "block_ms",
            read(stack_file).replace("_", "").split("blockTime: ")[1].split(",")[0],
            stack_file,
        )


def sdk_core(read: Read, network: Network) -> Iterator[Found]:
    name = NAMES[network.chain_id].sdk_core
    file = "dist/cjs/src/addresses.js"
    text = read(file)
    own = block(text, f"const {name}_ADDRESSES = ")
    shared = (
        values(block(text, "const DEFAULT_ADDRESSES = ")) if "...DEFAULT_ADDRESSES" in own else {}
    )
    fields = {**shared, **values(own)}
    router = only(r"const SWAP_ROUTER_02_ADDRESSES .*?: '(0x\w{40})';", text)
    v3 = {
        "factory": fields["v3CoreFactoryAddress"],
        "router": fields.get("swapRouter02Address", router),
        # The shared deployment has the first Quoter here, all others QuoterV2.
        "quoter_v1" if shared else "quoter": fields["quoterAddress"],
        "position_manager": fields["nonfungiblePositionManagerAddress"],
    }
    v4 = {
        "pool_manager": fields["v4PoolManagerAddress"],
        "state_view": fields["v4StateView"],
        "quoter": fields["v4QuoterAddress"],
        "position_manager": fields["v4PositionManagerAddress"],
    }
    for field in ("factory", "router"):
        addresses = block(text, f"exports.V2_{field.upper()}_ADDRESSES = ")
        yield (
            f"venues.uniswap_v2.{field}",
            only(rf"ChainId\.{name}\]: '(0x\w+)'", addresses),
            file,
        )
    yield from ((f"venues.uniswap_v3.{field}", address, file) for field, address in v3.items())
    yield from ((f"venues.uniswap_v4.{field}", address, file) for field, address in v4.items())
    file = "dist/cjs/src/chains.js"
    yield "chain_id", only(rf'ChainId\["{name}"\] = (\d+)', read(file)), file
    file = "dist/cjs/src/entities/weth9.js"
    address, decimals, symbol = re.findall(
        rf"\n    {network.chain_id}: new token_1\.Token\(\d+, '(0x\w+)', (\d+), '(\w+)'", read(file)
    )[0]
    yield "wrapped_native", address, file
    yield f"tokens.{address}.decimals", decimals, file
    yield f"tokens.{address}.symbol", symbol, file


def smart_order_router(read: Read, network: Network) -> Iterator[Found]:
    """QuoterV2 alone; the other addresses are those of sdk-core."""
    file = "build/main/util/addresses.js"
    name = NAMES[network.chain_id].sdk_core
    text = read(file).split("exports.QUOTER_V2_ADDRESSES = Object")[1].split(";")[0]
    if f"ChainId.{name}].quoterAddress" in text:
        addresses = read_package("@uniswap/sdk-core", "dist/cjs/src/addresses.js")
        yield (
            "venues.uniswap_v3.quoter",
            values(block(addresses, f"const {name}_ADDRESSES = "))["quoterAddress"],
            file,
        )
    else:
        shared = re.findall(
            r"NETWORKS_WITH_SAME_UNISWAP_ADDRESSES = \[(.*?)\]",
            read("build/main/util/chains.js"),
            re.DOTALL,
        )[0]
        only(rf"ChainId\.{name},", shared)
        yield (
            "venues.uniswap_v3.quoter",
            only(r"constructSameAddressMap\('(0x\w+)'\)", text),
            file,
        )


def universal_router(read: Read, network: Network) -> Iterator[Found]:
    file = "dist/cjs/src/utils/constants.js"
    config = block(block(read(file), "exports.CHAIN_CONFIGS = "), f"[{network.chain_id}]: ")
    yield "wrapped_native", values(config)["weth"], file
    yield (
        "venues.uniswap_v4.router",
        values(block(config, "[UniversalRouterVersion.V2_0]: "))["address"],
        file,
    )


def permit2(read: Read, network: Network) -> Iterator[Found]:
    file = "dist/cjs/src/constants.js"
    text = read(file)
    only(rf"permit2Address\(chainId\) {{(?!.*case {network.chain_id}:).*default:", text)
    yield (
        "venues.uniswap_v4.permit2",
        only(r"exports\.PERMIT2_ADDRESS = '(0x\w+)'", text),
        file,
    )


def v2_sdk(read: Read, _: Network) -> Iterator[Found]:
    file = "dist/cjs/src/constants.js"
    text = read(file)
    yield (
        "venues.uniswap_v2.init_code_hash",
        only(r"exports\.INIT_CODE_HASH = '(0x\w+)'", text),
        file,
    )
    factor, unit = (
        int(only(rf"exports\._{name} = jsbi_1\.default\.BigInt\((\d+)\)", text))
        for name in ("997", "1000")
    )
    yield "venues.uniswap_v2.fee_pips", 10**6 * (unit - factor) // unit, file


def v3_sdk(read: Read, network: Network) -> Iterator[Found]:
    file = "dist/cjs/src/constants.js"
    text = read(file)
    name = NAMES[network.chain_id].sdk_core
    only(rf"poolInitCodeHash\(chainId\) {{(?!.*ChainId\.{name}:).*default:", text)
    yield (
        "venues.uniswap_v3.init_code_hash",
        only(r"exports\.POOL_INIT_CODE_HASH = '(0x\w+)'", text),
        file,
    )


def dex_lib(read: Read, network: Network) -> Iterator[Found]:
    name = f"[constants_1.Network.{NAMES[network.chain_id].dex_lib}]: "
    chain_id = network.chain_id

    def config(dex: str, deployment: str) -> tuple[str, str]:
        file = f"build/dex/{dex}/config.js"
        configs = only(r"exports\.\w+Config = \{.*", read(file))
        return block(block(configs, f"\n    {deployment}: "), name), file

    file = "build/constants.js"
    yield (
        "chain_id",
        only(rf'Network\["{NAMES[chain_id].dex_lib}"\] = (\d+)', read(file)),
        file,
    )
    for venue, deployment in (("uniswap_v2", "UniswapV2"), ("pancake_v2", "PancakeSwapV2")):
        text, file = config("uniswap-v2", deployment)
        fields = values(text)
        if fields and (venue != "pancake_v2" or chain_id == 56):
            yield f"venues.{venue}.factory", fields["factoryAddress"], file
            yield f"venues.{venue}.init_code_hash", fields["initCode"], file
            yield (
                f"venues.{venue}.fee_pips",
                int(only(r"feeCode: (\d+)", text)) * 100,
                file,
            )
    text, file = config("uniswap-v3", "UniswapV3")
    fields = values(text)
    yield "venues.uniswap_v3.factory", fields["factory"], file
    yield "venues.uniswap_v3.quoter", fields["quoter"], file
    yield "venues.uniswap_v3.init_code_hash", fields["initHash"], file
    yield "venues.uniswap_v3.fee_tiers", fees(read(file), "SUPPORTED_FEES"), file
    if "UniswapV3Router.SwapRouter02" in text:
        yield "venues.uniswap_v3.router", fields["router"], file
    fields = values(config("uniswap-v4", "UniswapV4")[0])
    file = "build/dex/uniswap-v4/config.js"
    for field, theirs in {
        "pool_manager": "poolManager",
        "state_view": "stateView",
        "quoter": "quoter",
        "router": "router",
    }.items():
        yield f"venues.uniswap_v4.{field}", fields[theirs], file
    if chain_id == 56:
        text, file = config("pancakeswap-v3", "PancakeswapV3")
        fields = values(text)
        for field, theirs in {
            "factory": "factory",
            "deployer": "deployer",
            "quoter": "quoter",
            "init_code_hash": "initHash",
        }.items():
            yield f"venues.pancake_v3.{field}", fields[theirs], file
        yield "venues.pancake_v3.fee_tiers", fees(read(file), "PANCAKE_SUPPORTED_FEES"), file
    if chain_id in SLIPSTREAM:
        text, file = config("uniswap-v3", SLIPSTREAM[chain_id])
        fields = values(text)
        yield "venues.slipstream.factory", fields["factory"], file
        yield "venues.slipstream.quoter", fields["quoter"], file
        yield "venues.slipstream.router", fields["router"], file
        yield (
            "venues.slipstream.tick_spacings",
            integers(only(r"tickSpacings: \[(.*?)\]", text)),
            file,
        )


def fees(text: str, name: str) -> str:
    return integers(only(rf"const {name} = \[(.*?)\]", text))


def integers(text: str) -> str:
    """Return the integers of a text as one value, the smallest first."""
    return ", ".join(map(str, sorted(int(digits) for digits in re.findall(r"\d+", text))))


def dromos(read: Read, network: Network) -> Iterator[Found]:
    file = "dist/config.js"
    name = NAMES[network.chain_id].viem
    if network.chain_id in SLIPSTREAM:
        fields = values(read(file).split(f"CHAIN: {name},")[1].split("},")[0])
        if "SLIPSTREAM_FACTORY_ADDRESS" in fields:
            yield "venues.slipstream.factory", fields["SLIPSTREAM_FACTORY_ADDRESS"], file
        if "WRAPPED_NATIVE_TOKEN" in fields:
            yield "wrapped_native", fields["WRAPPED_NATIVE_TOKEN"], file
        yield "venues.slipstream.position_manager", fields["NFPM_ADDRESS"], file


def pancake_v2(read: Read, network: Network) -> Iterator[Found]:
    if network.chain_id == 56:
        file = "dist/index.mjs"
        text = read(file)
        yield (
            "venues.pancake_v2.factory",
            only(r'var FACTORY_ADDRESS = "(0x\w+)"', text),
            file,
        )
        yield (
            "venues.pancake_v2.init_code_hash",
            only(r'var INIT_CODE_HASH = "(0x\w+)"', text),
            file,
        )
        only(r"\[ChainId\.BSC\]: FACTORY_ADDRESS,", text)
        only(r"\[ChainId\.BSC\]: INIT_CODE_HASH,", text)
        only(r"inputAmount\.quotient \* _9975;", text)
        yield "venues.pancake_v2.fee_pips", 10**6 * (10_000 - 9975) // 10_000, file


def pancake_v3(read: Read, network: Network) -> Iterator[Found]:
    if network.chain_id == 56:
        file = "dist/constants.d.ts"
        for field, theirs in {
            "factory": "FACTORY_ADDRESSES",
            "deployer": "DEPLOYER_ADDRESSES",
            "position_manager": "NFT_POSITION_MANAGER_ADDRESSES",
            "init_code_hash": "POOL_INIT_CODE_HASHES",
        }.items():
            yield f"venues.pancake_v3.{field}", readonly(read(file), theirs), file
        yield "venues.pancake_v3.fee_tiers", integers(block(read(file), "enum FeeAmount ")), file


def readonly(text: str, name: str) -> str:
    """Return the value of BNB Smart Chain in a declared map."""
    return only(r'readonly 56: "(0x\w+)"', block(text, f"declare const {name}: "))


def pancake_router(read: Read, network: Network) -> Iterator[Found]:
    if network.chain_id == 56:
        file = "dist/evm/constants/exchange.d.ts"
        yield "venues.pancake_v3.router", readonly(read(file), "SMART_ROUTER_ADDRESSES"), file
        file = "dist/evm/constants/v3.d.ts"
        yield "venues.pancake_v3.quoter", readonly(read(file), "V3_QUOTER_ADDRESSES"), file
        file = "dist/chunk-545EKHJP.mjs"
        routers = block(read(file), "var V2_ROUTER_ADDRESS = ")
        yield (
            "venues.pancake_v2.router",
            only(r'\[ChainId\.BSC\]: "(0x\w+)"', routers),
            file,
        )


def pancake_tokens(read: Read, network: Network) -> Iterator[Found]:
    file = "dist/index.mjs"
    name = NAMES[network.chain_id].pancake
    pattern = rf'ChainId\.{name},\s+"(0x\w{{40}})",\s+(\d+),\s+"([^"]+)"'
    for address, decimals, symbol in re.findall(pattern, read(file)) if name else ():
        yield f"tokens.{to_checksum_address(address)}.decimals", decimals, file
        yield f"tokens.{to_checksum_address(address)}.symbol", symbol, file


def token_list(read: Read, network: Network) -> Iterator[Found]:
    file = "build/uniswap-default.tokenlist.json"
    for token in json.loads(read(file))["tokens"]:
        if token["chainId"] == network.chain_id:
            yield f"tokens.{token['address']}.decimals", token["decimals"], file
            yield f"tokens.{token['address']}.symbol", token["symbol"], file


def address_book(read: Read, network: Network) -> Iterator[Found]:
    if not (name := NAMES[network.chain_id].aave):
        return
    file = f"src/Chainlink{name}.sol"
    feeds = dict(re.findall(r"constant (\w+)\s*=\s*(0x\w{40});", read(file)))
    for feed, proxy in feeds.items():
        if feed == "L2_Sequencer_Uptime_Status_Feed":
            yield "sequencer_feed", proxy, file
        elif feed.endswith("__USD"):
            yield f"feeds.{feed.removesuffix('__USD')}", proxy, file
    yield "explorer", only(r"// (https://\S+)/address/", read(file)), file
    file = f"src/AaveV3{name}.sol"
    market = dict(re.findall(r"constant (\w+)\s*=\s*(\w+);", read(file)))
    for field, address in market.items():
        if field.endswith("_UNDERLYING"):
            yield (
                f"tokens.{address}.decimals",
                market[field.replace("_UNDERLYING", "_DECIMALS")],
                file,
            )
            # The book's own names are symbols for wrapped coins only: it has USDCn, BTCb, ONE_INCH.
            if field in WRAPPED:
                yield f"tokens.{address}.symbol", field.removesuffix("_UNDERLYING"), file


def enzyme(read: Read, network: Network) -> Iterator[Found]:
    """Tokens, and the feeds in dollars of tokens or of what Aave's receipts of them stand for."""
    if network.name not in {"ethereum", "base", "arbitrum", "polygon"}:
        return
    file = f"src/assets/{network.name}.ts"
    coins = {token.address: token.priced_as for token in network.tokens}
    for asset in read(file).split("\n  },\n"):
        fields = values(asset)
        if "symbol" not in fields or "id" not in fields:
            continue
        address = to_checksum_address(fields["id"])
        yield f"tokens.{address}.decimals", only(r"decimals: (\d+)", asset), file
        yield f"tokens.{address}.symbol", fields["symbol"], file
        priced = to_checksum_address(fields.get("underlying", address))
        if priced in coins and "rateAsset: RateAsset.USD" in asset and "peggedTo" not in asset:
            yield f"feeds.{coins[priced]}", fields["aggregator"], file


READERS = {
    "viem": viem,
    "@uniswap/sdk-core": sdk_core,
    "@uniswap/smart-order-router": smart_order_router,
    "@uniswap/universal-router-sdk": universal_router,
    "@uniswap/permit2-sdk": permit2,
    "@uniswap/v2-sdk": v2_sdk,
    "@uniswap/v3-sdk": v3_sdk,
    "@paraswap/dex-lib": dex_lib,
    "@dromos-labs/sdk.js": dromos,
    "@pancakeswap/v2-sdk": pancake_v2,
    "@pancakeswap/v3-sdk": pancake_v3,
    "@pancakeswap/smart-router": pancake_router,
    "@pancakeswap/tokens": pancake_tokens,
    "@uniswap/default-token-list": token_list,
    "@aave-dao/aave-address-book": address_book,
    "@enzymefinance/environment": enzyme,
}


@cache
def archive(package: str) -> Path:
    """Download the pinned package, and return its archive if its hash is the pinned one."""
    version, integrity = PACKAGES[package]
    folder = Path(tempfile.mkdtemp(prefix="published-"))
    run_node(["pack", "--silent", f"{package}@{version}"], folder, program="npm")
    (path,) = folder.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != integrity:
        raise SystemExit(f"{package}@{version} is not the pinned package: sha512-{digest}")
    return path


@cache
def read_package(package: str, file: str) -> str:
    with tarfile.open(archive(package)) as tar:
        if (member := tar.extractfile(f"package/{file}")) is None:
            raise ValueError(f"{package} has no {file}")
        return member.read().decode()


def published(network: Network) -> dict[str, dict[str, list[str]]]:
    """Return the files that state each value, by key and value. Tokens and feeds that the network
    does not name are left out.
    """
    ours = {f"tokens.{token.address}" for token in network.tokens} | {
        f"feeds.{coin}" for coin in network.feeds
    }
    sources: dict[str, dict[str, list[str]]] = {}
    for package, reader in READERS.items():
        for key, value, file in reader(
            lambda file, package=package: read_package(package, file), network
        ):
            if key.startswith(("tokens.", "feeds.")) and not any(
                key == own or key.startswith(f"{own}.") for own in ours
            ):
                continue
            text = str(value)
            stated = to_checksum_address(text) if re.fullmatch(r"0x\w{40}", text) else text
            files = sources.setdefault(key, {}).setdefault(stated, [])
            if (source := f"{package}/{file}") not in files:
                files.append(source)
    return dict(sorted(sources.items()))


def main() -> int:
    document = {
        "packages": {
            package: {"version": version, "integrity": integrity}
            for package, (version, integrity) in PACKAGES.items()
        },
        "values": {network.name: published(network) for network in NETWORKS},
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        return int(text != RECORD.read_text(encoding="utf-8"))
    RECORD.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
