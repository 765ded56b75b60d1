#!/usr/bin/env bash
# Does the eigengap help? Searches locally, confirms the best five on fresh seeds and scenes, and
# ablates the term on them: every definition at the default backend, backends under `subspace` only.
#
#     benchmarks/eigengap_ablation.sh [RUN]        default runs/eigengap-ablation
#
# 77 minutes on two slow cores, most of it 200 trainings of three epochs (the preset has ten); it
# says at its end how long it took. Killed, it goes on where it was when it is started again: every
# training and score that is done is found. Tables and figure between the markers of
# docs/eigengap.md are replaced at the end (not with WRITE=no). To try it:
#     PRESET=smoke TRIALS=4 SEEDS=2 SCENES=16 FRESH=32 SNR=-5,0 WRITE=no benchmarks/eigengap_ablation.sh runs/y
# With the preset's own epochs and twice the scenes, two hours:
#     EPOCHS=10 SCENES=512 benchmarks/eigengap_ablation.sh
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/eigengap-ablation}
workers=${WORKERS:-2}
# Scenes for each SNR and K. Finalists get more: an ablation is paired, a value is not. FRESH=2048,
# the default of search.confirm, is four times the scoring.
scenes=${SCENES:-256}
fresh=${FRESH:-512}
reruns=(--top "${TOP:-5}" --seeds "${SEEDS:-5}" --snr="${SNR:--10,-5,0,10}"
    --max-concurrent "$workers")

if [ -e "$run/run.json" ]; then
    python -m search.run --resume "$run" --max-concurrent "$workers"
else
    # none is stopped early: twelve finalists to choose from
    python -m search.run --preset "${PRESET:-local}" --epochs "${EPOCHS:-3}" \
        --trials "${TRIALS:-12}" --scheduler none --name "$run" --max-concurrent "$workers"
fi
python -m search.confirm "$run" --scenes "$fresh" "${reruns[@]}"
ablate() {
    python -m search.ablate "$run" "$@" --scenes "$scenes" "${reruns[@]}"
}
for definition in gap ratio energy leak subspace; do
    ablate --term eigengap --definition "$definition"
done
for backend in eigh svd; do
    ablate --definition subspace --set "spectral.backend=$backend" --name "subspace-$backend"
done
python -m search.report "$run"
if [ "${WRITE:-yes}" = no ]; then
    python benchmarks/eigengap_ablation.py "$run" --no-write
else
    python benchmarks/eigengap_ablation.py "$run"
fi
echo "took $((SECONDS / 60)) min since it was started last"
