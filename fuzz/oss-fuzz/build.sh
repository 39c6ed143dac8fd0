#!/bin/bash -eu
# OSS-Fuzz's build: for each target the program, its seeds as NAME_seed_corpus.zip, its dictionary
# as NAME.dict and its flags as NAME.options, all in $OUT (google.github.io/oss-fuzz, "Setting up a
# new project").
cd "$SRC/fdpost"
# -O as OSS-Fuzz asks; with debug assertions, since overflow is one of the things looked for.
cargo fuzz build -O --debug-assertions
built=${CARGO_TARGET_DIR:-fuzz/target}/$(rustc -vV | sed -n 's/^host: //p')/release
for source in fuzz/fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  cp "$built/$target" "fuzz/dictionaries/$target.dict" "fuzz/options/$target.options" "$OUT/"
  rm -f "$OUT/${target}_seed_corpus.zip"
  (cd "fuzz/corpus/$target" && zip -q -r "$OUT/${target}_seed_corpus.zip" .)
done
