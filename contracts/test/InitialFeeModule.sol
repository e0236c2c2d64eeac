// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface ISlipstreamPool {
    function slot0() external view returns (uint160, int24, uint16, uint16, uint16, bool);

    function observations(uint256 index) external view returns (uint32, int56, uint160, bool);

    function observe(uint32[] calldata ages) external view returns (int56[] memory, uint160[] memory);

    function tickSpacing() external view returns (int24);
}

interface ISlipstreamFactory {
    function tickSpacingToFee(int24 tickSpacing) external view returns (uint24);
}

/// @title A fee module with the rule of Slipstream's on Base since July 2026
/// @notice Until an observation of the block is written, a swap pays the pool's initial fee, if it is
/// enabled: 0 stands for the base fee, 420 for none. Later swaps pay base fee and distance from the mean
/// tick, up to the cap. Anyone may set it.
contract InitialFeeModule {
    struct Settings {
        uint24 baseFee;
        uint24 feeCap;
        uint64 scalingFactor;
        bool initialFeeEnabled;
        uint24 initialFee;
    }

    uint256 private constant ZERO_FEE = 420;

    ISlipstreamFactory public immutable factory;
    uint256 public immutable defaultScalingFactor;
    uint256 public immutable defaultFeeCap;
    uint32 public immutable secondsAgo;

    mapping(address pool => Settings settings) public dynamicFeeConfig;

    constructor(address factory_, uint256 scalingFactor, uint256 feeCap, uint32 window) {
        factory = ISlipstreamFactory(factory_);
        defaultScalingFactor = scalingFactor;
        defaultFeeCap = feeCap;
        secondsAgo = window;
    }

    function set(address pool, Settings calldata settings) external {
        dynamicFeeConfig[pool] = settings;
    }

    function getFee(address pool) external view returns (uint24) {
        Settings memory settings = dynamicFeeConfig[pool];
        if (settings.baseFee == ZERO_FEE) return 0;
        if (settings.baseFee == 0) settings.baseFee = factory.tickSpacingToFee(ISlipstreamPool(pool).tickSpacing());
        if (settings.initialFeeEnabled && !isObserved(pool)) {
            if (settings.initialFee == 0) return settings.baseFee;
            return settings.initialFee == ZERO_FEE ? 0 : settings.initialFee;
        }
        (uint256 scalingFactor, uint256 feeCap) = settings.scalingFactor == 0
            ? (defaultScalingFactor, defaultFeeCap)
            : (uint256(settings.scalingFactor), uint256(settings.feeCap));
        uint256 fee = settings.baseFee + (distance(pool) * scalingFactor) / 1e6;
        return uint24(fee < feeCap ? fee : feeCap);
    }

    function isObserved(address pool) private view returns (bool) {
        (, , uint16 index, , , ) = ISlipstreamPool(pool).slot0();
        (uint32 observedAt, , , ) = ISlipstreamPool(pool).observations(index);
        return observedAt == uint32(block.timestamp);
    }

    function distance(address pool) private view returns (uint256) {
        (, int24 tick, , uint16 cardinality, , ) = ISlipstreamPool(pool).slot0();
        if (cardinality < secondsAgo / 2) return 0;
        uint32[] memory ages = new uint32[](2);
        ages[0] = secondsAgo;
        try ISlipstreamPool(pool).observe(ages) returns (int56[] memory sums, uint160[] memory) {
            int256 away = int256(tick) - (sums[1] - sums[0]) / int56(uint56(secondsAgo));
            return uint256(away < 0 ? -away : away);
        } catch {
            return 0;
        }
    }
}
