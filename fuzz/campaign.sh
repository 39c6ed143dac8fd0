#!/usr/bin/env bash
# Each target for SECONDS, from its corpus and from what earlier campaigns found, one after the
# other: executions, edges, and whether the last fifth of the time still brought a new edge. What is
# found stays in the target directory, for fuzz/corpora.sh.
#
#   SANITIZER=none fuzz/campaign.sh SECONDS TARGET...     or address
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1 sanitizer=${SANITIZER:-address}
shift
found=${CARGO_TARGET_DIR:-$PWD/target}/fuzz-found
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/fuzz-$sanitizer RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=10} # as OSS-Fuzz has it: 256 only cost cache
cargo fuzz build --sanitizer "$sanitizer"
built=$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release
result=$(mktemp)
trap 'rm -f "$result"' EXIT
for target in "$@"; do
  mkdir -p "$found/$target" "fuzz/artifacts/$target"
  mapfile -t flags < <(fuzz/flags "$target")
  .ci/fuzz-campaign "$seconds" "$result" "$target" "$built/$target" "${flags[@]}" \
    -artifact_prefix="fuzz/artifacts/$target/" "$found/$target" "fuzz/corpus/$target"
done
awk -v sanitizer="$sanitizer" '
  { n = $2; all += n; time += $3; quiet += $6; if (n > most) { most = n; by = $1 } }
  function grouped(n,   text, out) {
    text = sprintf("%.0f", n)
    while (length(text) > 3) { out = "," substr(text, length(text) - 2) out; text = substr(text, 1, length(text) - 3) }
    return text out
  }
  END {
    printf "evidence: fuzz-campaign: sanitizer %s: %s executions of %d targets in %s s, %s of them by %s; ", sanitizer, grouped(all), NR, grouped(time), grouped(most), by
    printf "no new edge in the last fifth of the time in %d of %d; no finding\n", quiet, NR
  }' "$result"
