#!/usr/bin/env bash
# All that can only be measured on an accelerator, in one go; a part that fails leaves the others be.
#
#   [MINUTES=4] [PUBLISHED=SOURCES] [STEP="--variant B --batch 32"] [WHEELS=FOLDER] \
#     tools/bench/measure_gpu.sh RECORDS GRABCUT OUT [--config.field=value ...]
#
# OUT/step.json      the ViT-B train step (train.py), beside the published trainer where
#                    PUBLISHED holds the clones of docs/fidelity.md
# OUT/run            `folder_vits16` from random weights for MINUTES, stopped as by a preemption;
#                    further words are settings of this run
# OUT/grabcut        its NoC, 16 objects in flight
# OUT/model_*        the network as one file, in pieces of 15 MiB: cat model_* > model.safetensors
# OUT/in_flight.json clicks a second with 1 to 16 objects in flight (evaluate.py), likewise
#
# WHEELS: packages to install first, on a machine without a network.
# RECORDS: `mis-jax propose PHOTOS --records RECORDS --config.propose.max_side=256` makes them small.
set -uo pipefail
records=$1 grabcut=$2 out=$3
shift 3
tools=$(dirname "$0")
mkdir -p "$out"
export XLA_PYTHON_CLIENT_PREALLOCATE=false # the published code needs memory too
published=() # arguments
failed=0
[ -n "${WHEELS:-}" ] && python3 -m pip install --quiet --no-deps "$WHEELS"/*.whl
[ -n "${PUBLISHED:-}" ] && published=(--published "$PUBLISHED")

part() {
  echo "== $1"
  shift
  local start=$SECONDS
  "$@" || { echo "-- failed with status $?" && failed=1; }
  echo "-- $((SECONDS - start)) s"
}

train() {
  timeout --signal=TERM "${MINUTES:-4}m" python3 -m mis_jax train "$records" --workdir "$out/run" \
    --config folder_vits16 --config.model.init=random "$@"
  local status=$?
  [ $status = 124 ] && return 0 # stopped by the clock, its state saved
  return $status
}

in_flight() {
  python3 "$tools/evaluate.py" "$PUBLISHED" "$grabcut" --sections d --repeats 1 \
    --json "$out/in_flight.json"
}

model() {
  python3 -m mis_jax export "$out/run" "$out/model.safetensors" &&
    split --bytes=15M "$out/model.safetensors" "$out/model_" && rm "$out/model.safetensors"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
# shellcheck disable=SC2086
part "train step" python3 "$tools/train.py" ${STEP:---variant B --batch 32} --steps 12 \
  "${published[@]}" --json "$out/step.json"
part "train" train "$@"
part "evaluate" python3 -m mis_jax evaluate "$out/run" --datasets "grabcut=$grabcut" \
  --at_once 16 --output "$out/grabcut"
part "export" model
if [ -n "${PUBLISHED:-}" ]; then part "in flight" in_flight; fi
exit $failed
