#!/usr/bin/env bash
# Pushes per core-second of several callers against one answering peer: our engine, SIPp, Kamailio,
# rsipstack, and the least a caller can do; with --deferred, messages for absent users, by our engine and by
# Kamailio. `run.sh --help` says more. Run as root, it installs what is missing; it builds with the crates of the
# registry that benches/peers/rust/Cargo.lock names.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$top/target}

wanted() { case " $* " in *" --help "* | *" -h "* | *" --no-build "*) return 1 ;; esac; }

if wanted "$@"; then
    missing=()
    for package in sip-tester kamailio kamailio-extra-modules kamailio-sqlite-modules python3; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ "${#missing[@]}" -gt 0 ] && [ "$(id -u)" -eq 0 ]; then
        policy=/usr/sbin/policy-rc.d own=no
        [ -e "$policy" ] || { own=yes; printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; }
        apt-get install -y --no-install-recommends "${missing[@]}" || true
        [ "$own" = no ] || rm -f "$policy"
    fi
    cargo build --release --manifest-path "$top/Cargo.toml"
    case " $* " in
    *" --smoke "*) ;;
    *) cargo build --release --locked --manifest-path "$here/rust/Cargo.toml" || echo "rsipstack is left out: it does not build" ;;
    esac
fi
exec python3 -B "$here/peers.py" --target "$CARGO_TARGET_DIR" "$@"
