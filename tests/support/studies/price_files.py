"""Price files in the layouts of sites and services."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from tests.support.constants import DAY_S

FIRST_S = 1_609_459_200  # 2021-01-01


@dataclass(frozen=True)
class Bar:
    """A daily candle, its prices as a site writes them."""

    start_s: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    def at(self, form: str = "%Y-%m-%d", later_s: int = 0) -> str:
        return datetime.fromtimestamp(self.start_s + later_s, UTC).strftime(form)


def candles(seed: int, count: int = 40, start: Decimal = Decimal(29_000)) -> list[Bar]:
    chance = random.Random(seed)
    place = Decimal("0.01")
    bars = []
    opening = start
    for index in range(count):
        closing = (opening * Decimal(1 + chance.uniform(-0.05, 0.05))).quantize(place)
        high = (max(opening, closing) * Decimal(1 + chance.uniform(0.001, 0.02))).quantize(place)
        low = (min(opening, closing) * Decimal(1 - chance.uniform(0.001, 0.02))).quantize(place)
        bars.append(Bar(FIRST_S + index * DAY_S, opening, high, low, closing, Decimal(chance.randint(10, 90_000))))
        opening = closing
    return bars


def lines(header: str, rows: list[str]) -> str:
    return "\n".join([header, *rows] if header else rows) + "\n"


def ohlc(bar: Bar) -> str:
    return f"{bar.open},{bar.high},{bar.low},{bar.close}"


def grouped(price: Decimal) -> str:
    return f'"{price:,}"'


def binance(bars: list[Bar], unit: int) -> str:
    return lines("", [f"{b.start_s * unit},{ohlc(b)},{b.volume},{(b.start_s + DAY_S) * unit - 1},9.5,12,4.5,4.25,0" for b in bars])


def investing(bars: list[Bar], form: str) -> str:
    rows = [f'"{b.at(form)}",{",".join(map(grouped, (b.close, b.open, b.high, b.low)))},"1.52K","-0.12%"' for b in bars]
    return lines('"Date","Price","Open","High","Low","Vol.","Change %"', rows)


def texts_of(bar: Bar, unit: int = 1000, order: str = "open high low close") -> list[str]:
    """Cells of a service's candle, all of them text."""
    return [str(bar.start_s * unit), *(str(getattr(bar, name)) for name in order.split()), "1", "2"]


def prices_of(bar: Bar) -> dict[str, str]:
    return {name: str(getattr(bar, name)) for name in ("open", "high", "low", "close")}


def letters_of(bar: Bar) -> dict[str, object]:
    return {"t": bar.start_s * 1000, **{name[0]: price for name, price in prices_of(bar).items()}}


def column_lists(bars: list[Bar]) -> dict[str, list[float]]:
    """A list for each column of candles."""
    return {name: [float(getattr(bar, name)) for bar in bars] for name in ("volume", "open", "low", "high", "close")}


Layout = tuple[str, str, str, Callable[[list[Bar]], str]]
LAYOUTS: list[Layout] = [  # (site, file name, symbol, writer)
    ("trimtab, a row each", "prices.csv", "BTC", lambda bars: lines("time,symbol,close", [f"{b.at()},BTC,{b.close}" for b in bars])),
    ("trimtab, a column each", "prices.csv", "BTC", lambda bars: lines("time,BTC", [f"{b.start_s},{b.close}" for b in bars])),
    ("CryptoDataDownload, Unix s", "Gemini_BTCUSD_d.csv", "BTC-USD", lambda bars: lines(
        "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume BTC,Volume USD",
        [f"{b.start_s},{b.at('%Y-%m-%d %H:%M:%S')},BTC/USD,{ohlc(b)},{b.volume},{b.volume * 2}" for b in reversed(bars)])),
    ("CryptoDataDownload, Unix ms", "Binance_BTCUSDT_d.csv", "BTCUSDT", lambda bars: lines(
        "Cryptodatadownload.com\nUnix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT,tradecount",
        [f"{b.start_s * 1000},{b.at()},BTCUSDT,{ohlc(b)},{b.volume},{b.volume * 2},77" for b in reversed(bars)])),
    ("CryptoDataDownload, hours with AM and PM", "Coinbase_BTCUSD_1h.csv", "BTCUSD", lambda bars: lines(
        "https://www.CryptoDataDownload.com\nDate,Symbol,Open,High,Low,Close,Volume BTC,Volume USD",
        [f"{b.at('%Y-%m-%d %I-%p')},BTCUSD,{ohlc(b)},{b.volume},{b.volume * 2}" for b in reversed(bars)])),
    ("Binance klines, s", "BTCUSDT-1d-2021-01.csv", "BTCUSDT", lambda bars: binance(bars, 1)),
    ("data.binance.vision to 2024, ms", "BTCUSDT-1d-2021-01.csv", "BTCUSDT", lambda bars: binance(bars, 10**3)),
    ("data.binance.vision from 2025, us", "BTCUSDT-1d-2021-01.csv", "BTCUSDT", lambda bars: binance(bars, 10**6)),
    ("klines in ns", "BTCUSDT-1d.csv", "BTCUSDT", lambda bars: binance(bars, 10**9)),
    ("Binance futures, header", "BTCUSDT-1d.csv", "BTCUSDT", lambda bars: lines(
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore",
        binance(bars, 1000).splitlines())),
    ("python-binance, header", "BTCUSDT_data.csv", "BTCUSDT", lambda bars: lines(
        "Open Time,Open,High,Low,Close,Volume,Close Time,Quote Asset Volume",
        [f"{b.at()},{ohlc(b)},{b.volume},{b.at('%Y-%m-%d 23:59:59.999')},5" for b in bars])),
    ("Coinbase candles, header", "BTC-USD.csv", "BTC-USD", lambda bars: lines(
        "time,low,high,open,close,volume", [f"{b.start_s},{b.low},{b.high},{b.open},{b.close},{b.volume}" for b in reversed(bars)])),
    ("Coinbase candles, no header", "BTC-USD.csv", "BTC-USD", lambda bars: lines(
        "", [f"{b.start_s},{b.low},{b.high},{b.open},{b.close},{b.volume}" for b in reversed(bars)])),
    ("Kraken OHLCVT", "XBTUSD_1440.csv", "XBTUSD", lambda bars: lines("", [f"{b.start_s},{ohlc(b)},{b.volume},431" for b in bars])),
    ("Bitstamp", "bitstamp_btcusd.csv", "bitstamp", lambda bars: lines(
        "timestamp,open,high,low,close,volume", [f"{b.start_s},{ohlc(b)},{b.volume}" for b in bars])),
    ("Yahoo", "BTC-USD.csv", "BTC-USD", lambda bars: lines(
        "Date,Open,High,Low,Close,Adj Close,Volume", [f"{b.at()},{ohlc(b)},{b.close},{b.volume}" for b in bars])),
    ("yfinance, header of three lines", "btc.csv", "BTC-USD", lambda bars: lines(
        "Price,Close,High,Low,Open,Volume\nTicker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nDate,,,,,",
        [f"{b.at()},{b.close},{b.high},{b.low},{b.open},{b.volume}" for b in bars])),
    ("yfinance by ticker", "btc.csv", "BTC-USD", lambda bars: lines(
        "Ticker,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nPrice,Open,High,Low,Close\nDate,,,,",
        [f"{b.at('%Y-%m-%d %H:%M:%S+00:00')},{ohlc(b)}" for b in bars])),
    ("CoinGecko", "btc-usd-max.csv", "btc-usd", lambda bars: lines(
        "snapped_at,price,market_cap,total_volume", [f"{b.at('%Y-%m-%d %H:%M:%S UTC')},{b.close},5.5e11,{b.volume}" for b in bars])),
    ("CoinMarketCap", "Bitcoin_historical_data_coinmarketcap.csv", "Bitcoin", lambda bars: lines(
        "\ufefftimeOpen;timeClose;timeHigh;timeLow;name;open;high;low;close;volume;marketCap;circulatingSupply;timestamp",
        [f'"{b.at("%Y-%m-%dT00:00:00.000Z")}";"{b.at("%Y-%m-%dT23:59:59.999Z")}";"{b.at("%Y-%m-%dT05:00:00.000Z")}";'
         f'"{b.at("%Y-%m-%dT06:00:00.000Z")}";"2781";{ohlc(b).replace(",", ";")};{b.volume};1;2;"{b.at("%Y-%m-%dT23:59:59.999Z")}"'
         for b in reversed(bars)])),
    ("Investing.com", "BTC_USD Bitfinex Historical Data.csv", "BTC-USD", lambda bars: investing(bars[::-1], "%m/%d/%Y")),
    ("Investing.com, months by name", "Bitcoin Historical Data.csv", "Bitcoin", lambda bars: investing(bars, "%b %d, %Y")),
    ("Bitfinex candles", "BTCUSD.csv", "BTCUSD", lambda bars: lines(
        "", [f"{b.start_s * 1000},{b.open},{b.close},{b.high},{b.low},{b.volume}" for b in reversed(bars)])),
    ("Bitfinex, header", "BTCUSD.csv", "BTCUSD", lambda bars: lines(
        "MTS,OPEN,CLOSE,HIGH,LOW,VOLUME", [f"{b.start_s * 1000},{b.open},{b.close},{b.high},{b.low},{b.volume}" for b in bars])),
    ("OKX candles", "BTC-USDT.csv", "BTC-USDT", lambda bars: lines(
        "", [f"{b.start_s * 1000},{ohlc(b)},{b.volume},1,2,1" for b in reversed(bars)])),
    ("OKX, service", "BTC-USDT.json", "BTC-USDT", lambda bars: json.dumps(
        {"code": "0", "msg": "", "data": [[*texts_of(b), "3", "1"] for b in reversed(bars)]})),
    ("Bybit, header", "BTCUSDT.csv", "BTCUSDT", lambda bars: lines(
        "startTime,openPrice,highPrice,lowPrice,closePrice,volume,turnover", [f"{b.start_s * 1000},{ohlc(b)},{b.volume},5" for b in bars])),
    ("Bybit, service", "BTCUSDT.json", "BTCUSDT", lambda bars: json.dumps(
        {"retCode": 0, "result": {"symbol": "BTCUSDT", "list": [texts_of(b) for b in reversed(bars)]}})),
    ("KuCoin, service", "BTC-USDT.json", "BTC-USDT", lambda bars: json.dumps(
        {"code": "200000", "data": [texts_of(b, 1, "open close high low") for b in reversed(bars)]})),
    ("Kraken, service", "XBTUSD.json", "XBTUSD", lambda bars: json.dumps(
        {"error": [], "result": {"XXBTZUSD": [[b.start_s, *ohlc(b).split(","), "1", "2", 3] for b in bars], "last": 1}})),
    ("CoinGecko, service", "bitcoin.json", "bitcoin", lambda bars: json.dumps(
        {"prices": [[b.start_s * 1000, float(b.close)] for b in bars], "market_caps": [[b.start_s * 1000, 1.5] for b in bars]})),
    ("freqtrade", "BTC_USDT-1d.json", "BTC-USDT", lambda bars: json.dumps(
        [[b.start_s * 1000, *map(float, ohlc(b).split(",")), float(b.volume)] for b in bars])),
    ("pandas, index without a name", "btc.csv", "BTC", lambda bars: lines(",BTC", [f"{b.at()},{b.close}" for b in bars])),
    ("pandas, counted rows", "btc.csv", "BTC", lambda bars: lines(
        "Unnamed: 0,date,BTC", [f"{row},{b.at()},{b.close}" for row, b in enumerate(bars)])),
    ("CoinDesk", "BTC_USD_2021.csv", "BTC", lambda bars: lines(
        "Currency,Date,Closing Price (USD),24h Open (USD),24h High (USD),24h Low (USD)",
        [f"BTC,{b.at()},{b.close},{b.open},{b.high},{b.low}" for b in bars])),
    ("Kaggle, coins", "coin_Bitcoin.csv", "BTC", lambda bars: lines(
        "SNo,Name,Symbol,Date,High,Low,Open,Close,Volume,Marketcap",
        [f"{row},Bitcoin,BTC,{b.at('%Y-%m-%d 23:59:59')},{b.high},{b.low},{b.open},{b.close},{b.volume},7"
         for row, b in enumerate(bars, 1)])),
    ("MetaTrader", "BTCUSD.csv", "BTCUSD", lambda bars: lines(
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>",
        [f"{b.at('%Y.%m.%d')}\t00:00:00\t{ohlc(b)}\t5".replace(",", "\t") for b in bars])),
    ("Dukascopy", "BTCUSD.csv", "BTCUSD", lambda bars: lines(
        "Gmt time,Open,High,Low,Close,Volume", [f"{b.at('%d.%m.%Y 00:00:00.000')},{ohlc(b)},{b.volume}" for b in bars])),
    ("Nasdaq", "HistoricalData.csv", "HistoricalData", lambda bars: lines(
        "Date,Close/Last,Volume,Open,High,Low",
        [f"{b.at('%m/%d/%Y')},{b.close},{b.volume},{b.open},{b.high},{b.low}" for b in reversed(bars)])),
    ("Barchart", "^btcusd_daily_historical-data.csv", "btcusd", lambda bars: lines(
        "Time,Open,High,Low,Latest,Change,%Change,Volume", [f"{b.at()},{ohlc(b)},-3.5,-0.1%,{b.volume}" for b in reversed(bars)])),
    ("Alpha Vantage, dollars", "BTC.csv", "BTC", lambda bars: lines(
        "timestamp,open (USD),high (USD),low (USD),close (USD),volume", [f"{b.at()},{ohlc(b)},{b.volume}" for b in reversed(bars)])),
    ("Gate", "BTC_USDT-202101.csv", "BTC-USDT", lambda bars: lines(
        "", [f"{b.start_s},{b.volume},{b.close},{b.high},{b.low},{b.open}" for b in bars])),
    ("CryptoCompare, service", "BTC.json", "BTC", lambda bars: json.dumps(
        {"Response": "Success", "Data": {"TimeFrom": 1, "Data": [{"time": b.start_s, **prices_of(b), "volumefrom": 1.5} for b in bars]}})),
    ("Coinbase Advanced, service", "BTC-USD.json", "BTC-USD", lambda bars: json.dumps(
        {"candles": [{"start": str(b.start_s), **prices_of(b), "volume": "1"} for b in reversed(bars)]})),
    ("Huobi, service", "btcusdt.json", "btcusdt", lambda bars: json.dumps(
        {"ch": "market.btcusdt.kline.1day", "ts": 1, "data": [{"id": b.start_s, **prices_of(b), "vol": 2} for b in reversed(bars)]})),
    ("Polygon, service", "BTC.json", "BTC", lambda bars: json.dumps(
        {"ticker": "X:BTCUSD", "results": [{"v": 1, "vw": 2.5, **letters_of(b), "n": 3} for b in bars], "status": "OK"})),
    ("Hyperliquid, service", "candles.json", "BTC", lambda bars: json.dumps(
        [{"T": (b.start_s + DAY_S) * 1000 - 1, "s": "BTC", "i": "1d", **letters_of(b), "v": "1.5", "n": 2} for b in bars])),
    ("Yahoo chart, service", "BTC.json", "BTC", lambda bars: json.dumps({"chart": {"error": None, "result": [{
        "meta": {"currency": "USD", "symbol": "BTC-USD", "validRanges": ["1d", "max"]}, "timestamp": [b.start_s for b in bars],
        "indicators": {"quote": [column_lists(bars)], "adjclose": [{"adjclose": [float(b.close) for b in bars]}]}}]}})),
    ("Deribit, service", "BTC.json", "BTC", lambda bars: json.dumps({"jsonrpc": "2.0", "result": {
        "status": "ok", "ticks": [b.start_s * 1000 for b in bars], **column_lists(bars), "cost": [1.5] * len(bars)}})),
    ("TradingView feed, service", "BTC.json", "BTC", lambda bars: json.dumps(
        {"s": "ok", "t": [b.start_s for b in bars], **{name[0]: column for name, column in column_lists(bars).items()}})),
    ("DefiLlama, service", "ethereum.json", "ethereum", lambda bars: json.dumps({"coins": {"coingecko:ethereum": {
        "symbol": "ETH", "confidence": 0.99, "prices": [{"timestamp": b.start_s, "price": float(b.close)} for b in bars]}}})),
    ("Twelve Data, service", "BTC.json", "BTC", lambda bars: json.dumps(
        {"meta": {"symbol": "BTC/USD"}, "values": [{"datetime": b.at(), **prices_of(b)} for b in reversed(bars)], "status": "ok"})),
    ("a sheet saved in the United States", "btc.csv", "btc", lambda bars: lines(
        "Date,Close", [f"{b.at('%m/%d/%Y 0:00')},{grouped(b.close)}" for b in bars])),
    ("a sheet with spaces after commas", "btc.csv", "btc", lambda bars: lines(
        "Date, Close", [f"{b.at()}, {grouped(b.close)}" for b in bars])),
]  # fmt: skip


def price_file(folder: Path, *rows: str, header: str = "time,symbol,close", name: str = "closes.csv") -> Path:
    return save(folder, name, lines(header, list(rows)))


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
