#!/usr/bin/env bash
# Each model is shown a defect of the real code (src/outbox, `broken`) and has to notice it.
set -euo pipefail
cd "$(dirname "$0")"
export RUSTFLAGS="--cfg fdpost_loom"

pairs='
P7 parts_never_interleave two-flushers
P7 each_sender_keeps_its_order takes-the-newest-first
P7 no_message_is_stranded_as_the_flusher_leaves leaves-without-a-look
P7 a_blocking_send_is_not_stranded_behind_a_try_send returns-behind-try-send
P6 a_full_queue_gives_the_message_back_or_waits_for_room no-wake
P7 the_peer_closes_and_nobody_waits_for_it no-wake
P7 an_error_poisons_every_sender an-error-is-forgotten
P2 close_races_send_and_each_descriptor_closes_once a-close-is-forgotten
P7 a_flusher_hands_over_when_it_has_done_its_share never-hands-over
P2 closing_a_full_queue_closes_each_descriptor_once forgets-the-queue
P7 a_flush_returns_after_its_predecessors flush-returns-early
P7 a_sink_that_panics_strands_nobody a-panic-keeps-the-role
P6 what_the_kernel_refuses_goes_back_to_a_sender_that_is_there a-refusal-is-dropped
P7 a_successor_whose_message_left_takes_over_all_the_same does-not-take-over
P7 nobody_sleeps_beside_room_while_the_flusher_waits sleeps-beside-room
P7 a_close_tells_all_who_wait a-close-tells-nobody
P6 what_the_kernel_refuses_of_a_burst_goes_back_to_it forgets-earlier-numbers
P7 a_sleeping_receiver_sends_what_a_try_send_leaves does-not-wake-the-receiver
P6 an_owner_that_leaves_passes_its_refusal_on a-refusal-is-forgotten
'

run() { timeout 60 cargo test --locked --release --quiet -- --exact "$1" 2>&1; }

cargo test --locked --release --no-run
missed=0 caught=0
while read -r promise model defect; do
  [ -n "$model" ] || continue
  # Without the defect it passes within the same time, or its failure would show nothing.
  if ! output=$(run "$model"); then
    tail -5 <<<"$output"
    echo "missed: $model fails without a defect, or takes more than a minute"
    missed=$((missed + 1))
  elif output=$(FDPOST_DEFECT=$defect run "$model"); then
    echo "missed: $model does not notice $defect"
    missed=$((missed + 1))
  else
    how="hung for a minute"
    grep -q 'test result: FAILED' <<<"$output" && how="failed"
    grep -qE 'SIGABRT|process abort' <<<"$output" && how="aborted"
    echo "planted: loom: $promise: ${defect//-/ } -> \`make loom-mutants\`, $model $how"
    caught=$((caught + 1))
  fi
done <<<"$pairs"
echo "evidence: loom-mutants: $caught of $((caught + missed)) planted defects caught, each by the model made for it"
[ "$missed" = 0 ]
