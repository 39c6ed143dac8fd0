#!/usr/bin/env bash
# Each patch of fuzz/planted is a bug that others had, put into a copy of the code; the fuzz target
# that its first line names has to find it within LIMIT (60) seconds of one processor's time, which is
# what a clock shows where nothing else runs. Prints how long that took: the median of RUNS (1), each
# with a seed of its own. Every run begins with nothing: no corpus and no dictionary.
#
# Built without a sanitizer, and little optimised: all ten are the harness's to find. Its ledger counts
# the owners of each descriptor, so that a leaked one, or one claimed twice, is a failed assertion of
# the same run; a sanitizer would look for memory. SANITIZER=address has it all the same.
#
#   fuzz/planted.sh [NAME...]     only patches whose names begin so
#   fuzz/planted.sh --apply       only whether every patch still applies, other methods' too
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-1} limit=${LIMIT:-60}
base=${CARGO_TARGET_DIR:-$PWD/target}/planted
copy=$base/copy

. .ci/planting
if [ "${1:-}" = --apply ]; then
  for patch in {fuzz,proptests,tests/agree,examples/*}/planted/*.patch; do
    patch --dry-run --force --fuzz=0 --silent -p1 <"$patch" || { echo "$patch does not apply any more"; exit 1; }
  done
  exit 0
fi
export CARGO_TARGET_DIR=$base/target RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0 \
  CARGO_PROFILE_RELEASE_OPT_LEVEL=1
sanitizer=${SANITIZER:-none}

parts=(src tests/support tests/vectors fuzz proptests Cargo.toml Cargo.lock)

missed=() found=0
for patch in fuzz/planted/*.patch; do
  name=$(basename "$patch" .patch)
  if [ $# -gt 0 ]; then
    wanted=; for prefix in "$@"; do [[ $name == "$prefix"* ]] && wanted=1; done
    [ -n "$wanted" ] || continue
  fi
  target=$(sed -n 's/^Target: //p' "$patch") what=$(sed -n 2p "$patch")
  refresh "${parts[@]}"
  plant "$patch"
  (cd "$copy" && cargo fuzz build --sanitizer "$sanitizer" "$target" >"$base/$name.build" 2>&1) || { cat "$base/$name.build"; exit 1; }
  program=$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release/$target
  longest=$(sed -n 's/^max_len *= *//p' "fuzz/options/$target.options")
  times=()
  for run in $(seq "$runs"); do
    scratch=$(mktemp -d)
    # bash's time, in a format of our own: seconds in user mode and in the kernel.
    TIMEFORMAT='%U %S'
    spent=$({ time (
      ulimit -t "$limit"
      "$program" -seed="$run" -max_total_time=$((limit * 20)) -timeout=100 -max_len="$longest" \
        -artifact_prefix="$scratch/" "$scratch" >"$base/$name.log.$run" 2>&1 || true
    ); } 2>&1)
    # What no oracle said is no find.
    if grep -qE 'panicked at|ERROR: AddressSanitizer' "$base/$name.log.$run"; then
      times+=("$(awk '{ printf "%d", 1000 * ($1 + $2) }' <<<"$spent")")
      # Which oracle it was, and what it said.
      why=$(grep -m1 -A1 'panicked at' "$base/$name.log.$run" |
        sed -nE '1s|.*panicked at ([^:]*/)?([^/:]+):.*|\2|p; 2s|(.{90}).*|\1|; 2p' | paste -sd' ' || true)
      why=${why:-$(grep -m1 -o 'AddressSanitizer: [a-z-]*' "$base/$name.log.$run" || true)}
    else
      times+=(999999999)
    fi
    rm -rf "$scratch"
  done
  sorted=($(printf '%s\n' "${times[@]}" | sort -n))
  median=${sorted[$((runs / 2))]} slowest=${sorted[$((runs - 1))]}
  if [ "$median" -gt $((limit * 1000)) ]; then
    echo "missed: $name by $target within $limit s in most of $runs runs"
    missed+=("$name")
    continue
  fi
  found=$((found + 1))
  [ "$slowest" -le $((limit * 1000)) ] && slowest="$(awk "BEGIN { printf \"%.2f\", $slowest / 1000 }") s" || slowest="missed"
  printf 'planted: fuzz-planted: %s -> target %s after %s s of processor time, the median of %d (slowest: %s): "%s"\n' "$what" "$target" \
    "$(awk "BEGIN { printf \"%.2f\", $median / 1000 }")" "$runs" "$slowest" "$why"
done
refresh "${parts[@]}"
[ "${#missed[@]}" = 0 ] || exit 1
[ $# -gt 0 ] || echo "evidence: fuzz-planted: $found of $found bugs that others had, each found within $limit s of processor time from no corpus and no dictionary, median of $runs"
