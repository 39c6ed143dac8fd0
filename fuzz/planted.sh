#!/usr/bin/env bash
# Each patch of fuzz/planted is a bug that others had, put into a copy of the code; the fuzz target
# that its first line names has to find it within SECONDS (60), from no corpus at all. Prints how
# long that took: the median of RUNS (1), each with a seed of its own.
#
#   fuzz/planted.sh [NAME...]     only patches whose names begin so
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-1} limit=${LIMIT:-60}
base=${CARGO_TARGET_DIR:-$PWD/target}/planted
copy=$base/copy
export CARGO_TARGET_DIR=$base/target RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0

# Only what differs is written, so that cargo builds only that again.
refresh() {
  mkdir -p "$copy" && find "$copy" -name '*.orig' -delete
  git ls-files -z src tests/support tests/vectors fuzz proptests Cargo.toml Cargo.lock | while IFS= read -r -d '' file; do
    [ -f "$file" ] || continue
    cmp -s "$file" "$copy/$file" || { mkdir -p "$copy/$(dirname "$file")"; cp "$file" "$copy/$file"; }
  done
}

missed=0
for patch in fuzz/planted/*.patch; do
  name=$(basename "$patch" .patch)
  if [ $# -gt 0 ]; then
    wanted=; for prefix in "$@"; do [[ $name == "$prefix"* ]] && wanted=1; done
    [ -n "$wanted" ] || continue
  fi
  target=$(sed -n 's/^Target: //p' "$patch")
  refresh
  patch --quiet --no-backup-if-mismatch -p1 -d "$copy" <"$patch"
  (cd "$copy" && cargo fuzz build "$target" >"$base/$name.build" 2>&1) || { cat "$base/$name.build"; exit 1; }
  program=$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release/$target
  times=()
  for run in $(seq "$runs"); do
    scratch=$(mktemp -d)
    start=$(date +%s%N)
    status=0
    "$program" -seed="$run" -max_total_time="$limit" -timeout=10 -artifact_prefix="$scratch/" \
      -detect_leaks=1 "$scratch" >"$base/$name.log" 2>&1 || status=$?
    [ "$status" != 0 ] && times+=($((($(date +%s%N) - start) / 1000000))) || times+=(999999999)
    rm -rf "$scratch"
  done
  median=$(printf '%s\n' "${times[@]}" | sort -n | sed -n "$(((runs + 1) / 2))p")
  if [ "$median" -gt $((limit * 1000)) ]; then
    echo "missed: $name by $target within $limit s (runs: $runs)"
    missed=1
  else
    why=$(grep -m1 -A1 'panicked at' "$base/$name.log" | tail -1 | cut -c1-90 || true)
    printf 'found: %-24s by %-12s after %6d ms (median of %d): %s\n' "$name" "$target" "$median" "$runs" "$why"
  fi
done
refresh
exit "$missed"
