#!/usr/bin/env bash
# The SIP parsers of two other projects as judges of ours: about our worked examples, the hostile
# messages of VOLLEY_TORTURE_DIR if it is set, and mutations of both, they must read what ours reads,
# or one of their known habits (tests/oracles/habits.rs) explains the difference. Needs the registry.
. "$(dirname "$0")/lib.sh"

manifest=$here/../oracles/Cargo.toml
# Kept between runs, beside the other builds.
export CARGO_TARGET_DIR=$target/oracles

if ! timeout 60 cargo fetch --locked --manifest-path "$manifest" >"$work/fetch.log" 2>&1; then
    fail oracles/registry "the parsers of the other projects cannot be fetched: no crate registry"
    exit 1
fi
# Some 290 crates: 320 s of processor time when nothing is built yet.
if ! timeout 450 cargo test --locked --offline --no-run --manifest-path "$manifest" >"$work/build.log" 2>&1; then
    fail oracles/build "they do not build, or not in time"
    exit 1
fi
if timeout 100 cargo test --locked --offline --manifest-path "$manifest" -- --nocapture >"$work/test.log" 2>&1; then
    grep -aE '^[0-9]+ messages|is not set' "$work/test.log"
    ok oracles/every-difference-is-a-known-habit
else
    fail oracles/every-difference-is-a-known-habit "see the log"
fi
