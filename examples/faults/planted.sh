#!/usr/bin/env bash
# Each patch of examples/faults/planted is a defect of the kind that `make faults` looks for, put into a
# copy of the code: the cases that its second line names must notice it.
set -euo pipefail
cd "$(dirname "$0")/../.."
base=${CARGO_TARGET_DIR:-$PWD/target}/planted-faults
copy=$base/copy
export CARGO_TARGET_DIR=$base/target

. .ci/planting
parts=(src examples benches tests Cargo.toml Cargo.lock README.md)

missed=0
for patch in examples/faults/planted/*.patch; do
  defect=$(sed -n 's/^Defect: //p' "$patch")
  read -ra cases <<<"$(sed -n 's/^Cases: //p' "$patch")"
  refresh "${parts[@]}"
  plant "$patch"
  (cd "$copy" && cargo build --locked --quiet --features broker,tokio --example faults)
  log=$base/$(basename "$patch" .patch).log
  if FAULTS_FIRST=1 "$CARGO_TARGET_DIR/debug/examples/faults" "${cases[@]}" >"$log" 2>&1; then
    if grep '^skipped: ' "$log"; then exit 0; fi
    echo "missed: $defect, by make faults SCENARIO=\"${cases[*]}\""
    missed=1
  else
    # The first that failed, and what it said.
    why=$(sed -n 's/^FAILED: case \([^:]*\): \(.*\)/case \1: \2/p' "$log" | head -1 | sed 's/: \[Report .*//' | cut -c1-150)
    echo "planted: faults: $defect -> make faults SCENARIO=\"${cases[*]}\", $why"
  fi
done
refresh "${parts[@]}"
exit "$missed"
