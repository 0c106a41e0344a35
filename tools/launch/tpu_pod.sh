#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice; after its name and zone, arguments of mis-jax train:
#     tools/launch/tpu_pod.sh NAME ZONE RECORDS --workdir RUN --config sbd_vitb16
# Every host needs this repository in ~/mis_jax with `pip install -e '.[tpu]'` done in its .venv.
set -euo pipefail
if [ "$#" -lt 3 ]; then
  echo "usage: $0 NAME ZONE RECORDS --workdir RUN ..." >&2
  exit 2
fi
name=$1 zone=$2
shift 2
printf -v words ' %q' "$@"
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="mis_jax/.venv/bin/mis-jax train$words --coordinator=auto"
