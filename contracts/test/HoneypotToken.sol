// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

/// @title A token that can be bought and not sold
contract HoneypotToken is TestToken {
    mapping(address pool => bool yes) public closed;
    uint256 public most;

    error NoWayBack();

    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    /// @notice Whoever moves more than `most_` into `pool` is stopped.
    function close(address pool, uint256 most_) external {
        (closed[pool], most) = (true, most_);
    }

    function _move(address from, address to, uint256 raw) internal override {
        if (closed[to] && raw > most) revert NoWayBack();
        super._move(from, to, raw);
    }
}
