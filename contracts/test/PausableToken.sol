// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

/// @title A token that somebody can stop
contract PausableToken is TestToken {
    bool public paused;

    error Stopped();

    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    function setPaused(bool paused_) external {
        paused = paused_;
    }

    function _move(address from, address to, uint256 raw) internal override {
        if (paused) revert Stopped();
        super._move(from, to, raw);
    }
}
