#!/usr/bin/env bash
# Runs build.sh as OSS-Fuzz's builder would, against a local $SRC and $OUT, and then does what its
# runner does with $OUT: unpacks each corpus and runs each program over it and its dictionary.
set -euo pipefail
cd "$(dirname "$0")/../.."
for tool in zip unzip; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is not installed (apt-get install $tool)"; exit 0; }
done
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} RUSTC_BOOTSTRAP=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export SRC=$scratch/src OUT=$scratch/out
mkdir "$SRC" "$OUT"
ln -s "$PWD" "$SRC/fdpost"
bash -eu fuzz/oss-fuzz/build.sh
for source in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  mkdir "$scratch/$target"
  unzip -q "$OUT/${target}_seed_corpus.zip" -d "$scratch/$target"
  seeds=$(find "$scratch/$target" -type f | wc -l)
  [ "$seeds" -gt 0 ] || { echo "$target has no seeds"; exit 1; }
  dictionary=()
  [ ! -f "$OUT/$target.dict" ] || dictionary=("-dict=$OUT/$target.dict")
  "$OUT/$target" -runs=1000 "${dictionary[@]}" "$scratch/$target" >"$scratch/log" 2>&1 || { tail -40 "$scratch/log"; exit 1; }
  if [ -f "$OUT/$target.dict" ]; then grep -q '^Dictionary: [1-9]' "$scratch/log" || { echo "$target's dictionary is empty"; exit 1; }; fi
  echo "$target: $seeds seeds, $(grep -c . "$OUT/$target.dict" 2>/dev/null || echo no) lines of dictionary, ran"
done
