#!/usr/bin/env bash
# The profiles under tuning/ must be read by the tools that they are for, as far as those are here, and `tuning/ab.sh`
# must set a knob and set it back. That their values are those of `volley tune` is a test of its own.
. "$(dirname "$0")/lib.sh"
need python3
tuning=$here/../../tuning

# --- systemd ---------------------------------------------------------------------------------------
if command -v systemd-analyze >/dev/null; then
    mkdir -p "$work/units/system.slice.d"
    sed "s|/usr/bin/volley|$(realpath "$volley")|" "$tuning/systemd/volley.service" >"$work/units/volley.service"
    cp "$tuning/systemd/volley.slice" "$work/units/"
    # As they are, and with each line that waits for the host's numbers.
    for part in given filled; do
        said=$(systemd-analyze verify "$work/units/volley.service" "$work/units/volley.slice" 2>&1)
        status=$?
        if [ "$status" -eq 0 ] && ! grep -q volley <<<"$said"; then ok "profiles/systemd-$part"; else fail "profiles/systemd-$part" "$said"; fi
        sed -i -E 's/^#([A-Z][A-Za-z]+=)/\1/' "$work"/units/volley.*
    done
    echo 'NoSuchKey=1' >>"$work/units/volley.slice"
    said=$(systemd-analyze verify "$work/units/volley.slice" 2>&1)
    if grep -q NoSuchKey <<<"$said"; then ok profiles/systemd-planted-fault; else fail profiles/systemd-planted-fault "not seen"; fi
else
    echo "SKIPPED profiles/systemd: no systemd-analyze here"
fi

# --- udev ------------------------------------------------------------------------------------------
if command -v udevadm >/dev/null && udevadm verify --help >/dev/null 2>&1; then
    if said=$(udevadm verify --no-summary "$tuning/udev/90-volley.rules" 2>&1); then
        ok profiles/udev
    else
        fail profiles/udev "$said"
    fi
else
    echo "SKIPPED profiles/udev: no udevadm that verifies (systemd 254) here"
fi

# --- tuned -----------------------------------------------------------------------------------------
# Its daemon would have to run; what it is written in is read by the parser that tuned uses.
if said=$(python3 -c '
import configparser, sys
profile = configparser.ConfigParser(delimiters="=", inline_comment_prefixes="#", interpolation=None, strict=True)
profile.optionxform = str
profile.read(sys.argv[1])
assert profile["main"]["summary"] and profile["sysctl"] and profile["net"]["features"]
' "$tuning/tuned/volley/tuned.conf" 2>&1); then ok profiles/tuned; else fail profiles/tuned "$said"; fi
command -v tuned-adm >/dev/null || echo "SKIPPED profiles/tuned-adm: not here; only the form of its profile was looked at"

# --- sysctl ----------------------------------------------------------------------------------------
missing=()
while IFS='= ' read -r key _; do
    case $key in '' | '#'*) continue ;; esac
    [ -e "/proc/sys/${key//.//}" ] || missing+=("$key")
done <"$tuning/sysctl.d/volley.conf"
if [ "${#missing[@]}" -eq 0 ]; then ok profiles/sysctl; else echo "SKIPPED profiles/sysctl: this kernel has no ${missing[*]}"; fi

# --- a knob in turn --------------------------------------------------------------------------------
if VOLLEY=$volley CARGO_TARGET_DIR=$work/ab timeout 240 "$tuning/ab.sh" --smoke >"$work/ab.log" 2>&1 &&
    grep -q 'all knobs are as they were' "$work/ab.log"; then
    ok profiles/ab
    grep '^SKIPPED' "$work/ab.log"
else
    fail profiles/ab "status $?"
fi
true
