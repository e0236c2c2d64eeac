// Hashes and signatures of SafeTx by Safe's protocol-kit: a list of calls on standard input, a list of answers on standard output.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/package.json`);
const { EthSafeSignature, buildSignatureBytes, calculateSafeTransactionHash, generateTypedData } = require("@safe-global/protocol-kit");
const { privateKeyToAccount } = require("viem/accounts");

async function answer({ safe, chainId, version, tx, keys }) {
  const hash = calculateSafeTransactionHash(safe, tx, version, BigInt(chainId));
  const typedData = generateTypedData({ safeAddress: safe, safeVersion: version, chainId: BigInt(chainId), data: tx });
  const accounts = keys.map((key) => privateKeyToAccount(key));
  const typed = await Promise.all(accounts.map((account) => account.signTypedData(typedData)));
  const messages = await Promise.all(accounts.map((account) => account.signMessage({ message: { raw: hash } })));
  const signatures = accounts.map((account, index) => new EthSafeSignature(account.address, typed[index]));
  return { hash, owners: accounts.map((account) => account.address), typed, messages, packed: buildSignatureBytes(signatures) };
}

console.log(JSON.stringify(await Promise.all(JSON.parse(readFileSync(0, "utf8")).map(answer))));
