import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import local_table

p = argparse.ArgumentParser()
p.add_argument("--record", type=int)
p.add_argument("--parts", type=Path)
args = p.parse_args()
local_table.record(args.record, args.parts)
