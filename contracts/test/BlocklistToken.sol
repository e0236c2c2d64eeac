// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

/// @title A token that shuts single addresses out, whether they send, receive, or spend for others
contract BlocklistToken is TestToken {
    mapping(address owner => bool yes) public isBlacklisted;

    error ShutOut(address who);

    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    function setBlacklisted(address who, bool yes) external {
        isBlacklisted[who] = yes;
    }

    function _move(address from, address to, uint256 raw) internal override {
        if (isBlacklisted[msg.sender]) revert ShutOut(msg.sender);
        if (isBlacklisted[from]) revert ShutOut(from);
        if (isBlacklisted[to]) revert ShutOut(to);
        super._move(from, to, raw);
    }
}
