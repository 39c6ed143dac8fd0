#!/usr/bin/env bash
# Each patch of tests/agree/planted is a defect of the driver, of the simulated kernel or of the model, put
# into a copy of the code: the real play and the simulated one may no longer agree. Its first line
# says which defect.
set -euo pipefail
cd "$(dirname "$0")/../.."
base=${CARGO_TARGET_DIR:-$PWD/target}/agree-planted
copy=$base/copy
# What is not ours is built once, beside the real code.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} RUST_BACKTRACE=0 CASES=${CASES:-300}

. .ci/planting
parts=(src tests/support fuzz/corpus/receiver proptests tests/agree Cargo.toml Cargo.lock README.md)

missed=0
for patch in tests/agree/planted/*.patch; do
  name=$(basename "$patch" .patch)
  refresh "${parts[@]}"
  plant "$patch"
  cargo test --locked --quiet --no-run --manifest-path "$copy/tests/agree/Cargo.toml" 2>"$base/$name.build" ||
    { cat "$base/$name.build"; exit 1; }
  if timeout 600 cargo test --locked --quiet --manifest-path "$copy/tests/agree/Cargo.toml" -- --test-threads=1 >"$base/$name.log" 2>&1; then
    echo "missed: $name"
    missed=1
  else
    tests=$(sed -n 's/^    \([a-z_]*\)$/\1/p' "$base/$name.log" | sort -u | paste -sd' ')
    why=$(grep -oE 'really and (in the simulation|the model.s)|descriptors open now and before the test|no room' "$base/$name.log" | sort -u | paste -sd, || true)
    [ -n "$why" ] || { cat "$base/$name.log"; echo "$name: failed for another reason than disagreement"; exit 1; }
    echo "planted: agree: $(head -1 "$patch") -> \`make agree\`, $tests: compared ${why//,/, }"
  fi
done
refresh "${parts[@]}"
exit "$missed"
