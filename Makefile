# `make test` is the test command: `cargo test` alone would skip the other packages
# (proptests with the corpus). `make help` lists the rest.
#
# The root package's tests run one at a time: they count open descriptors, which are a process's.
#
# A target whose tool is absent says "skipped: ..." in words and is never counted as passed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export CARGO_TARGET_DIR ?= $(CURDIR)/target

PACKAGES := Cargo.toml proptests/Cargo.toml fuzz/Cargo.toml tests/agree/Cargo.toml tests/nopanic/Cargo.toml tests/symex/Cargo.toml benches/Cargo.toml benches/staticlib/Cargo.toml examples/soak/Cargo.toml
I686 := i686-unknown-linux-gnu
MSRV := 1.85.0
# All that a user may ask for.
FEATURES := cli,arbitrary,tokio
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
FUZZ_SECONDS ?= 12
T ?= receiver
# T where it was given, else all of them.
these = $(if $(filter command line,$(origin T)),$(T),$(1))
skipped = echo "skipped: $(1)"
# A figure's digits in groups of three.
commas = sed -E ':a; s/([0-9])([0-9]{3})($$|[^0-9])/\1,\2\3/; ta'
has_target = rustc --print target-libdir --target $(1) 2>/dev/null | xargs -r test -d

.PHONY: help demo demo-libcamera test prop agree loom loom-mutants model model-quick stress stress-planted faults soak soak-publish bench bench-quick bench-publish bench-smoke tsan miri asan check pure states msrv test-i686 fuzz fuzz-smoke fuzz-planted fuzz-campaign fuzz-seeds fuzz-coverage oss-fuzz nopanic symex symex-install evidence evidence-record doc mutants coverage ci

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: ## two processes exchange pictures in memfds, then a hostile one is refused
	cargo run --locked --quiet --features cli --bin fdpost -- demo

demo-libcamera: ## drive libcamera's packaged worker (installed when root and absent)
	@if ! compgen -G '/usr/lib*/*/libcamera/*ipa_proxy' >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get install -y libcamera-ipa || { apt-get update && apt-get install -y libcamera-ipa; } || true; fi
	cargo run --locked --quiet --example libcamera_worker

test: ## unit, integration, doc and property tests, and the corpus replayed, simulated and really
	RUST_TEST_THREADS=1 cargo test --locked --features $(FEATURES)
	cargo test --locked --manifest-path proptests/Cargo.toml
	cargo test --locked --manifest-path tests/agree/Cargo.toml

prop: ## property tests with CASES cases each (default 10000); planted defects are refused
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	PROPTEST_CASES=$${CASES:-10000} cargo test --locked --release --manifest-path proptests/Cargo.toml -- --nocapture --test-threads=1 | tee "$$log"; \
	count=$$(grep -c 'property: ' "$$log"); cases=$$(sed -n 's/.*property: \([0-9]*\) cases.*/\1/p' "$$log" | sort -n | head -1); \
	echo "evidence: prop: $$count properties, $$cases cases of each at least; $$(grep -c 'fuzz/corpus/' "$$log") files of the corpora replayed" | $(commas)
	@proptests/planted-properties.sh

agree: ## CASES (2000) scripts of each wire and the corpus: real sockets against the simulated ones; planted defects
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	CASES=$${CASES:-2000} cargo test --locked --manifest-path tests/agree/Cargo.toml -- --nocapture --test-threads=1 | tee "$$log" | grep -v fuzz/corpus; \
	tests/agree/planted.sh; sed -n 's/.*\(agree: [A-Za-z]*: .* played\)/evidence: \1/p' "$$log" | $(commas)

loom: ## models of the outbox: every interleaving within three preemptions, all where two threads meet
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	RUSTFLAGS="--cfg fdpost_loom" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/loom \
	  cargo test --locked --release --manifest-path loom-tests/Cargo.toml -- --nocapture --test-threads=1 | tee "$$log"; \
	sed -n 's/.*schedules: //p' "$$log" | awk -F', ' '{ models[$$2]++; schedules[$$2] += $$1 } \
	  END { for (bound in models) print "evidence: loom: " models[bound] " models passed, " bound ": " schedules[bound] " schedules" }' | \
	  sort | $(commas)

loom-mutants: ## show each model a planted defect of the real code
	CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/loom loom-tests/mutants.sh

model: ## every state and input of the real machines, under a stated alphabet (DEPTH=n for longer scripts, MACHINES="packet" for some)
	cargo run --locked --release --quiet --manifest-path proptests/Cargo.toml --example model -- $(if $(DEPTH),--depth $(DEPTH)) $(MACHINES)
	@proptests/planted.sh

model-quick: ## as model, without the two wires of streams, which take minutes, and without planted defects
	cargo run --locked --release --quiet --manifest-path proptests/Cargo.toml --example model -- libcamera packet senders policies calls broker send_fd control

stress: ## THREADS (8) send MESSAGES (100000000) over one channel, one in ten with a descriptor
	@cargo run --locked --release --example stress -- $${THREADS:-8} $${MESSAGES:-100000000} | \
	  sed 'p; s/^\([0-9].*\); .*/evidence: stress: \1/; t; d' | $(commas)

stress-planted: ## show `make stress` five planted defects
	@examples/stress/planted.sh

faults: ## each system call fails, at every time and with every error, and each allocation; planted defects are noticed (SCENARIO="packet right statx" for some)
	cargo build --locked --quiet --features cli,tokio --bin fdpost --example broker --example faults
	$(CARGO_TARGET_DIR)/debug/examples/faults $(SCENARIO)
	@if [ -z "$(SCENARIO)" ]; then examples/faults/planted.sh; fi

# Debug: its assertions are on. Each planted defect first, so that the long run is worth its time.
soak: ## honest and hostile processes for MINUTES (10), killed and restarted; what they hold stays flat (target/soak/soak.svg)
	cargo build --locked --quiet --manifest-path examples/soak/Cargo.toml
	$(CARGO_TARGET_DIR)/debug/fdpost-soak planted
	$(CARGO_TARGET_DIR)/debug/fdpost-soak $${MINUTES:-10} --svg $(CARGO_TARGET_DIR)/soak/soak.svg $${SEED:+--seed $$SEED}

soak-publish: ## what `make soak` drew last becomes docs/soak.svg
	cp $(CARGO_TARGET_DIR)/soak/soak.svg docs/soak.svg

bench: ## fdpost and its peers side by side: target/bench/report.json, report.md (GOALS="--goal 3 --goal 4" for some)
	cargo run --locked --release --quiet --manifest-path benches/Cargo.toml -- $(GOALS)

bench-quick: ## the same rows roughly, in a minute
	cargo run --locked --release --quiet --manifest-path benches/Cargo.toml -- --quick $(GOALS)

bench-publish: ## what `make bench` measured becomes docs/bench, and README.md's table
	cargo run --locked --release --quiet --manifest-path benches/Cargo.toml -- --publish

bench-smoke: ## each of the benchmark's rows runs, and what it says of figures is right
	cargo test --locked --manifest-path benches/Cargo.toml

tsan: ## tests with threads, and stress with MESSAGES (1000000), under ThreadSanitizer; a planted race is reported first
	.ci/tsan

miri: ## the core on 64 and 32 bits and big-endian, the outbox's threads, properties (CASES=4), under Miri; planted defects first
	.ci/miri

asan: ## tests, played scripts and properties under AddressSanitizer and LeakSanitizer; planted defects first
	.ci/asan

check: ## formats, lints, docs, the core for wasm, import direction, rules, public types, licences
	for package in $(PACKAGES) loom-tests/Cargo.toml; do cargo fmt --check --manifest-path $$package; done
	RUSTFLAGS="--cfg fdpost_loom" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/loom \
	  cargo clippy --locked --all-targets --manifest-path loom-tests/Cargo.toml -- -D warnings
	cargo clippy --locked --all-targets --features $(FEATURES) -- -D warnings
	cargo clippy --locked --no-default-features --lib -- -D warnings
	cargo clippy --locked --no-default-features --features broker --lib -- -D warnings
	for package in $(filter-out Cargo.toml,$(PACKAGES)); do \
	  cargo clippy --locked --all-targets --manifest-path $$package -- -D warnings; done
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --features arbitrary,broker,tokio
	.ci/pure
	.ci/protocol
	@if command -v python3 >/dev/null; then .ci/evidence --check; \
	  else $(call skipped,whether docs/EVIDENCE.md is what its records say (apt-get install python3)); fi
	.ci/crates
	@if command -v python3 >/dev/null; then \
	  RUSTC_BOOTSTRAP=1 cargo rustdoc --locked --lib --quiet --features $(FEATURES) -- -Zunstable-options --output-format json \
	    && .ci/public-types $(CARGO_TARGET_DIR)/doc/fdpost.json; \
	  else $(call skipped,types in public signatures (apt-get install python3)); fi
	cargo run --locked --quiet --example states | diff - docs/states.svg || { echo "docs/states.svg is not the table: make states"; exit 1; }
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check licenses bans sources; \
	  else $(call skipped,licences and bans: cargo-deny is not installed (cargo install cargo-deny)); fi

pure: ## the core has no clock, no call and no std: its imports, a build without std, one for wasm
	.ci/pure

states: ## draw docs/states.svg from the table
	cargo run --locked --quiet --example states > docs/states.svg

msrv: ## build with the oldest Rust that is promised
	@if rustup toolchain list 2>/dev/null | grep -q '^$(MSRV)'; then \
	  cargo +$(MSRV) check --locked --lib --features broker,tokio && cargo +$(MSRV) check --locked --lib --no-default-features; \
	  else $(call skipped,Rust $(MSRV) is not installed (rustup toolchain install $(MSRV) --profile minimal)); fi

test-i686: ## the root package's tests as 32-bit programs
	@if ! $(call has_target,$(I686)); then $(call skipped,$(I686) is not installed (rustup target add $(I686))); \
	elif ! echo 'int main(void){return 0;}' | gcc -m32 -x c -o /dev/null - 2>/dev/null; then \
	  $(call skipped,no 32-bit linker (apt-get install gcc-multilib)); \
	else RUST_TEST_THREADS=1 cargo test --locked --target $(I686) --features $(FEATURES) \
	  && cargo test --locked --target $(I686) --manifest-path proptests/Cargo.toml; fi

# Not the shell's: there SECONDS is how long it has run.
fuzz: ## fuzz target T for SECONDS (default 60): make fuzz T=control SECONDS=600
	RUSTC_BOOTSTRAP=1 cargo fuzz run $(T) -- -max_total_time=$(or $(SECONDS),60) $$(fuzz/flags $(T))

fuzz-smoke: ## every fuzz target for FUZZ_SECONDS (12); every planted bug still applies
	fuzz/planted.sh --apply
	@if ! command -v cargo-fuzz >/dev/null; then $(call skipped,cargo-fuzz is not installed (cargo install cargo-fuzz)); \
	else for target in $(FUZZ_TARGETS); do \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target $$(mktemp -d) fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) $$(fuzz/flags $$target); done; fi

fuzz-planted: ## how long each of ten bugs that others had takes to find: median of RUNS (1), at most LIMIT (60) seconds; PLANTED=03 for one
	@if ! command -v cargo-fuzz >/dev/null; then $(call skipped,cargo-fuzz is not installed (cargo install cargo-fuzz)); \
	else fuzz/planted.sh $(PLANTED); fi

# Not SECONDS by default: see fuzz. SANITIZER=none is some ten times as fast and finds no bad memory.
fuzz-campaign: ## every fuzz target (or T) for SECONDS (600): executions, edges, whether the last fifth brought any
	@if ! command -v cargo-fuzz >/dev/null; then $(call skipped,cargo-fuzz is not installed (cargo install cargo-fuzz)); \
	else fuzz/campaign.sh $(or $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS)),600) $(call these,$(FUZZ_TARGETS)); fi

fuzz-seeds: ## make the corpora again: seeds from the vectors, and what campaigns found, as few as reach as much
	@if ! command -v cargo-fuzz >/dev/null; then $(call skipped,cargo-fuzz is not installed (cargo install cargo-fuzz)); \
	else fuzz/corpora.sh $(call these,$(FUZZ_TARGETS)); fi

fuzz-coverage: ## lines of src that each target's corpus reaches, after FUZZ_SECONDS (12) more (T=one for one)
	@if ! command -v cargo-fuzz >/dev/null; then $(call skipped,cargo-fuzz is not installed (cargo install cargo-fuzz)); \
	elif ! compgen -G "$$(rustc --print sysroot)/lib/rustlib/*/bin/llvm-cov" >/dev/null; then \
	  $(call skipped,coverage of the fuzz targets: no llvm-cov of this rustc (rustup component add llvm-tools)); \
	else FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz/coverage.sh $(call these,$(FUZZ_TARGETS)); fi

oss-fuzz: ## run OSS-Fuzz's build script against a local $$OUT, and each program that it makes
	@if ! command -v cargo-fuzz >/dev/null; then $(call skipped,cargo-fuzz is not installed (cargo install cargo-fuzz)); \
	else fuzz/oss-fuzz/test.sh; fi

nopanic: ## prove at link time that the decoders cannot panic, nor the receiver's table, and that the proof can fail
	cargo build --locked --release --manifest-path tests/nopanic/Cargo.toml
	@if cargo build --locked --release --features planted --manifest-path tests/nopanic/Cargo.toml 2>$(CARGO_TARGET_DIR)/planted.log; then \
	  echo "a planted panic went unnoticed"; exit 1; fi
	@grep -q 'detected panic in function .planted' $(CARGO_TARGET_DIR)/planted.log || { cat $(CARGO_TARGET_DIR)/planted.log; exit 1; }
	@echo "planted: nopanic: P8: an index into bytes that may be too few -> the linker, \"$$(grep -om1 'detected panic in function .planted.' $(CARGO_TARGET_DIR)/planted.log)\""
	@proved=$$(grep -A2 '^#\[no_panic\]' tests/nopanic/src/main.rs | sed -n 's/^fn \([a-z0-9_]*\).*/\1/p' | grep -vx planted); \
	  echo "evidence: nopanic: $$(wc -w <<<$$proved) functions cannot panic, proved at link time for arguments of any length:" $$proved

SYMEX := $(CARGO_TARGET_DIR)/symex-venv
symex: ## the compiled control decoder executed symbolically, for every input of up to BYTES (48)
	@if ! $(SYMEX)/bin/python -c 'import angr' 2>/dev/null; then \
	  $(call skipped,angr is not installed (make symex-install: half a gigabyte from PyPI into $(SYMEX))); \
	else cargo build --locked --release --quiet --manifest-path tests/symex/Cargo.toml \
	  && $(SYMEX)/bin/python tests/symex/control.py $(CARGO_TARGET_DIR)/release/libfdpost_symex.so $(or $(BYTES),48); fi

symex-install: ## angr, for make symex
	python3 -m venv $(SYMEX)
	$(SYMEX)/bin/pip install --quiet 'angr==9.2.*' 'bitstring<4.3' 'pycparser==3.0'

evidence: ## why a promise should be believed: docs/EVIDENCE.md from what was recorded (P=P2: that promise with its tests)
	@if ! command -v python3 >/dev/null; then $(call skipped,the table of evidence wants python3 (apt-get install python3)); \
	else .ci/evidence $(if $(P),--why $(P)); fi

evidence-record: ## run METHODS (of docs/evidence/methods.ini) and keep their figures: METHODS="model faults"
	.ci/evidence --record $(METHODS)

doc: ## the API's documentation
	cargo doc --locked --no-deps --features arbitrary,broker,tokio

mutants: ## how many planted changes the tests notice (hours): AREA="wire profile machine accept calls broker outbox driver" FILES=glob SHARD=0/8 JOBS=4 RESUME=1
	@if ! command -v cargo-mutants >/dev/null; then $(call skipped,cargo-mutants is not installed (cargo install cargo-mutants)); \
	elif ! command -v python3 >/dev/null; then $(call skipped,mutants (apt-get install python3)); \
	else .ci/mutants $(addprefix --files=,$(FILES)) $(addprefix --shard=,$(SHARD)) $(addprefix --jobs=,$(JOBS)) $(if $(RESUME),--resume) \
	  $(or $(AREA),wire profile machine accept calls broker outbox driver); fi

coverage: ## lines and branches of the core that no test reaches, against docs/uncovered.md (TESTS="packet stream": only those)
	@if ! command -v python3 >/dev/null; then $(call skipped,coverage (apt-get install python3)); \
	else .ci/coverage $(TESTS); fi

# Each stage says when it ended, so that a log tells where the time went, or where it stopped. A stage
# that fails is tried once more, because machines are shared: what passes then is called flaky, in
# words and at the end, and is a defect to be mended; what fails twice fails.
ci: ## what .ci/run runs
	@flaky=(); set -- check test loom 'stress MESSAGES=2000000' 'soak MINUTES=0.3' msrv nopanic test-i686 bench-smoke fuzz-smoke model-quick demo demo-libcamera; \
	for stage in "$$@"; do \
	  echo "== $$stage"; \
	  if ! $(MAKE) --no-print-directory $$stage; then \
	    echo "== $$stage: failed after $$SECONDS s; once more"; flaky+=("$$stage"); \
	    $(MAKE) --no-print-directory $$stage || { echo "== $$stage: failed twice, $$SECONDS s since the start"; exit 1; }; fi; \
	  echo "== $$stage: done, $$SECONDS s since the start"; done; \
	for stage in "$${flaky[@]}"; do echo "FLAKY: $$stage failed once and passed once; its failure stands above"; done
