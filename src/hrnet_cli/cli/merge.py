"""``hrnet merge``: the outputs of the parts of a run -> those of one run."""

from pathlib import Path
from typing import Annotated

import typer

from hrnet_cli.cli.options import QuietOption

EXAMPLES = """Examples:

\b
  hrnet merge results-1 results-2 results-3 --out results
  hrnet merge results --out results
"""


def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="Output folders of the parts.", metavar="FOLDERS")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output folder; may be one of the FOLDERS.")
    ] = Path("hrnet-out"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing output of the same name.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Join what `hrnet detect --shard` wrote in parts, as if it had been one run.

    Records of photos become one file of each format; all other files are copied as they are.
    Keypoints of photos can differ from those of one run by a few hundredths of a pixel: photos that
    are computed together share their rounding.
    """
    from hrnet_cli.cli import console
    from hrnet_cli.merging import merge as merge_folders

    done = merge_folders(folders, out, overwrite=overwrite)
    if not quiet:
        joined = f"{done.photos} photos of {done.parts} parts" if done.parts else "no photo records"
        places = ", ".join(map(str, done.written)) or str(out)
        console.say(f"{joined}, {done.files} other files; wrote {places}")
