"""The results of the registered experiment (docs/eigengap_map.md), from a run or a kept one.

    python benchmarks/eigengap_map.py runs/eigengap --keep      # into benchmarks/data, a few MB
    python benchmarks/eigengap_map.py                           # prints the tables from there
    python benchmarks/eigengap_map.py --unpack runs             # makes runs/eigengap from there

A kept run has no weights. Unpacked, it goes on with `python -m search.ablate --design
benchmarks/eigengap.toml`: a training that ended and was scored is found, others are trained.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kept_run import pack, unpack

from search.report.data import load
from search.report.factorial import map_text
from trainer.atomic import write_atomically

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "data" / "eigengap_map.zip"


def main() -> None:
    """Print the tables, keep a run or unpack one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=KEPT, help="folder or kept file")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--keep", type=Path, nargs="?", const=KEPT, metavar="FILE", help=f"pack into {KEPT.name}"
    )
    what.add_argument("--unpack", type=Path, metavar="OUT", help="folder of runs")
    args = parser.parse_args()
    if args.keep:
        content = pack(args.run)
        write_atomically(args.keep, content)
        print(f"{args.keep}: {len(content) / 1e6:.2f} MB")
    elif args.unpack:
        print(unpack(args.run, args.unpack))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = args.run if args.run.is_dir() else unpack(args.run, Path(folder))
            print(map_text(load(run)))


if __name__ == "__main__":
    main()
