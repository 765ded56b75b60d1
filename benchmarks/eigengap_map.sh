#!/usr/bin/env bash
# Where does an eigengap term help, where does it hurt? Runs the registered experiment of
# docs/eigengap_map.md, 960 trainings in runs/eigengap, keeps its results in one file, and replaces
# every table and the figure of the page.
#
#     benchmarks/eigengap_map.sh
#
# Two to three hours on two cores. Killed, it goes on where it was when it is started again.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m search.ablate --design benchmarks/eigengap.toml
python benchmarks/eigengap_map.py runs/eigengap --keep
python benchmarks/eigengap_map.py --write
python benchmarks/nan_rates.py --seeds 5 --write
