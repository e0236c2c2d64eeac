// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

interface IHook {
    function moved() external;
}

/// @title A token that calls an accomplice in the middle of every transfer
contract HookedToken is TestToken {
    IHook public hook;

    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    function setHook(IHook hook_) external {
        hook = hook_;
    }

    function _move(address from, address to, uint256 raw) internal override {
        super._move(from, to, raw);
        if (address(hook) != address(0)) hook.moved();
    }
}
