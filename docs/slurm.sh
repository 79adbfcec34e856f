#!/bin/bash
#SBATCH --job-name=ddpm-kedro
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1      # torchrun starts the processes of its host
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120        # two minutes before the time limit: writes a checkpoint
#SBATCH --requeue
#SBATCH --open-mode=append

# Submit it from the project's folder, on storage that all hosts share, after: kedro run --pipelines data_ingestion
set -uo pipefail
source .venv/bin/activate
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # otherwise restarts may get the addresses of old processes
export DDPM_KEDRO_WAIT=120                  # seconds; the lock of a dead host is free after one minute
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$head:29400" --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
  -m ddpm_kedro --pipelines model_training "$@"
status=$?

# Stopped before the training was finished: requeue the job, which resumes from the checkpoint.
if grep -qs "Stopped after" <(tail -n 200 "slurm-$SLURM_JOB_ID.out") && [ "$status" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
