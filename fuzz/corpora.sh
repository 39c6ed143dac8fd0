#!/usr/bin/env bash
# Makes fuzz/corpus again: the seeds that proptests/examples/seeds.rs writes, from the vectors and by
# hand, and of what campaigns found (fuzz/campaign.sh) as few and as small as reach every edge that
# the seeds do not. Seeds have names, and so has what once showed a bug (found-...), which stays; what
# campaigns found has its hash. The real kernel plays the corpus of `receiver` too (make agree), so that is its
# seeds alone.
#
#   fuzz/corpora.sh TARGET...
set -euo pipefail
cd "$(dirname "$0")/.."
base=${CARGO_TARGET_DIR:-$PWD/target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo run --locked --quiet --manifest-path proptests/Cargo.toml --example seeds -- "$scratch"
export CARGO_TARGET_DIR=$base/fuzz-none RUSTC_BOOTSTRAP=1
cargo fuzz build --sanitizer none
built=$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release
for target in "$@"; do
  find "fuzz/corpus/$target" -name 'found-*' -exec cp -t "$scratch/$target" {} +
  seeds=$(find "$scratch/$target" -type f | wc -l)
  # What was found before stays where it reaches something.
  mkdir -p "$scratch/before" "$base/fuzz-found/$target"
  found=("$scratch/before" "$base/fuzz-found/$target")
  if [ "$target" = receiver ]; then found=(); else cp "fuzz/corpus/$target"/* "$scratch/before"; fi
  longest=$(sed -n 's/^max_len *= *//p' "fuzz/options/$target.options")
  "$built/$target" -merge=1 -use_counters=0 -max_len="$longest" "$scratch/$target" "${found[@]}" \
    >"$scratch/log" 2>&1 || { tail -40 "$scratch/log"; exit 1; }
  rm -rf "$scratch/before" "fuzz/corpus/$target"
  mv "$scratch/$target" "fuzz/corpus/$target"
  echo "$target: $seeds seeds, $(($(find "fuzz/corpus/$target" -type f | wc -l) - seeds)) more that were found:" \
    "$(cat "fuzz/corpus/$target"/* | wc -c) bytes in all"
done
