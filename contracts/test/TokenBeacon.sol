// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Tells proxies where their implementation is
contract TokenBeacon {
    address public implementation;

    constructor(address first) {
        implementation = first;
    }

    function upgradeTo(address next) external {
        implementation = next;
    }
}
