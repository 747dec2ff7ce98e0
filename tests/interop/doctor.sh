#!/usr/bin/env bash
# `volley doctor` on five hosts that differ in what it looks at: this one; one whose policy forbids io_uring; one with
# 64 KiB of memory to lock; one in a control group with a CPU quota; one without /sys. Each is made around one run of
# the command and is gone afterwards. Needs root.
. "$(dirname "$0")/lib.sh"
need python3 unshare

cat >"$work/doctor.toml" <<TOML
[node]
shards = 2
[sip]
listen = "127.0.0.1:5060"
next_hops = [{ address = "127.0.0.1:5070" }]
[identity]
pf_uri = "sip:pf@ims.example.net"
domains = ["ims.example.net"]
[msrp]
listen = "127.0.0.1:2855"
[store]
dir = "$work/store"
TOML

# judge HOST STATUS ID=SEVERITY[:TEXT]..: of the JSON in HOST.json, the exit status that it came with, and what it must
# say: TEXT is part of what is. `ID=*` stands for any severity. Prints what is wrong.
judge() {
    python3 - "$work/$1.json" "${@:2}" <<'PYTHON'
import json, sys
path, status, *wanted = sys.argv[1:]
try:
    found = json.load(open(path))
except ValueError as error:
    sys.exit(f"no JSON: {error}; status {status}")
checks = {one["id"]: one for one in found}
wrong = []
order = ["fine", "unknown", "advice", "warning", "critical"]
for one in found:
    if set(one) != {"id", "severity", "current", "wanted", "why", "remedy", "settings"}:
        wrong.append(f"{one.get('id')}: keys {sorted(one)}")
    elif order.index(one["severity"]) > 1 and not (one["wanted"] and one["remedy"] and one["why"]):
        wrong.append(f"{one['id']}: no remedy")
for want in wanted:
    name, _, rest = want.partition("=")
    severity, _, text = rest.partition(":")
    if name not in checks:
        wrong.append(f"{name}: no such check")
        continue
    one = checks[name]
    if severity not in ("*", one["severity"]):
        wrong.append(f"{name}: {one['severity']}, wanted {severity} ({one['current']})")
    if text not in one["current"]:
        wrong.append(f"{name}: says `{one['current']}`, wanted `{text}`")
worst = max(order.index(one["severity"]) for one in found)
code = {4: 3, 3: 1}.get(worst, 0)
if int(status) != code:
    wrong.append(f"exit status {status}, wanted {code} for {order[worst]}")
sys.exit("; ".join(wrong) or 0)
PYTHON
}

# examined HOST STATUS ID=SEVERITY..: one line about it.
examined() {
    local why
    if why=$(judge "$@" 2>&1); then ok "doctor/$1"; else fail "doctor/$1" "$why"; fi
}

# doctor HOST: into HOST.json. Shorter than the grace of who ends this script, so that there is time to set back.
doctor() { timeout 8 "$volley" doctor --json --config "$work/doctor.toml" >"$work/$1.json" 2>"$work/$1.log"; }
export -f doctor
export volley work

# --- this host -------------------------------------------------------------------------------------
ulimit -S -l "$(ulimit -H -l)"
doctor here
status=$?
cp "$work/here.json" "$work/plain.json"
policy=$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)
ring=fine
[ "$policy" = 0 ] || ring='*'
examined here "$status" "io-uring=$ring" "kernel=fine:$(uname -r)" "disk=*:$work/store on " "disk-cache=*" \
    "nic-offloads=*" "nic-rings=*" "cpus=*:$(getconf _NPROCESSORS_ONLN) online, 2 shards"

# The checks themselves: what is not so must be found.
if judge here "$status" "kernel=critical" >/dev/null 2>&1 || judge here "$((status + 1))" >/dev/null 2>&1 ||
    judge here "$status" "no-such=fine" >/dev/null 2>&1 || judge here "$status" "kernel=fine:2.4" >/dev/null 2>&1; then
    fail doctor/planted-faults "one was not seen"
else
    ok doctor/planted-faults
fi

# --- io_uring forbidden by the system's policy -----------------------------------------------------
# The policy is the whole system's: what starts meanwhile runs without, so it is as short as can be.
policy_file=/proc/sys/kernel/io_uring_disabled
give_back() { echo "$policy" >"$policy_file"; }
if [ -w "$policy_file" ] && echo 2 2>/dev/null >"$policy_file"; then
    trap 'give_back; end_of_script' EXIT
    doctor forbidden
    status=$?
    give_back
    trap end_of_script EXIT
    [ "$(cat "$policy_file")" = "$policy" ] || fail doctor/policy "it was not set back to $policy"
    examined forbidden "$status" "io-uring=warning:backend mmsg, as a fallback" \
        "io-uring=warning:kernel.io_uring_disabled = 2"
else
    echo "SKIPPED doctor/forbidden: kernel.io_uring_disabled cannot be written here"
fi

# --- 64 KiB of memory to lock ----------------------------------------------------------------------
# Root may lock what it likes, limit or not; the executor counts by itself and keeps to the limit.
(ulimit -l 64 && doctor memlock)
examined memlock $? "memlock=warning:64 KiB" "io-uring=warning:backend mmsg, as a fallback"

# --- a CPU quota -----------------------------------------------------------------------------------
# quota_group: makes a group with half a core and prints its folder; nothing where no hierarchy lets us.
quota_group() {
    local name=volley-doctor-$$ top folder
    for top in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        [ -e "$top/cgroup.controllers" ] || continue
        folder=$top/$name
        if grep -qw cpu "$top/cgroup.subtree_control" && mkdir "$folder" 2>/dev/null; then
            if echo '50000 100000' 2>/dev/null >"$folder/cpu.max"; then echo "$folder"; return; fi
            rmdir "$folder"
        fi
    done
    for top in /sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup/cpu; do
        [ -e "$top/cpu.cfs_quota_us" ] || [ -e "$top/cgroup.procs" ] || continue
        folder=$top/$name
        if mkdir "$folder" 2>/dev/null; then
            if echo 100000 2>/dev/null >"$folder/cpu.cfs_period_us" && echo 50000 2>/dev/null >"$folder/cpu.cfs_quota_us"; then
                echo "$folder"
                return
            fi
            rmdir "$folder"
        fi
    done
}
group=$(quota_group)
if [ -n "$group" ]; then
    trap 'rmdir "$group"; end_of_script' EXIT
    bash -c 'echo $$ >"$1/cgroup.procs" && doctor quota' - "$group"
    status=$?
    rmdir "$group"
    trap end_of_script EXIT
    examined quota "$status" "cpu-quota=warning:0.50 cores ($group/"
else
    echo "SKIPPED doctor/quota: no control group of CPUs can be made here"
fi

# --- no /sys ---------------------------------------------------------------------------------------
if unshare -m true 2>/dev/null; then
    unshare -m bash -c 'mount -t tmpfs none /sys && doctor without-sys'
    examined without-sys $? cpus=unknown isolation=unknown siblings=unknown governor=unknown clocksource=unknown \
        huge-pages=unknown numa=unknown packet-steering=unknown idle-states=unknown numa-devices=unknown \
        nic-offloads=unknown nic-rings=unknown disk-cache=unknown numa-disk=unknown cpu-quota=unknown \
        memory-limit=unknown "kernel=fine:$(uname -r)" "io-uring=$ring"
else
    echo "SKIPPED doctor/without-sys: no namespace of mounts can be made here"
fi

# This host is as it was.
doctor again
status=$?
examined again "$status" "io-uring=$ring"
ids() { python3 -c 'import json, sys; print([(one["id"], one["severity"]) for one in json.load(open(sys.argv[1]))])' "$1"; }
if [ "$(ids "$work/plain.json")" = "$(ids "$work/again.json")" ]; then ok doctor/as-before; else fail doctor/as-before "a check says otherwise"; fi
