#!/usr/bin/env bash
# Each patch of examples/faults/planted is a defect of the kind that `make faults` looks for, put into a
# copy of the code: the cases that its second line names must notice it.
set -euo pipefail
cd "$(dirname "$0")/../.."
base=${CARGO_TARGET_DIR:-$PWD/target}/planted-faults
copy=$base/copy
export CARGO_TARGET_DIR=$base/target
command -v patch >/dev/null || { echo "skipped: patch is not installed (apt-get install patch)"; exit 0; }

# Only what differs is written, so that cargo builds only that again.
refresh() {
  mkdir -p "$copy"
  git ls-files -z --cached --others --exclude-standard src examples benches tests Cargo.toml Cargo.lock README.md |
    while IFS= read -r -d '' file; do
      cmp -s "$file" "$copy/$file" || { mkdir -p "$copy/$(dirname "$file")"; cp "$file" "$copy/$file"; }
    done
}

missed=0
for patch in examples/faults/planted/*.patch; do
  defect=$(sed -n 's/^Defect: //p' "$patch")
  read -ra cases <<<"$(sed -n 's/^Cases: //p' "$patch")"
  refresh
  patch --quiet --no-backup-if-mismatch -p1 -d "$copy" <"$patch"
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
refresh
exit "$missed"
