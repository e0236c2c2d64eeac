// Uniswap's own SDKs as a process that quotes one state: the same lines as quote_peers.py, run by node in a folder that has them.
"use strict";

const readline = require("node:readline");
const { CurrencyAmount, Token } = require("@uniswap/sdk-core");
const { Pair } = require("@uniswap/v2-sdk");
const { Pool, TickListDataProvider } = require("@uniswap/v3-sdk");

const MAINNET = 1;
const PARTS = 8;

function tokens(pool) {
  return [pool.token0, pool.token1].map((address) => new Token(MAINNET, address, 18));
}

// A function from an amount to a quote in base units. The SDKs quote V2 at the one fee they know, 0.3 %.
function quoteOf(pool) {
  const [token0, token1] = tokens(pool);
  if (pool.ticks === null) {
    const reserves = [CurrencyAmount.fromRawAmount(token0, pool.reserve0), CurrencyAmount.fromRawAmount(token1, pool.reserve1)];
    const pair = new Pair(...reserves);
    return (amount) => pair.getOutputAmount(amount)[0];
  }
  const ticks = pool.ticks.map(([index, net]) => ({ index, liquidityNet: net, liquidityGross: net.replace("-", "") }));
  const provider = new TickListDataProvider(ticks, pool.tick_spacing);
  const held = new Pool(token0, token1, pool.fee_pips, pool.sqrt_price_x96, pool.liquidity, pool.tick, provider);
  return async (amount) => (await held.getOutputAmount(amount))[0];
}

function amountsOf(pool, first, count) {
  const [token0] = tokens(pool);
  return Array.from({ length: count }, (_, i) => CurrencyAmount.fromRawAmount(token0, (BigInt(first) - BigInt(i)).toString()));
}

// Processor time in seconds.
function spentBy() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function perSecond(quote, amounts, seconds) {
  const part = Math.max(1, Math.floor(amounts.length / PARTS));
  const start = spentBy();
  let done = 0;
  let spent = 0;
  while (spent < seconds) {
    for (let i = 0; i < part; i += 1) {
      const answer = quote(amounts[(done + i) % amounts.length]);
      if (answer instanceof Promise) await answer;
    }
    done += part;
    spent = spentBy() - start;
  }
  return done / spent;
}

async function main() {
  let cases = null;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let answer = true;
    if (cases === null) {
      cases = {};
      for (const [name, quoteCase] of Object.entries(request.cases)) {
        cases[name] = { quote: quoteOf(quoteCase.pool), amounts: amountsOf(quoteCase.pool, quoteCase.amount, request.amounts) };
      }
    } else if (request.do === "answers") {
      const { quote, amounts } = cases[request.case];
      answer = [];
      for (const amount of amounts) answer.push((await quote(amount)).quotient.toString());
    } else {
      const { quote, amounts } = cases[request.case];
      answer = await perSecond(quote, amounts, request.seconds);
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
}

main();
