#!/usr/bin/env bash
# GEM-2B on several nodes. SLURM tells the job ten minutes before its end; it saves, and is queued again to go on.
#
#   sbatch --nodes 4 runs/slurm_gem_2b.sh sets/gem out/gem-2b
#
# One task for each GPU, without torchrun: that kills its children half a minute after SIGTERM, too soon for a large
# checkpoint. Nodes share OUT. Weights are shared within a node and copied across nodes.
#SBATCH --job-name=gem-2b
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
export SET=${1:-sets/gem} OUT=${2:-out/gem-2b}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=29500
RESUME=$(compgen -G "$OUT/step-*" > /dev/null && echo --resume || true)
export RESUME

# shellcheck disable=SC2016  # SLURM's variables are those of each task
srun bash -c 'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID \
    LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE \
    exec gemvlm train gem_2b --data "$SET" --out "$OUT" --sharding hybrid --workers 4 $RESUME'
code=$?
[ "$code" -eq 143 ] && scontrol requeue "$SLURM_JOB_ID" # 143: it was told to end, and has saved
exit "$code"
