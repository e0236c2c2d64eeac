// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IAggregator {
    function decimals() external view returns (uint8);
    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80);
}

/// @title Stands before an aggregator and can be pointed at another one, as Chainlink's proxies do
contract FeedProxy {
    IAggregator public aggregator;

    constructor(IAggregator aggregator_) {
        aggregator = aggregator_;
    }

    function point(IAggregator aggregator_) external {
        aggregator = aggregator_;
    }

    function decimals() external view returns (uint8) {
        return aggregator.decimals();
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return aggregator.latestRoundData();
    }
}
