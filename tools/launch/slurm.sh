#!/usr/bin/env bash
# Trains on the GPUs of SLURM nodes, one process a GPU; arguments are those of mis-jax train:
#     sbatch --nodes=2 tools/launch/slurm.sh RECORDS --workdir RUN --config sbd_vitb16
# Two minutes before its time is up, or when it is preempted, the run saves and is queued again.
#SBATCH --job-name=mis-jax
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

srun --kill-on-bad-exit=0 mis-jax train "$@"
status=$?
if [ "$status" -eq 143 ]; then # it was asked to stop, and has saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
