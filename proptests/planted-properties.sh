#!/usr/bin/env bash
# That `make prop` can fail: each patch is a defect, put into a copy of the code, and the property that
# is named beside it has to refuse it, in as many cases as `make prop` tries.
set -euo pipefail
cd "$(dirname "$0")/.."
# Where `make prop` builds: all but the two packages of the copy is there already.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} RUST_BACKTRACE=0
export PROPTEST_CASES=${CASES:-10000}
copy=$CARGO_TARGET_DIR/planted-properties

. .ci/planting
parts=(src tests/support proptests Cargo.toml Cargo.lock)

missed=0
# PATCH TEST-FILE PROPERTY PROMISE
while read -r patch tests property promise; do
  refresh "${parts[@]}"
  plant "$patch"
  what=$(sed -n 2p "$patch")
  run=(cargo test --locked --release --quiet --manifest-path "$copy/proptests/Cargo.toml" --test "$tests")
  "${run[@]}" --no-run
  # A property that is not there is no defect that it noticed.
  "${run[@]}" -- --list --exact "$property" | grep -q "^$property: test"
  if said=$(timeout 600 "${run[@]}" -- --exact "$property" 2>&1); then
    echo "missed: $what, by $property"
    missed=1
  else
    grep -q '^test result: FAILED' <<<"$said" || { echo "$said"; echo "$property: failed otherwise than as a property"; exit 1; }
    after=$(sed -n 's/.*successes: \([0-9]*\).*/\1/p' <<<"$said" | head -1)
    echo "planted: prop: $promise: $what -> $property${after:+, after $after cases that passed}"
  fi
done <<'END'
fuzz/planted/03-zero-length-datagram.patch properties libcamera_is_heard_as_the_model_says P1
fuzz/planted/04-made-up-descriptor.patch properties libcamera_is_heard_as_the_model_says P1
fuzz/planted/01-padding-descriptor.patch properties control_messages_are_decoded_as_encoded P2
fuzz/planted/02-leak-on-truncation.patch properties libcamera_is_heard_as_the_model_says P2
proptests/planted/violation-forgotten.patch properties stream_is_heard_as_the_model_says P3
fuzz/planted/07-size-believed.patch properties vhost_user_is_heard_as_the_model_says P4
fuzz/planted/09-deadline-never-fires.patch properties stream_is_heard_as_the_model_says P5
fuzz/planted/08-dropped-remainder.patch properties stream_is_sent_whole_or_not_at_all P6
proptests/planted/descriptor-unasked.patch properties libcamera_is_heard_as_the_model_says P9
END
refresh "${parts[@]}"
exit "$missed"
