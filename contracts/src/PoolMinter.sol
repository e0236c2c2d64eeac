// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

interface IMintablePool {
    function token0() external view returns (address);
    function token1() external view returns (address);
    function mint(
        address recipient,
        int24 lower,
        int24 upper,
        uint128 liquidity,
        bytes calldata data
    ) external returns (uint256, uint256);
}

/// @title Mints exact liquidity straight into Uniswap V3 pools of a local chain
/// @notice The position manager takes amounts and rounds; a copied pool needs the liquidity to the last unit.
contract PoolMinter {
    address private _pool;
    address private _payer;

    error NotAsked();
    error LengthsDiffer();
    error NotPaid();

    /// @notice One position per entry, owned by this contract and paid by the caller, who approved both tokens.
    function mint(
        address pool,
        int24[] calldata lowers,
        int24[] calldata uppers,
        uint128[] calldata liquidities
    ) external {
        if (lowers.length != uppers.length || lowers.length != liquidities.length) revert LengthsDiffer();
        (_pool, _payer) = (pool, msg.sender);
        for (uint256 i; i < lowers.length; ++i) {
            IMintablePool(pool).mint(address(this), lowers[i], uppers[i], liquidities[i], "");
        }
        (_pool, _payer) = (address(0), address(0));
    }

    function uniswapV3MintCallback(uint256 amount0, uint256 amount1, bytes calldata) external {
        if (msg.sender != _pool) revert NotAsked();
        if (amount0 > 0) _pay(IMintablePool(msg.sender).token0(), amount0);
        if (amount1 > 0) _pay(IMintablePool(msg.sender).token1(), amount1);
    }

    /// Tokens without a return value are paid too.
    function _pay(address token, uint256 raw) private {
        bytes memory data = abi.encodeWithSignature("transferFrom(address,address,uint256)", _payer, msg.sender, raw);
        // solhint-disable-next-line avoid-low-level-calls
        (bool ok, bytes memory answer) = token.call(data);
        if (!ok || (answer.length > 0 && !abi.decode(answer, (bool)))) revert NotPaid();
    }
}
