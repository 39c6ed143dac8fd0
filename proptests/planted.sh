#!/usr/bin/env bash
# That `make model` can fail: each patch, a bug that others had or a promise broken on purpose, is put
# into a copy of the code, and the walk of the machine that it is in has to break. Prints what broke.
set -euo pipefail
cd "$(dirname "$0")/.."
# Where `make test` builds: all but the two packages of the copy is there already.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} RUST_BACKTRACE=0
copy=$CARGO_TARGET_DIR/planted-model

. .ci/planting
parts=(src tests/support proptests Cargo.toml Cargo.lock)

missed=0
# PATCH MACHINE PROMISE, and what the walk has to say.
while read -r patch machine promise words; do
  refresh "${parts[@]}"
  plant "$patch"
  what=$(sed -n 2p "$patch")
  (cd "$copy" && cargo build --locked --quiet --manifest-path proptests/Cargo.toml --example model)
  said=$("$CARGO_TARGET_DIR/debug/examples/model" "$machine" || true)
  if line=$(grep -m1 "^model: $machine: .*$words.* states by the script" <<<"$said"); then
    after=$(grep -oE 'after [0-9,]+ states' <<<"$line")
    echo "planted: model: $promise: $what -> \`make model\`, \"$words\" $after of $machine"
  else
    echo "missed: $what, by the walk of $machine"
    tail -5 <<<"$said"
    missed=1
  fi
done <<'END'
fuzz/planted/03-zero-length-datagram.patch libcamera P1 P1: the verdict
fuzz/planted/02-leak-on-truncation.patch libcamera P2 P1: the verdict
proptests/planted/refused-forgotten.patch packet P2 P2: the ledger
proptests/planted/violation-forgotten.patch packet P3 P3
fuzz/planted/07-size-believed.patch stream P4 right: "payload-too-large"
proptests/planted/room-twice.patch packet P4 P4: Held
fuzz/planted/09-deadline-never-fires.patch stream P5 P1: the verdict
proptests/planted/deadline-a-moment-late.patch stream P5 P5: the deadline
fuzz/planted/08-dropped-remainder.patch senders P6 what is to be sent
proptests/planted/length-indexed-with.patch packet P8 out of range
proptests/planted/deadline-of-nobody.patch calls P5 left: Some
proptests/planted/name-counted-for-ever.patch broker P4 left
proptests/planted/descriptor-unasked.patch libcamera P9 P1: the verdict
proptests/planted/size-without-its-seal.patch policies P9 P9
END
refresh "${parts[@]}"
exit "$missed"
