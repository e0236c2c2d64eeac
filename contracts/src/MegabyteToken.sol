// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title A token whose balanceOf answers with a megabyte
contract MegabyteToken {
    string public constant name = "Megabyte"; // solhint-disable-line const-name-snakecase
    string public constant symbol = "MEGA"; // solhint-disable-line const-name-snakecase
    uint8 public constant decimals = 18; // solhint-disable-line const-name-snakecase

    function balanceOf(address) external pure returns (uint256) {
        assembly {
            return(0, 1048576)
        }
    }

    function allowance(address, address) external pure returns (uint256) {
        return 0;
    }
}
