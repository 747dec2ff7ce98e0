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
# Memory for rings is counted per user: while another program of the user has it all, it tries again.
start_volley() {
    local try
    for try in 1 2 3 4 5 6; do
        start "$1" "$volley" run --json --config "$2"
        engine=$started
        sleep 0.3
        kill -0 "$engine" 2>/dev/null && return
        grep -q RLIMIT_MEMLOCK "$work/$1.log" || return
        sleep "$try"
    done
}

# stop_volley NAME PREFIX COUNTER=VALUE..: it must end cleanly with these counters.
stop_volley() {
    local name=$1 prefix=$2
    shift 2
    kill -TERM "$engine"
    if finish "$engine" 20; then ok "${prefix}engine-stops-cleanly"; else fail "${prefix}engine-stops-cleanly" "status $?"; fi
    driver counters --prefix "$prefix" "$work/$name.log" "$@" || failed=1
}

# --- one scenario of SIPp against one engine -------------------------------------------------------

# Of one round; `fresh` sets them back.
fresh() { users=2 devices=2 calls=4 answer_s=20 linger_ms=300 inflight=16 expires_s=1800 settle=0 seconds=40 status= line=; }

# round NAME TRANSPORT SCENARIO DRIVER_OPTIONS COUNTER=VALUE..
round() {
    local name=$1 transport=$2 scenario=$3 options=$4
    shift 4
    # For one round by hand: its name as argument of the script.
    [ -z "${only:-}" ] || [ "$only" = "$name" ] || { fresh; return 0; }
    local prefix=sipp-$name/ before=$failed begin=$SECONDS
    failed=0
    local volley_sip volley_msrp phones core media mode
    read -r volley_sip volley_msrp phones core media < <(driver ports 5)
    case $transport in tcp) mode=tn ;; udp) mode=u1 ;; esac
    sed -e "s|@SIP@|$volley_sip|; s|@MSRP@|$volley_msrp|; s|@TRANSPORT@|$transport|" \
        -e "s|@HOPS@|{ address = \"127.0.0.1:$core\", connections = 1, invite_inflight_max = 0 }, { address = \"127.0.0.1:$phones\", connections = 1, invite_inflight_max = $inflight }|" \
        -e "s|@ROUTE@|sip:scscf1.ims.example.net;lr|; s|@GRUU@|strict|; s|@SILENT@|false|; s|@OC@|true|" \
        -e "s|@USERS@||; s|@STORE@|$work/$name|" \
        -e "s|^answer_s = .*|answer_s = $answer_s|; s|^linger_ms = .*|linger_ms = $linger_ms\nsession_expires_s = $expires_s|" \
        -e '1a [node]\ndrain_s = 2\n' \
        "$here/volley.toml" >"$work/$name.toml"
    sed -e "s|@STATUS@|$status|; s|@LINE@|$line|" "$here/sipp/$scenario.xml" >"$work/$name.xml"
    start "$name-sipp" sipp -sf "$work/$name.xml" -i 127.0.0.1 -p "$phones" -t "$mode" \
        -m "$calls" -key msrp_port "$media" -timeout "$seconds" -timeout_error -nostdin \
        -max_socket 500 -trace_logs -log_file "$work/$name-checks.log" \
        -trace_err -error_file "$work/$name-errors.log"
    local sipp=$started
    # shellcheck disable=SC2086 # options are words
    start "$name-core" driver scscf --prefix "$prefix" --transport "$transport" \
        --volley "$volley_sip" --listen "$core" --msrp "$media" --users "$users" \
        --devices "$devices" --seconds "$seconds" --stay "$work/$name.end" $options
    local scscf=$started
    if [ "$transport" = tcp ]; then driver wait "$core" 10; fi
    start_volley "$name" "$work/$name.toml"
    if finish "$sipp" "$seconds"; then ok "${prefix}sipp"; else fail "${prefix}sipp" "status $?"; fi
    sleep "$settle"
    touch "$work/$name.end"
    finish "$scscf" 10 || failed=1
    cat "$work/$name-core.log"
    driver checks --prefix "$prefix" --scenario "$here/sipp/$scenario.xml" \
        --log "$work/$name-checks.log" --calls "$calls" || failed=1
    stop_volley "$name" "$prefix" "$@"
    [ "$failed" -ne 0 ] || forget_logs "$name"
    failed=$((failed | before))
    printf '   %s took %d s\n' "$name" "$((SECONDS - begin))"
    fresh
}
