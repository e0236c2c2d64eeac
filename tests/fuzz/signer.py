"""Attacks the signer with random mutations of all that it signs, and of typed data that would give money away: `make fuzz`.

What is signed is judged apart from the signer's own rules and decoders: it must be the allowed transaction to the byte, but for
what has a window of its own: the fees below their ceilings and within the granted gas money, and the deadline within 90 seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace

from eth_account import Account

from agent.errors import Refused
from agent.model import SignedTx, UnsignedTx
from agent.signing.rules import SIGNING_TABLE, LocalSigner
from agent.units import UINT256_MAX
from tests.fuzz.typed_data import mutated_typed, typed_messages
from tests.support.builders import address
from tests.support.signables import SIGNABLES, WORD, Signable, calldata, with_bytes
from tests.support.signing import DEADLINE_S, KEY, NONCES, NOW_S, RULES, STRANGER, WALLET

WINDOW_S = 90
CEILING_WEI = 15 * 10**9
TIP_WEI = 5 * 10**9
"""The ceiling of the rules, and the highest tip of a first transaction."""
EMERGENCY_CEILING_WEI = 30 * 10**9
"""The ceiling of a reduction of futures ahead of liquidation."""
SENTINELS = ["0x" + "0" * 40, "0x" + "0" * 39 + "1", "0x" + "0" * 39 + "2", "0x" + "f" * 40]
KNOWN = sorted({signable.tx.to for signable in SIGNABLES.values()} | {WALLET, STRANGER, address("pool"), *RULES.tokens})
NUMBERS = [0, 1, 2, 31, 32, 64, 2**24 - 1, 2**64, 2**128 - 1, 2**160 - 1, 2**255, UINT256_MAX, DEADLINE_S, NOW_S, NOW_S + 90, NOW_S + 91]
SELECTORS = [
    *(selector for selector in SIGNING_TABLE if selector),
    b"\xa9\x05\x9c\xbb",
    b"\x23\xb8\x72\xdd",
    b"\xd5\x05\xac\xcf",
    b"\x8f\xcb\xaf\x0c",
]
"""Those of the table, and transfer, transferFrom and two forms of permit."""


@dataclass
class Score:
    """What was tried, and what was wrong."""

    cases: Counter[str] = field(default_factory=Counter)
    signed: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """As JSON; `violations` is what may never be anything but 0."""
        return {
            "cases": sum(self.cases.values()),
            "by_attack": dict(self.cases),
            "signed_inside_the_policy": self.signed,
            "refusals": dict(self.refusals.most_common()),
            "violations": len(self.wrong),
        }


def mutated_data(dice: random.Random, data: bytes) -> bytes:
    """One change of calldata: bits, bytes, words, addresses, numbers, functions, parts of other calls, length."""
    raw = bytearray(data)
    if not raw:
        return dice.choice(SELECTORS) + dice.randbytes(dice.choice([0, 32, 64]))
    at = dice.randrange(len(raw))
    word = 4 + WORD * dice.randrange(max(1, (len(raw) - 4) // WORD))
    match dice.randrange(12):
        case 0:
            raw[at] ^= 1 << dice.randrange(8)
        case 1:
            raw[at : at + dice.randint(1, 40)] = dice.randbytes(dice.randint(1, 40))
        case 2:
            del raw[at : at + dice.choice([1, 4, 20, 32])]
        case 3:
            raw[at:at] = dice.choice([b"\0", b"\xff", bytes(32), dice.randbytes(32), raw[:4]])
        case 4:
            raw[word : word + WORD] = dice.choice(NUMBERS).to_bytes(WORD, "big")
        case 5:
            value = int.from_bytes(raw[word : word + WORD], "big") + dice.choice([-1, 1, -32, 32, 10**6, -(10**6), 60, -60])
            raw[word : word + WORD] = (value % 2**256).to_bytes(WORD, "big")
        case 6:
            raw[word : word + WORD] = bytes(12) + bytes.fromhex(dice.choice([*SENTINELS, *KNOWN])[2:])
        case 7:
            old, new = (bytes.fromhex(dice.choice([*KNOWN, *SENTINELS])[2:]) for _ in range(2))
            raw = bytearray(bytes(raw).replace(old, new))
        case 8:
            raw[:4] = dice.choice(SELECTORS)
        case 9:
            other = 4 + WORD * dice.randrange(max(1, (len(raw) - 4) // WORD))
            raw[word : word + WORD], raw[other : other + WORD] = raw[other : other + WORD], raw[word : word + WORD]
        case 10:
            theirs = calldata(dice.choice(list(SIGNABLES.values())).tx)
            raw = bytearray(bytes(raw)[:at] + theirs[min(at, len(theirs)) :]) if dice.random() < 0.5 else bytearray(theirs)
        case _:
            raw += dice.choice([b"\0", bytes(31), bytes(32), bytes(raw), dice.randbytes(dice.randint(1, 64))])
    return bytes(raw)


def mutated_field(dice: random.Random, tx: UnsignedTx) -> UnsignedTx:
    """One field besides the data: chain, nonce, recipient, value, gas, fees."""
    number = dice.choice([*NUMBERS, -1, tx.value_wei + 1, tx.gas + 1, dice.getrandbits(dice.choice([8, 64, 160, 256]))])
    near = dice.choice([CEILING_WEI, TIP_WEI]) + dice.choice([-1, 0, 1])
    fee = dice.choice([None, number, 10**9, 10**16, near])
    match dice.randrange(9):
        case 0:
            return replace(tx, chain_id=dice.choice([1, 137, 42161, number]))
        case 1:
            return replace(tx, nonce=dice.choice([number, tx.nonce - 1, tx.nonce + 1]))
        case 2:
            strange = [
                *KNOWN,
                *SENTINELS,
                tx.to.lower(),
                tx.to.upper(),
                tx.to[:-1],
                tx.to + "0",
                "",
                "0x",
                WALLET.swapcase(),
                "vitalik.eth",
            ]
            return replace(tx, to=dice.choice(strange))
        case 3:
            return replace(tx, value_wei=number)
        case 4:
            return replace(tx, gas=number)
        case 5:
            return replace(tx, max_fee_wei=fee)
        case 6:
            return replace(tx, max_priority_fee_wei=fee)
        case 7:
            return replace(tx, gas_price_wei=fee)
        case _:
            return replace(
                tx, data=dice.choice(["", "0X" + tx.data[2:], tx.data[2:], tx.data + "0", tx.data.upper(), tx.data + " ", "0xzz", "\u0660"])
            )


def deadline_at(data: bytes) -> int | None:
    """Where the one deadline of an allowed call ends, in bytes; None for a call without one."""
    index = data.find(DEADLINE_S.to_bytes(4, "big"))
    return None if index == -1 else index + 4


def inside(signable: Signable, tx: UnsignedTx) -> bool:
    """Whether a transaction is the allowed one, but for what has a window of its own."""
    price = tx.max_fee_wei if tx.max_fee_wei is not None else tx.gas_price_wei
    one_form = (tx.max_fee_wei is None) == (tx.max_priority_fee_wei is None) == (tx.gas_price_wei is not None)
    if not one_form or price is None or not 0 < tx.gas * price <= signable.grant.max_gas_wei or tx.nonce != signable.tx.nonce:
        return False
    ceiling_wei = EMERGENCY_CEILING_WEI if signable.grant.is_emergency else CEILING_WEI
    if price > ceiling_wei or not 0 <= (tx.max_priority_fee_wei or 0) <= min(price, TIP_WEI):
        return False
    if (tx.chain_id, tx.to, tx.value_wei) != (signable.tx.chain_id, signable.tx.to, signable.tx.value_wei) or tx.gas < 21_000:
        return False
    try:
        data = calldata(tx)
    except ValueError:
        return False
    before = calldata(signable.tx)
    if data == before:
        return True
    end = deadline_at(before)
    if end is None or len(data) != len(before) or data[: end - 4] + data[end:] != before[: end - 4] + before[end:]:
        return False
    return NOW_S < int.from_bytes(data[end - 4 : end], "big") <= NOW_S + WINDOW_S


def allowed_calls(judged: Signable) -> list[Signable]:
    """Every call that a grant allows by its rules: a trade of a Safe in a batch may be signed by itself too."""
    rules = (judged.rules, replace(judged.rules, batch_contract=None))
    return [signable for signable in SIGNABLES.values() if signable.grant == judged.grant and signable.rules in rules]


def carries(tx: UnsignedTx, signed: SignedTx) -> bool:
    """Whether the signed bytes are the wallet's own, of exactly this transaction's data."""
    return Account.recover_transaction(signed.signed_bytes) == WALLET and calldata(tx) in signed.signed_bytes


def attack(dice: random.Random, name: str, score: Score) -> None:
    """One mutated transaction, on its own grant or on that of another."""
    signable = SIGNABLES[name]
    tx = signable.tx
    judged = signable
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        if dice.random() < 0.7 and tx.data.startswith("0x"):
            with suppress(ValueError):  # an earlier change left no hex digits
                tx = with_bytes(tx, mutated_data(dice, calldata(tx)))
        else:
            tx = mutated_field(dice, tx)
    if dice.random() < 0.1:
        judged = dice.choice(list(SIGNABLES.values()))
    score.cases[name] += 1
    try:
        signed = LocalSigner(KEY, judged.rules, lambda: NONCES).sign(tx, judged.grant)
    except Refused as refusal:
        rule = refusal.verdicts[0].guard
        score.refusals[rule] += 1
        if not rule.startswith("signer."):
            score.wrong.append(f"{name}: refused by {rule}")
    except Exception as error:  # the gate says no by name, or it is a defect
        score.wrong.append(f"{name}: {type(error).__name__} {error} for {tx}")
    else:
        score.signed += 1
        if not any(inside(allowed, tx) for allowed in allowed_calls(judged)) or not carries(tx, signed):
            score.wrong.append(f"{name}: signed {tx}")


def attack_typed(dice: random.Random, score: Score) -> None:
    """One message of typed data: none is signed, and the refusal repeats no word of a stranger."""
    name, message = mutated_typed(dice, *dice.choice(typed_messages(WALLET)))
    score.cases[f"typed data, {name}"] += 1
    try:
        LocalSigner(KEY, RULES, lambda: NONCES).refuse_typed(message, SIGNABLES["approve"].grant)
    except Refused as refusal:
        score.refusals[refusal.verdicts[0].guard] += 1
        if refusal.verdicts[0].guard != "signer.typed_data" or not str(refusal).isprintable() or len(str(refusal)) > 300:
            score.wrong.append(f"typed data, {name}: {refusal}")
    except Exception as error:
        score.wrong.append(f"typed data, {name}: {type(error).__name__} {error}")
    else:
        score.wrong.append(f"typed data, {name}: signed")


def run(seed: int, cases: int, score: Score | None = None) -> Score:
    """So many cases, a tenth of them typed data; the same for the same seed."""
    dice = random.Random(seed)
    score_kept = score or Score()
    names = sorted(SIGNABLES)
    for number in range(cases):
        if number % 10 == 9:
            attack_typed(dice, score_kept)
        else:
            attack(dice, names[number % len(names)], score_kept)
    return score_kept


def main() -> int:
    """Runs for some time; prints the figures as JSON; 1 when anything was signed that may not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    score = Score()
    began = time.monotonic()
    seed = args.seed
    while time.monotonic() - began < args.seconds and not score.wrong:
        run(seed, 2_000, score)
        seed += 1
    sys.stdout.write(json.dumps(score.document() | {"seeds": [args.seed, seed - 1]}, indent=2) + "\n")
    for line in score.wrong[:10]:
        sys.stderr.write(line + "\n")
    return 1 if score.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
