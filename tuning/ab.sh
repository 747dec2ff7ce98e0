#!/usr/bin/env bash
# One knob of this host, or one key of the engine, between two values in turn: what it does to the engine's
# CPU time. `ab.sh --help` says how.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/.." && pwd)
target=${CARGO_TARGET_DIR:-$top/target}
volley=${VOLLEY:-$target/release/volley}

usage() {
    cat <<'TEXT'
Usage: tuning/ab.sh KNOB A B [OPTIONS]
       tuning/ab.sh --list
       tuning/ab.sh --smoke

The old value is set back at the end, whatever ends it but SIGKILL.

Runs the engine on the loopback under a judge, one round with A, one with B, then B and A, and so on, and prints
the median and the range of CPU time a push and of pushes per engine core-second with each value, and their ratio.
A round is a fresh engine with a fresh store; the knob is set before it starts. Setting a knob of the host needs
root; one that cannot be set is refused before the first round.

KNOB is one of
  rmem_max, wmem_max, somaxconn, tcp_tw_reuse, busy_poll, busy_read, swappiness, numa_balancing
                       (any name that sysctl knows will do: net.core.rmem_max)
  tcp_wmem             three numbers, joined by commas: 4096,16384,4194304
  port_range           two numbers, joined by a comma: 32768,60999
  thp                  always, madvise, never
  scheduler            of the disk under --dir: none, mq-deadline, ..
  read_ahead           of that disk, KiB
  write_cache          of that disk: write-back, write-through (the second gives up every promise meanwhile)
  gro, gso, tso, sg, rx, tx
                       offloads of --device, on or off
  tx-udp-segmentation, ..
                       whatever else `ethtool -k` lists; needs ethtool
  engine:SECTION.KEY   a key of the engine's configuration, with values as TOML has them: engine:node.pin '[0]' '[]'
  none                 nothing is set: both values are names. What the ratio is then is the noise

Options:
  --rounds N           rounds of each value [5]
  --seconds N          measured time of a round (signalling) [8]
  --scenario NAME      signalling, full, .. of the judge; its options may follow --  [signalling]
  --transport tcp|udp  [tcp]
  --backend NAME       io_uring, mmsg, auto [auto]
  --engine-key K=V     a key that holds in every round, SECTION.KEY=VALUE; may repeat
  --engine-cpu N       CPU of the one shard (node.pin) [0]
  --judge-cpu N        CPU of the judge [1]
  --device NAME        device of the offloads [lo]
  --dir DIR            where stores are made [the build's directory]
  --json               one JSON object instead of the table
  --smoke              a short round of each value of knobs that are harmless to set, to see that they are set, and
                       set back; figures are not worth reading
  --list               the table's knobs that this host lets us set, with their value now

Examples:
  tuning/ab.sh thp always madvise
  tuning/ab.sh wmem_max 212992 4194304 --transport udp --rounds 7
  tuning/ab.sh scheduler none mq-deadline --scenario full -- --users 40000
  tuning/ab.sh engine:store.commit_us 200 2000 --scenario full --json
  tuning/ab.sh engine:node.pin '[0]' '[]'
  tuning/ab.sh gro on off --device lo --transport udp
  tuning/ab.sh none x y
      The noise of this host: a knob whose ratio is nearer to 1 did nothing here.

Exit codes: 0 measured, 1 a round failed, 2 usage, 3 the knob cannot be set here.
TEXT
}

die() { printf 'ab.sh: %s\n' "$2" >&2; exit "$1"; }

rounds=5 seconds=8 scenario=signalling transport=tcp backend=auto engine_cpu=0 judge_cpu=1
device=lo dir=$target json=no smoke=no list=no
words=() keys=() more=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage; exit 0 ;;
    --json) json=yes ;;
    --smoke) smoke=yes ;;
    --list) list=yes ;;
    --) shift; more=("$@"); break ;;
    --rounds | --seconds | --scenario | --transport | --backend | --engine-key | --engine-cpu | --judge-cpu | --device | --dir)
        [ $# -ge 2 ] || die 2 "$1 wants a value; see --help"
        case $1 in
        --rounds) rounds=$2 ;; --seconds) seconds=$2 ;; --scenario) scenario=$2 ;; --transport) transport=$2 ;;
        --backend) backend=$2 ;; --engine-key) keys+=("$2") ;; --engine-cpu) engine_cpu=$2 ;;
        --judge-cpu) judge_cpu=$2 ;; --device) device=$2 ;; --dir) dir=$2 ;;
        esac
        shift ;;
    -*) die 2 "unknown option $1; see --help" ;;
    *) words+=("$1") ;;
    esac
    shift
done
case $rounds in '' | 0 | *[!0-9]*) die 2 "--rounds wants a number from 1 on" ;; esac
for key in ${keys[@]+"${keys[@]}"}; do
    case $key in ?*.?*=?*) ;; *) die 2 "--engine-key $key: wants SECTION.KEY=VALUE" ;; esac
done

# --- knobs -----------------------------------------------------------------------------------------

# The folder of the disk under $dir, which may have to be made yet.
disk_queue() {
    local number folder=$dir
    while [ ! -e "$folder" ] && [ "$folder" != / ]; do folder=$(dirname "$folder"); done
    number=$(findmnt -n -o MAJ:MIN --target "$folder" 2>/dev/null | head -n 1 | tr -d ' ')
    for folder in "/sys/dev/block/$number/queue" "/sys/dev/block/$number/../queue"; do
        if [ -n "$number" ] && [ -d "$folder" ]; then
            realpath "$folder"
            return 0
        fi
    done
    return 1
}

# knob_file NAME: the file of a knob that is one; nothing for others.
knob_file() {
    case $1 in
    rmem_max | wmem_max | somaxconn | busy_poll | busy_read) echo "/proc/sys/net/core/$1" ;;
    tcp_tw_reuse | tcp_wmem) echo "/proc/sys/net/ipv4/$1" ;;
    port_range) echo /proc/sys/net/ipv4/ip_local_port_range ;;
    swappiness) echo /proc/sys/vm/swappiness ;;
    numa_balancing) echo /proc/sys/kernel/numa_balancing ;;
    thp) echo /sys/kernel/mm/transparent_hugepage/enabled ;;
    scheduler) echo "$(disk_queue)/scheduler" ;;
    read_ahead) echo "$(disk_queue)/read_ahead_kb" ;;
    write_cache) echo "$(disk_queue)/write_cache" ;;
    kernel.* | net.* | vm.* | fs.*) echo "/proc/sys/${1//.//}" ;;
    esac
}

# old_offload NAME [on|off]: an offload that has a question of its own (linux/ethtool.h), without ethtool. Its value;
# false for other names, and where the device refuses.
old_offload() {
    python3 - "$device" "$@" 2>/dev/null <<'PYTHON'
import array, fcntl, socket, struct, sys
device, name = sys.argv[1:3]
ask = {"gro": 0x2B, "gso": 0x23, "tso": 0x1E, "sg": 0x18, "rx": 0x14, "tx": 0x16}[name]
def call(words):
    memory = array.array("I", words)
    request = struct.pack("16sP16x", device.encode(), memory.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8946, request)
    return memory[1]
if len(sys.argv) > 3:
    call([ask + 1, int(sys.argv[3] == "on")])
print("on" if call([ask, 0]) else "off")
PYTHON
}

# knob_get NAME: its value, in the form that values are given in.
knob_get() {
    local file text
    case $1 in
    none | engine:*) echo - ; return 0 ;;
    esac
    file=$(knob_file "$1")
    if [ -n "$file" ]; then
        text=$(cat "$file" 2>/dev/null) || return 1
        # Of `always [madvise] never` the word in brackets is what holds.
        case $text in *\[*\]*) text=${text#*\[}; text=${text%%\]*} ;; esac
        case $1 in write_cache) text=${text// /-} ;; esac
        printf '%s\n' "$text" | tr -s '\t ' ','
        return 0
    fi
    old_offload "$1" && return 0
    command -v ethtool >/dev/null || return 1
    text=$(ethtool -k "$device" 2>/dev/null | sed -n "s/^[[:space:]]*$1: \([a-z]*\).*/\1/p" | head -n 1)
    [ -n "$text" ] && printf '%s\n' "$text"
}

# knob_set NAME VALUE: false when it does not hold afterwards.
knob_set() {
    local file value=$2
    case $1 in
    none | engine:*) return 0 ;;
    esac
    file=$(knob_file "$1")
    if [ -n "$file" ]; then
        case $1 in write_cache) value=${value//-/ } ;; esac
        { printf '%s\n' "${value//,/ }" >"$file"; } 2>/dev/null || return 1
    else
        old_offload "$1" "$value" >/dev/null || ethtool -K "$device" "$1" "$value" >/dev/null 2>&1 || return 1
    fi
    [ "$(knob_get "$1")" = "$2" ]
}

why_not() {
    local file
    file=$(knob_file "$1")
    if [ -n "$file" ]; then
        [ -e "$file" ] || { echo "$file is not there"; return; }
        [ -w "$file" ] || { echo "$file cannot be written; run as root, outside a container"; return; }
        echo "the kernel does not take that value for $file"
    elif old_offload "$1" >/dev/null; then
        echo "$device does not let it be set so; run as root"
    elif ! command -v ethtool >/dev/null; then
        echo "neither a knob of --help nor, without ethtool installed, an offload"
    else
        echo "$device does not let it be set so, or does not know it (ethtool -k $device)"
    fi
}

old= knob= engine= judge= work=
restore() {
    [ -n "$knob" ] && [ -n "$old" ] && [ "$(knob_get "$knob")" != "$old" ] || return 0
    knob_set "$knob" "$old" || { printf 'ab.sh: %s could not be set back to %s\n' "$knob" "$old" >&2; return 1; }
}
at_end() {
    local status=$?
    trap - EXIT
    local pid
    for pid in $judge $engine; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    restore || status=1
    [ -z "$work" ] || rm -rf "$work"
    exit "$status"
}
trap at_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# take KNOB A B: notes what is, and sees that both values can be set.
take() {
    knob=
    local value now
    now=$(knob_get "$1") || die 3 "$1: $(why_not "$1")"
    old=$now knob=$1
    for value in "$2" "$3"; do
        knob_set "$1" "$value" || die 3 "$1 = $value: $(why_not "$1")"
    done
    restore || exit 3
}

# --- a round ---------------------------------------------------------------------------------------

configure() {
    local port=$1 name value
    cat >"$work/volley.toml" <<TOML
[sip]
listen = "127.0.0.1:$port"
transport = "$transport"
path_mtu = 65535
trusted_peers = ["127.0.0.1"]
next_hops = [{ address = "127.0.0.1:$((port + 100))", connections = 4 }]
resolve = false
[identity]
pf_uri = "sip:pf@home.example"
domains = ["home.example"]
[msrp]
listen = "127.0.0.1:$((port + 200))"
reuse = true
guard = false
[push]
linger_ms = 500
[limits]
users_max = 200000
pushes_max = 200000
TOML
    # A key given once more takes the place of what stands above; sections come once.
    set_key node.backend "\"$backend\""
    set_key node.pin "[$engine_cpu]"
    set_key store.dir "\"$work/store\""
    for name in ${keys[@]+"${keys[@]}"} "${@:2}"; do
        value=${name#*=}
        set_key "${name%%=*}" "$value"
    done
}

# set_key SECTION.KEY VALUE: in the configuration, instead of what it was.
set_key() {
    python3 - "$work/volley.toml" "${1%%.*}" "${1#*.}" "$2" <<'PYTHON'
import sys
path, section, key, value = sys.argv[1:]
lines = open(path).read().splitlines()
head = f"[{section}]"
if head not in lines:
    lines += [head]
begin = lines.index(head) + 1
end = next((i for i in range(begin, len(lines)) if lines[i].startswith("[")), len(lines))
kept = [line for line in lines[begin:end] if line.split("=")[0].strip() != key]
open(path, "w").write("\n".join(lines[:begin] + kept + [f"{key} = {value}"] + lines[end:]) + "\n")
PYTHON
}

# free_port: a port with those 100, 200 and 300 above, and a few behind each, free at the time.
free_port() {
    python3 - <<'PYTHON'
import random, socket
def free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
while True:
    port = random.randrange(20000, 32000)
    if all(free(port + 100 * part + more) for part in range(4) for more in range(3)):
        print(port)
        break
PYTHON
}

# one_round VALUE: appends `NANOSECONDS PUSHES` to the figures of that value.
one_round() {
    local value=$1 side=$2 port tries=0 extra=() status
    rm -rf "$work/store"
    port=$(free_port)
    case $knob in engine:*) extra=("${knob#engine:}=$value") ;; esac
    configure "$port" ${extra[@]+"${extra[@]}"}
    "$volley" run --config "$work/volley.toml" --json >"$work/engine.out" 2>"$work/engine.log" &
    engine=$!
    until [ -s "$work/engine.out" ]; do
        tries=$((tries + 1))
        if ! kill -0 "$engine" 2>/dev/null || [ "$tries" -gt 200 ]; then
            printf 'ab.sh: the engine did not start with %s = %s:\n' "$knob" "$value" >&2
            tail -n 5 "$work/engine.log" >&2
            return 1
        fi
        sleep 0.1
    done
    local timing=()
    [ "$scenario" != signalling ] || timing=(--duration-s "$seconds" --warmup-s 1)
    timeout 600 "$volley" judge run --engine "127.0.0.1:$port" --scscf-listen "127.0.0.1:$((port + 100))" \
        --msrp-listen "127.0.0.1:$((port + 300))" --transport "$transport" --path-mtu 65535 --scenario "$scenario" \
        --engine-pid "$engine" --cpu "$judge_cpu" --quiet ${timing[@]+"${timing[@]}"} ${more[@]+"${more[@]}"} \
        --json "$work/result.json" >"$work/judge.log" 2>&1 &
    # Not in front: a signal is to be heard at once.
    judge=$!
    wait "$judge"
    status=$?
    judge=
    kill "$engine" 2>/dev/null
    wait "$engine" 2>/dev/null
    engine=
    # An invalid round is one that something else has disturbed: said, and counted.
    if [ "$status" -ne 0 ] && [ "$status" -ne 3 ]; then
        printf 'ab.sh: a round with %s = %s ended with status %d:\n' "$knob" "$value" "$status" >&2
        tail -n 8 "$work/judge.log" >&2
        return 1
    fi
    [ "$status" -eq 0 ] || echo x >>"$work/$side.invalid"
    python3 - "$work/result.json" >>"$work/$side.figures" <<'PYTHON' || return 1
import json, sys
found = json.load(open(sys.argv[1]))
phase = next((one for one in found["phases"] if one["name"] == found["headline"]), {})
us, rate = phase.get("engine_us_per_push"), phase.get("pushes_per_engine_core_second")
if us is None or rate is None:
    sys.exit("ab.sh: the judge gave no CPU time of the engine: is the round long enough?")
print(us * 1000, rate)
PYTHON
}

measure() {
    local value_a=$2 value_b=$3 round order side value
    take "$1" "$value_a" "$value_b"
    : >"$work/a.figures"
    : >"$work/b.figures"
    rm -f "$work/a.invalid" "$work/b.invalid"
    for round in $(seq "$rounds"); do
        order="a b"
        [ $((round % 2)) -eq 1 ] || order="b a"
        for side in $order; do
            value=$value_a
            [ "$side" = a ] || value=$value_b
            knob_set "$knob" "$value" || die 3 "$knob = $value: $(why_not "$knob")"
            [ "$json" = yes ] || printf 'round %d of %d, %s = %s\n' "$round" "$rounds" "$knob" "$value" >&2
            one_round "$value" "$side" || exit 1
        done
    done
    restore || exit 1
    report "$1" "$value_a" "$value_b"
}

report() {
    python3 - "$work" "$json" "$1" "$2" "$3" "$scenario" "$transport" "$old" <<'PYTHON'
import json, os, platform, statistics, sys
work, as_json, knob, a, b, scenario, transport, old = sys.argv[1:]
def side(name, value):
    rows = [tuple(map(float, line.split())) for line in open(f"{work}/{name}.figures")]
    def spread(column):
        figures = [row[column] for row in rows]
        return {"median": statistics.median(figures), "least": min(figures), "most": max(figures)}
    path = f"{work}/{name}.invalid"
    invalid = len(open(path).readlines()) if os.path.exists(path) else 0
    return {"value": value, "rounds": len(rows), "invalid": invalid,
            "engine_ns_per_push": spread(0), "pushes_per_engine_core_s": spread(1)}
sides = [side("a", a), side("b", b)]
key = "engine_ns_per_push"
ratio = sides[1][key]["median"] / sides[0][key]["median"]
apart = sides[0][key]["most"] < sides[1][key]["least"] or sides[1][key]["most"] < sides[0][key]["least"]
if as_json == "yes":
    print(json.dumps({"knob": knob, "was": old, "scenario": scenario, "transport": transport,
                      "kernel": platform.release(), "a": sides[0], "b": sides[1],
                      "ns_ratio_b_to_a": ratio, "ranges_apart": apart}))
else:
    print(f"{knob}: {scenario}, {transport}, Linux {platform.release()}; was {old}")
    for one in sides:
        ns, rate = one[key], one["pushes_per_engine_core_s"]
        invalid = f", {one['invalid']} of them INVALID" if one["invalid"] else ""
        print(f"  {one['value']:<16} {ns['median']:8.0f} ns a push ({ns['least']:.0f}-{ns['most']:.0f}), "
              f"{rate['median']:.0f} pushes per engine core-second ({rate['least']:.0f}-{rate['most']:.0f}), "
              f"{one['rounds']} rounds{invalid}")
    ranges = "" if sides[0]["rounds"] == 1 else f"; the ranges {'are apart' if apart else 'overlap'}"
    print(f"  {b} takes {ratio:.3f} of {a}{ranges}")
PYTHON
}

# --- what was asked for ----------------------------------------------------------------------------

names=(rmem_max wmem_max somaxconn tcp_tw_reuse tcp_wmem port_range busy_poll busy_read swappiness numa_balancing thp
    scheduler read_ahead write_cache gro gso tso tx-udp-segmentation)

if [ "$list" = yes ]; then
    for name in "${names[@]}"; do
        if ! value=$(knob_get "$name"); then
            printf '%-20s -                    %s\n' "$name" "$(why_not "$name")"
        elif knob_set "$name" "$value"; then
            printf '%-20s %s\n' "$name" "$value"
        else
            printf '%-20s %-20s %s\n' "$name" "$value" "$(why_not "$name")"
        fi
    done
    exit 0
fi

command -v python3 >/dev/null || die 2 "needs python3"
[ -x "$volley" ] || die 2 "$volley is not there; cargo build --release, or name it with VOLLEY="
mkdir -p "$dir" && work=$(mktemp -d "$dir/ab.XXXXXX") || die 2 "--dir $dir cannot be written"

if [ "$smoke" = yes ]; then
    rounds=1 seconds=1
    more=(--users 500)
    before_all=$(for name in "${names[@]}"; do knob_get "$name"; done)
    for try in "somaxconn 4096 8192" "swappiness 1 60" "engine:store.commit_us 200 2000" "none x y"; do
        read -r name a b <<<"$try"
        before=$(knob_get "$name") || { echo "SKIPPED $name: $(why_not "$name")"; continue; }
        if ! knob_set "$name" "$before"; then echo "SKIPPED $name: $(why_not "$name")"; continue; fi
        measure "$name" "$a" "$b" || exit 1
        [ "$(knob_get "$name")" = "$before" ] || die 1 "$name was not set back to $before"
    done
    # A value that the kernel does not take is refused, and the old one holds.
    if name=scheduler && before=$(knob_get "$name") && knob_set "$name" "$before"; then
        (take "$name" "$before" no-such-scheduler) 2>/dev/null && die 1 "$name took a value that there is not"
        [ "$(knob_get "$name")" = "$before" ] || die 1 "$name was not set back to $before"
    fi
    knob=
    [ "$before_all" = "$(for name in "${names[@]}"; do knob_get "$name"; done)" ] || die 1 "a knob was left changed"
    echo "all knobs are as they were"
    exit 0
fi

[ "${#words[@]}" -eq 3 ] || die 2 "wants KNOB A B; see --help"
measure "${words[0]}" "${words[1]}" "${words[2]}"
