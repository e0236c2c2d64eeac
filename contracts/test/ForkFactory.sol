// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ForkPool} from "ForkPool.sol";

/// @title Makes pools that look like Uniswap V3's, at addresses of the same form, from other code
contract ForkFactory {
    function make(address token0, address token1, uint256 fee) external returns (ForkPool) {
        return new ForkPool{salt: keccak256(abi.encode(token0, token1, fee))}();
    }

    function initCodeHash() external pure returns (bytes32) {
        return keccak256(type(ForkPool).creationCode);
    }
}
