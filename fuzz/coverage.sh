#!/usr/bin/env bash
# What each fuzz target reaches, with its corpus and what FUZZ_SECONDS of fuzzing add to it: the files of
# src with their lines and regions, as llvm-cov counts them in cargo-fuzz's instrumented build, and
# the rules that its inputs break, out of those that it can (proptests/src/reach.rs).
#
#   fuzz/coverage.sh TARGET...
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1
base=${CARGO_TARGET_DIR:-$PWD/target}
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
all=$(mktemp)
found=$(mktemp -d)
trap 'rm -rf "$found" "$all"' EXIT

for target in "$@"; do
  rm -rf "$found"
  mkdir -p "$found"
  if [ "${FUZZ_SECONDS:-0}" -gt 0 ]; then
    mapfile -t flags < <(fuzz/flags "$target")
    cargo fuzz run "$target" "$found" "fuzz/corpus/$target" -- -max_total_time="$FUZZ_SECONDS" "${flags[@]}" \
      2>"$all.log" || { tail -40 "$all.log"; exit 1; }
  fi
  cargo fuzz coverage "$target" "fuzz/corpus/$target" "$found" >"$all.log" 2>&1 || { tail -40 "$all.log"; exit 1; }
  # cargo-fuzz builds below its own folder, unless there is a CARGO_TARGET_DIR.
  built=("$base"); [ ! -d fuzz/target ] || built+=(fuzz/target)
  program=$(find "${built[@]}" -path "*coverage/$host/release/$target" -type f -print -quit)
  echo "== $target"
  "$tools/llvm-cov" export -summary-only -instr-profile="fuzz/coverage/$target/coverage.profdata" "$program" |
    .ci/fuzz-coverage "$PWD/src/"
  cargo run --locked --quiet --manifest-path proptests/Cargo.toml --example reach -- "$target" "fuzz/corpus/$target" "$found"
done | tee "$all"
rm -f "$all.log"
awk '
  /^  lines:/ { split($2, n, "/"); lines = lines sprintf("%s%s %s", lines ? ", " : "", target, $2) }
  /^== / { target = $2; targets++ }
  /^  rules:/ { reached += $2; of += $4 }
  END { printf "evidence: fuzz-coverage: %d of %d rules that %d targets can break, broken; lines reached of the files of src that each reaches: %s\n", reached, of, targets, lines }
' "$all"
