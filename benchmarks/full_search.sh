#!/usr/bin/env bash
# The published search on the full scene, for two cores: weights of the small panel, then twelve
# trainings that begin with them on the large one, with the report and a confirmation of the best three.
#
#     benchmarks/full_search.sh [RUN]        default runs/full
#
# The search alone takes at most 90 minutes on two cores, the small panel six, a confirmation on
# few scenes an hour; it says at its end how long it took. Killed, it goes on where it was when it is
# started again. To try it:
#     EPOCHS=1 STEPS=2 BATCH=4 SCENES=2 TRIALS=2 CONFIRM=no benchmarks/full_search.sh /tmp/try/full
set -euo pipefail
cd "$(dirname "$0")/.."
run=${1:-runs/full}
small=$run-small
workers=${WORKERS:-2}
budget=(--preset full --budget reduced --max-concurrent "$workers")
tried=("evaluation.num_scenes=${SCENES:-32}" "evaluation.num_test_scenes=${SCENES:-32}")
network=(network.kind=unrolled network.stages=3 network.width=32 network.depth=3 network.planes=15)

search() { # RUN, flags of a new one
    local name=$1
    shift
    if [ -e "$name/run.json" ]; then
        python -m search.run --resume "$name" --max-concurrent "$workers"
    else
        python -m search.run "${budget[@]}" --name "$name" "$@"
    fi
}
# the first known-good point of the preset; 15 range planes are those of the large panel
search "$small" --trials 1 --set scene.num_horizontal=6 scene.num_vertical=6 "${network[@]}" \
    "epochs=${EPOCHS:-16}" "steps_per_epoch=${STEPS:-50}" "batch_size=${BATCH:-64}" "${tried[@]}" \
    evaluation.baselines=crb,lmmse_music
search "$run" --start-from "$small" --trials "${TRIALS:-12}" \
    --set "epochs=${EPOCHS:-9}" "steps_per_epoch=${STEPS:-25}" "batch_size=${BATCH:-32}" "${tried[@]}"
if [ "${CONFIRM:-yes}" = yes ]; then
    python -m search.confirm "$run" --top 3 --seeds 2 --scenes 64 --max-concurrent "$workers"
fi
python -m search.report "$run"
echo "took $((SECONDS / 60)) min since it was started last"
