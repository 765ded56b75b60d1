#!/usr/bin/env bash
# Does the eigengap help? Searches locally, confirms the best five on fresh seeds and scenes, and
# ablates the term on them: every definition at the default backend, backends under `subspace` only.
#
#     benchmarks/eigengap_ablation.sh [RUN]        default runs/eigengap-ablation
#
# At most 90 minutes on two quiet cores. Killed, it goes on where it was when it is started again:
# every training and score that is done is found. Tables and figure between the markers of
# README.md and docs/eigengap.md are replaced at the end (not with WRITE=no). To try it in minutes:
#     PRESET=smoke TRIALS=4 SEEDS=2 SCENES=16 SNR=-5,0,10 WRITE=no benchmarks/eigengap_ablation.sh x
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/eigengap-ablation}
workers=${WORKERS:-2}
# 1,024 scenes for K = 1 and as many for K = 2: 2,048 at every SNR, 4,096 behind a verdict
reruns=(--top "${TOP:-5}" --seeds "${SEEDS:-5}" --scenes "${SCENES:-1024}"
    --snr="${SNR:--10,-5,0,5,10}" --max-concurrent "$workers")

if [ -e "$run/run.json" ]; then
    python -m search.run --resume "$run" --max-concurrent "$workers"
else
    # no trial is stopped early: twelve finalists to choose from, and what a rung cost is not asked
    python -m search.run --preset "${PRESET:-local}" --trials "${TRIALS:-12}" --scheduler none \
        --name "$run" --max-concurrent "$workers"
fi
python -m search.confirm "$run" "${reruns[@]}"
for definition in gap ratio energy leak subspace; do
    python -m search.ablate "$run" --term eigengap --definition "$definition" "${reruns[@]}"
done
for backend in eigh svd; do
    python -m search.ablate "$run" --definition subspace --set "spectral.backend=$backend" \
        --name "subspace-$backend" "${reruns[@]}"
done
if [ "${WRITE:-yes}" = no ]; then
    python benchmarks/eigengap_ablation.py "$run" --no-write
else
    python benchmarks/eigengap_ablation.py "$run"
fi
