// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {TestToken} from "TestToken.sol";

interface IReceiver {
    function tokensReceived(address from, address to, uint256 raw) external;
}

/// @title A token that calls whoever receives it, as ERC-777 does
contract CallbackToken is TestToken {
    constructor(string memory name_, string memory symbol_, uint8 decimals_) TestToken(name_, symbol_, decimals_) {}

    function _move(address from, address to, uint256 raw) internal override {
        super._move(from, to, raw);
        if (to.code.length == 0) return;
        try IReceiver(to).tokensReceived(from, to, raw) {
            return;
        } catch {
            return;
        }
    }
}
