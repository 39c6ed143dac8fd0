#!/usr/bin/env bash
# That `make model` can fail: each of some patches of fuzz/planted, a bug that others had, is put into
# a copy of the code, and the walk of the machine that it is in has to break. Prints what broke.
set -euo pipefail
cd "$(dirname "$0")/.."
# Where `make test` builds: all but the two packages of the copy is there already.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} RUST_BACKTRACE=0
copy=$CARGO_TARGET_DIR/planted-model

. .ci/planting
parts=(src tests/support proptests Cargo.toml Cargo.lock)

missed=0
# PATCH MACHINE PROMISE, and what the walk has to say.
while read -r name machine promise words; do
  patch=$(compgen -G "fuzz/planted/$name-*.patch")
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
03 libcamera P1 P1: the verdict
02 libcamera P2 P1: the verdict
07 stream P4 right: "payload-too-large"
09 stream P5 P1: the verdict
08 senders P6 what is to be sent
END
refresh "${parts[@]}"
exit "$missed"
