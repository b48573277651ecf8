#!/bin/bash
#SBATCH --job-name=isoflop
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#
# A Ray of this job's nodes, with a token of its own, and a sweep on it:
#   ISOFLOP_ROOT=/shared/runs sbatch docs/clusters/slurm.sh recipe=mine.yaml placement.gpus=1
# Submitted in the repository's folder, with its environment activated; both lie where all nodes see them. Three minutes
# before the time limit, or when the job is preempted, Slurm sends SIGTERM: runs write their checkpoints, the job goes
# back into the queue, and goes on from them.
set -euo pipefail

: "${ISOFLOP_ROOT:?name a folder that all nodes share: ISOFLOP_ROOT=/shared/runs sbatch ...}"
export ISOFLOP_ROOT
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(16))')
export RAY_AUTH_TOKEN
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0

port=$((20000 + SLURM_JOB_ID % 10000))
store_bytes=${RAY_STORE_BYTES:-1000000000} # of a node's object store: runs do not use it
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Slurm writes a job's whole environment to its spool on every node, which root and its owner alone can read
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head_node" --overlap hostname --ip-address | awk '{print $1}')

# the head has no core and no GPU for work: it stays well when a node is full
srun --nodes=1 --ntasks=1 --nodelist="$head_node" --overlap \
    ray start --head --block --disable-usage-stats --num-cpus=0 --num-gpus=0 \
    --node-ip-address="$head_ip" --port="$port" --dashboard-host=127.0.0.1 --dashboard-port=$((port + 10000)) \
    --ray-client-server-port=$((port + 10001)) --dashboard-agent-listen-port=$((port + 10002)) \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID" --object-store-memory="$store_bytes" &
head=$!

export RAY_ADDRESS="$head_ip:$port" port store_bytes
until python -c "import socket; socket.create_connection(('$head_ip', $port), 1)" 2>/dev/null; do
    kill -0 "$head" 2>/dev/null || { echo "the Ray head ended before it answered at $RAY_ADDRESS: see above" >&2; exit 1; }
    sleep 1
done

# a worker a node, the head's too; the switch above a node, where Slurm knows it, is its rack
# shellcheck disable=SC2016  # the node's own variables
srun --overlap bash -c '
    rack=()
    case "${SLURM_TOPOLOGY_ADDR_PATTERN:-}" in
        *switch*.node) path=${SLURM_TOPOLOGY_ADDR%.*}; rack=("--labels=rack=${path##*.}") ;;
    esac
    gpus=$(tr "," "\n" <<< "${CUDA_VISIBLE_DEVICES:-}" | grep -c .) || true
    exec ray start --address="$RAY_ADDRESS" --block --disable-usage-stats \
        --num-cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --num-gpus="$gpus" \
        --dashboard-agent-listen-port=$((port + 10003 + SLURM_NODEID)) --object-store-memory="$store_bytes" "${rack[@]}"
' &

# a gang of all nodes would be refused before they are there
python - "$((SLURM_JOB_NUM_NODES + 1))" <<'PY'
import sys, time
from sweeps.cluster.connect import Connection
connection, wanted, deadline = Connection("waiting"), int(sys.argv[1]), time.monotonic() + 600
while (found := len(connection.ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"{found} of {wanted} Ray nodes came within ten minutes")
    time.sleep(1)
PY

python sweeps/sizes.py "$@" &
driver=$!
noticed=0
trap 'noticed=1; kill -TERM "$driver"' TERM
code=0
wait "$driver" || code=$?
if ((noticed)); then # the wait was interrupted: runs write their checkpoints now
    code=0
    wait "$driver" || code=$?
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
