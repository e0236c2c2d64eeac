// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Stands in for PancakeV3PoolDeployer, which the package of PancakeSwap V3's core does not contain
/// @notice A pool's constructor asks its deployer for its parameters; its address depends on the deployer, not the factory.
contract PancakeDeployer {
    struct Parameters {
        address factory;
        address token0;
        address token1;
        uint24 fee;
        int24 tickSpacing;
    }

    Parameters public parameters;
    bytes private _initCode;

    constructor(bytes memory initCode) {
        _initCode = initCode;
    }

    function deploy(
        address factory,
        address token0,
        address token1,
        uint24 fee,
        int24 spacing
    ) external returns (address pool) {
        parameters = Parameters(factory, token0, token1, fee, spacing);
        bytes memory initCode = _initCode;
        bytes32 salt = keccak256(abi.encode(token0, token1, fee));
        assembly {
            pool := create2(0, add(initCode, 32), mload(initCode), salt)
        }
        delete parameters;
    }
}
