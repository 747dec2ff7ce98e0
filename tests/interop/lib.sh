# Sourced by the scripts beside it. Each script prints `ok NAME` and `FAILED NAME: why` lines and
# ends with status 1 when a check failed. Everything runs on 127.0.0.1, on free ports, in a
# temporary directory, and only processes started here are ended.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
volley=${VOLLEY:-$target/release/volley}
work=$(mktemp -d "${TMPDIR:-/tmp}/volley-interop.XXXXXX")
pids=()
failed=0

end_of_script() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null
    done
    if [ "$failed" -ne 0 ]; then
        local file
        for file in "$work"/*.log; do
            [ -s "$file" ] || continue
            printf -- '---- %s, last lines\n' "$(basename "$file")"
            tail -n 40 "$file" | cut -c 1-2000
        done
    fi
    rm -rf "$work"
    [ "$failed" -eq 0 ]
    exit
}
trap end_of_script EXIT
trap 'exit 1' INT TERM

# forget_logs PREFIX: the logs of a part that went well are not worth showing.
forget_logs() { rm -f "$work/$1"*.log; }

ok() { printf 'ok %s\n' "$1"; }

fail() {
    printf 'FAILED %s: %s\n' "$1" "$2"
    failed=1
}

driver() { python3 "$here/driver.py" "$@"; }

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { fail "installed-$tool" "not found"; exit 1; }
    done
    [ -x "$volley" ] || { fail engine-built "no release build of volley; run cargo build --release"; exit 1; }
}

# start NAME COMMAND..: in the background, output in NAME.log; its process id is left in $started.
start() {
    local name=$1
    shift
    "$@" </dev/null >"$work/$name.log" 2>&1 &
    started=$!
    pids+=("$started")
}

# finish PID SECONDS: waits, ends it when it takes too long; its exit status.
finish() {
    local tenths=$(($2 * 10))
    while kill -0 "$1" 2>/dev/null && [ "$tenths" -gt 0 ]; do
        sleep 0.1
        tenths=$((tenths - 1))
    done
    kill "$1" 2>/dev/null
    wait "$1"
}

# start_volley NAME CONFIG: with JSON counters in NAME.log; its process id is left in $engine.
start_volley() {
    start "$1" "$volley" run --json --config "$2"
    engine=$started
}

# stop_volley NAME PREFIX COUNTER=VALUE..: it must end cleanly with these counters.
stop_volley() {
    local name=$1 prefix=$2
    shift 2
    kill -TERM "$engine"
    if finish "$engine" 20; then ok "${prefix}engine-stops-cleanly"; else fail "${prefix}engine-stops-cleanly" "status $?"; fi
    driver counters --prefix "$prefix" "$work/$name.log" "$@" || failed=1
}
