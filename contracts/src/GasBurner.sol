// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A token whose balanceOf takes all the gas it is given
contract GasBurner {
    string public constant name = "Gas Burner"; // solhint-disable-line const-name-snakecase
    string public constant symbol = "BURN"; // solhint-disable-line const-name-snakecase
    uint8 public constant decimals = 18; // solhint-disable-line const-name-snakecase

    function balanceOf(address) external pure returns (uint256) {
        assembly {
            invalid()
        }
    }

    function allowance(address, address) external pure returns (uint256) {
        return 0;
    }
}
