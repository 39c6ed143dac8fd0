#!/usr/bin/env bash
# What each fuzz target reaches: cargo-fuzz's instrumented build runs over the target's corpus and
# over what FUZZ_SECONDS of fuzzing add to it, and llvm-cov counts. Printed per target: the files of
# src that it reaches at all, with their lines and regions.
#
#   fuzz/coverage.sh TARGET...
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1
base=${CARGO_TARGET_DIR:-$PWD/target}
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin

for target in "$@"; do
  found=$(mktemp -d)
  trap 'rm -rf "$found"' EXIT
  if [ "${FUZZ_SECONDS:-0}" -gt 0 ]; then
    dictionary=(); [ ! -f "fuzz/dictionaries/$target.dict" ] || dictionary=("-dict=fuzz/dictionaries/$target.dict")
    cargo fuzz run "$target" "$found" "fuzz/corpus/$target" -- -max_total_time="$FUZZ_SECONDS" "${dictionary[@]}" \
      2>"$found.log" || { tail -40 "$found.log"; exit 1; }
  fi
  cargo fuzz coverage "$target" "fuzz/corpus/$target" "$found" >"$found.log" 2>&1 || { tail -40 "$found.log"; exit 1; }
  program=$(find "$base" fuzz/target -path "*coverage/$host/release/$target" -type f 2>/dev/null | head -1)
  echo "== $target"
  "$tools/llvm-cov" export -summary-only -instr-profile="fuzz/coverage/$target/coverage.profdata" "$program" |
    .ci/fuzz-coverage "$PWD/src/"
  rm -rf "$found" "$found.log"
done
