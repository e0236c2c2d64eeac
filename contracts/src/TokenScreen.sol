// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ScreenHand} from "ScreenHand.sol";

/// @title Tries tokens out inside one eth_call
/// @notice Never deployed: the creation code is called without a recipient, and what it returns in place of code is the
/// answer. Each token is borrowed from a pool, moved twice and brought back (ScreenHand), with gas of its own.
/// The request is: number of tries (1 byte), then per try
///   token (20) pool (20) kind (1: bit 0 the token is the pool's token1, bit 1 the pool is V3, bit 2 it is
///   V4's PoolManager) amount (16)
/// The answer is: format (1 byte), then per try a status (1: 0 tried, 1 the pool did not lend, 2 the pool has none,
/// 3 its balance cannot be read, 4 too little gas) and twelve words: amount, the pool's balance, what came, the pool's
/// balance then, how transfer ended, what the second hand got, what the first kept, how approve ended, how transferFrom
/// ended, the pool's balance at the end, what the second hand kept, hooks.
contract TokenScreen {
    // The first byte of what is returned must not be 0xEF (EIP-3541).
    uint256 private constant FORMAT = 1;
    uint256 private constant TRY_GAS = 4_000_000;
    uint256 private constant RECORD = 385;

    constructor(bytes memory request) {
        uint256 at;
        assembly {
            at := add(request, 32)
        }
        uint256 count = _word(at, 1);
        at += 1;
        ScreenHand first = new ScreenHand();
        ScreenHand second = new ScreenHand();
        first.register();
        second.register();
        bytes memory answer = new bytes(1 + count * RECORD);
        answer[0] = bytes1(uint8(FORMAT));
        for (uint256 i; i < count; ++i) {
            (uint256 status, uint256[12] memory record) = _try(first, second, at);
            uint256 to;
            assembly {
                to := add(add(answer, 33), mul(i, RECORD))
                mstore8(to, status)
            }
            for (uint256 j; j < 12; ++j) {
                uint256 value = record[j];
                assembly {
                    mstore(add(add(to, 1), mul(j, 32)), value)
                }
            }
            at += 57;
        }
        assembly {
            return(add(answer, 32), mload(answer))
        }
    }

    /// A token that takes all the gas of its try fails alone.
    function _try(
        ScreenHand first,
        ScreenHand second,
        uint256 at
    ) private returns (uint256 status, uint256[12] memory record) {
        if (gasleft() < TRY_GAS + TRY_GAS / 63 + 200_000) return (4, record);
        address token = address(uint160(_word(at, 20)));
        address pool = address(uint160(_word(at + 20, 20)));
        try first.borrow{gas: TRY_GAS}(token, pool, _word(at + 40, 1), _word(at + 41, 16), second) returns (
            uint256 found,
            uint256[12] memory told
        ) {
            return (found, told);
        } catch {
            return (1, record);
        }
    }

    function _word(uint256 at, uint256 size) private pure returns (uint256 value) {
        assembly {
            value := shr(sub(256, mul(size, 8)), mload(at))
        }
    }
}
