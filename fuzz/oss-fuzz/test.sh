#!/usr/bin/env bash
# Runs build.sh as OSS-Fuzz's builder would, against a local $SRC and $OUT, and then does what its
# runner does with $OUT (infra/base-images/base-runner: bad_build_check, run_fuzzer): starts each
# program on nothing, then unpacks its corpus and runs it over that with its dictionary and options.
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
grep -q "git clone .* fdpost$" fuzz/oss-fuzz/Dockerfile # where build.sh looks for it
programs=0 all=0
for source in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  nm "$OUT/$target" | grep -c __asan_init >/dev/null || { echo "$target is built without its sanitizer"; exit 1; }
  "$OUT/$target" -runs=4 >"$scratch/log" 2>&1 || { tail -40 "$scratch/log"; exit 1; }
  mkdir "$scratch/$target"
  unzip -q "$OUT/${target}_seed_corpus.zip" -d "$scratch/$target"
  seeds=$(find "$scratch/$target" -type f -size +0c | wc -l) # libFuzzer passes over an empty one
  [ "$seeds" -gt 0 ] || { echo "$target has no seeds"; exit 1; }
  mapfile -t options < <(sed -n 's/^\([a-z_]*\) *= */-\1=/p' "$OUT/$target.options")
  "$OUT/$target" -rss_limit_mb=2560 -timeout=25 -runs=2000 "-dict=$OUT/$target.dict" "${options[@]}" "$scratch/$target" \
    >"$scratch/log" 2>&1 || { tail -40 "$scratch/log"; exit 1; }
  words=$(sed -n 's/^Dictionary: \([0-9]*\) entries$/\1/p' "$scratch/log")
  [ "${words:-0}" -gt 0 ] || { echo "$target's dictionary is empty"; exit 1; }
  grep -q "$seeds files found in" "$scratch/log" || { echo "$target did not read its $seeds seeds"; exit 1; }
  echo "$target: $seeds seeds, $words words, ${options[*]}, ran"
  programs=$((programs + 1)) all=$((all + seeds))
done
echo "evidence: oss-fuzz: build.sh made $programs programs in \$OUT; each started on nothing, and ran 2,000 inputs over its corpus ($all seeds in all) with its dictionary and options"
