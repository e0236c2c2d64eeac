"""Print the transaction that deploys the Rebalancer for the chain and factories of a config. Any
wallet can send it.

Write the resulting address into execution.rebalancer; every command compares the code there with
this one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.config.build import factories
from agent.config.load import load_config
from agent.venues.calldata import creation_code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("trimtab.toml"))
    config = load_config(parser.parse_args().config).config
    deployment_data = creation_code(config.chain.wrapped_native, factories(config))
    print(
        json.dumps(
            {"chain_id": config.chain.chain_id, "to": None, "value": "0x0", "data": deployment_data}
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
