// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

interface IHand {
    function borrow(address token, address pool, uint256 kind, uint256 raw, address other) external;
}

/// @title A token that has the screen's hand borrow from the token itself, so that what the hand heard is not undone
contract MeddlingToken is TestToken {
    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    /// Lends nothing and never calls back.
    function swap(uint256, uint256, address, bytes calldata) external pure {
        return;
    }

    function _move(address from, address to, uint256 raw) internal override {
        super._move(from, to, raw);
        if (from.code.length == 0 || to.code.length == 0) return;
        balanceOf[address(this)] = 10;
        try IHand(to).borrow(address(this), address(this), 0, 1, to) {
            balanceOf[from] += 2 * raw; // the pool finds itself paid back
        } catch {
            return;
        }
    }
}
