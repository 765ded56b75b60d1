#!/bin/bash
# A search on the nodes of a Slurm allocation. From the project's root, in its environment:
#
#     sbatch --nodes=4 --cpus-per-task=16 --gpus-per-node=1 --time=08:00:00 \
#         deploy/slurm.sh RUN --preset full
#
# RUN is the path of the run, on a file system that all nodes share; flags of `search.run` follow.
# Where there is no run yet, the search begins; where there is one, it goes on. So after the time
# limit the same line continues it, also submitted ahead with `--dependency=afterany:JOB`, and a
# job that Slurm requeues goes on by itself.
#
# Two minutes before the time limit the driver gets SIGTERM and ends as after Ctrl-C, exit code 130.
#
# `ray symmetric-run` would be shorter, but it ends every Ray of this user on its nodes, also that
# of another job, refuses a node that has one, and does not pass a signal on to the driver.
#
#SBATCH --job-name=ris-eigengap-search
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

if [ $# -eq 0 ] || [[ $1 == -* ]]; then
    echo "usage: sbatch deploy/slurm.sh RUN [flags of search.run but --name, --out, --resume]" >&2
    exit 2
fi
run=$1
shift
cd "${SLURM_SUBMIT_DIR:?sbatch sets it}"

# Ray would take all cores of the machine, whatever Slurm has given
cpus=${SLURM_CPUS_ON_NODE:?sbatch sets it}
# jobs may share a node: each has ports of its own, below those that the system hands out
port=$((20000 + SLURM_JOB_ID % 1000 * 10))
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
# others reach these ports, so Ray asks for a token; a home that all nodes share has it
export RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null

rays=()
driver=
trap 'kill -TERM "${rays[@]}" 2> /dev/null || true; wait' EXIT
trap 'if [ -n "$driver" ]; then kill -TERM "$driver" || true; else exit 130; fi' TERM INT

# this script runs on the first node: the head
ray start --head --block --node-ip-address="$ip" --port="$port" --num-cpus="$cpus" \
    --dashboard-port=$((port + 1)) --dashboard-agent-listen-port=$((port + 2)) > /dev/null &
rays+=($!)
until ray status --address "$ip:$port" > /dev/null 2>&1; do
    kill -0 "${rays[0]}" 2> /dev/null || { echo "Ray has not started on $ip" >&2; exit 1; }
    sleep 1
done
if [ "${SLURM_JOB_NUM_NODES:?sbatch sets it}" -gt 1 ]; then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --nodes="$others" --ntasks="$others" --cpus-per-task="$cpus" \
        --exclude="${SLURMD_NODENAME:?sbatch sets it}" \
        ray start --block --address="$ip:$port" --num-cpus="$cpus" \
        --dashboard-agent-listen-port=$((port + 2)) > /dev/null &
    rays+=($!)
    # trials at a time follow from the nodes that the driver finds
    until [ "$(ray status --address "$ip:$port" | grep -c '^ 1 node_')" -gt "$others" ]; do
        kill -0 "${rays[1]}" 2> /dev/null || { echo "not all nodes have started Ray" >&2; exit 1; }
        sleep 1
    done
fi

if [ -e "$run/run.json" ]; then run_flag=--resume; else run_flag=--name; fi
python -m search.run "$run_flag" "$run" "$@" --address "$ip:$port" &
driver=$!
status=0
wait "$driver" || status=$? # also returns once a signal is passed on
while kill -0 "$driver" 2> /dev/null; do
    status=0
    wait "$driver" || status=$?
done
exit "$status"
