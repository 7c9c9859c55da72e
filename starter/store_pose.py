"""Store a trained pose model as the package ships it: convolutions in 8 bits, with its terms.

python starter/store_pose.py starter-end-run/last.safetensors starter-w32-256x192.safetensors
"""

import argparse
from pathlib import Path

import torch

from hrnet_cli.checkpoint import load_model, save_model
from hrnet_cli.weights import file_sha256

LICENCE = "research use: photos of LSPET and COCO"
PROVENANCE = "hrnet train --config starter, on LSPET and COCO train2017 photos; see the model card"


def main() -> None:
    """Read, write, and say what weights.toml needs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    network, spec, _ = load_model(arguments.model)
    target: Path = arguments.target
    save_model(
        target,
        network.state_dict(),
        spec,
        provenance=PROVENANCE,
        licence=LICENCE,
        dtype=torch.int8,
    )
    print(f'sha256 = "{file_sha256(target)}"\nsize_bytes = {target.stat().st_size}')
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters")


if __name__ == "__main__":
    main()
