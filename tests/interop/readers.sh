#!/usr/bin/env bash
# What operators and performance engineers read with other programs must be readable by them: the metrics
# endpoint by the strict parser of the Prometheus client, the latency histograms by another HdrHistogram.
# Both come from the Python package registry.
. "$(dirname "$0")/lib.sh"
need python3

read -r volley_sip volley_msrp core media metrics < <(driver ports 5)
if ! python3 -m venv "$work/python" >"$work/venv.log" 2>&1 ||
    ! timeout 120 "$work/python/bin/pip" install --quiet --disable-pip-version-check \
        hdrhistogram==0.10.3 prometheus-client==0.23.1 >"$work/pip.log" 2>&1; then
    fail readers/registry "the readers cannot be fetched: no Python package registry"
    exit 1
fi
reader() { timeout 60 "$work/python/bin/python" "$here/readers.py" "$@"; }

sed -e "s|@SIP@|$volley_sip|; s|@MSRP@|$volley_msrp|; s|@TRANSPORT@|tcp|" \
    -e "s|@HOPS@|{ address = \"127.0.0.1:$core\", connections = 2 }|" \
    -e "s|@ROUTE@|sip:127.0.0.1:$core;transport=tcp;lr|; s|@GRUU@|strict|; s|@SILENT@|false|; s|@OC@|true|" \
    -e "s|@USERS@||; s|@STORE@|$work/store|" "$here/volley.toml" >"$work/readers.toml"
printf '\n[admin]\nmetrics = "127.0.0.1:%s"\n' "$metrics" >>"$work/readers.toml"
start_volley engine "$work/readers.toml"
timeout 100 "$volley" judge run --engine "127.0.0.1:$volley_sip" --scscf-listen "127.0.0.1:$core" \
    --msrp-listen "127.0.0.1:$media" --scenario smoke --users 500 --domain ims.example.net --quiet \
    --report-dir "$work/report" >"$work/judge.log" 2>&1
status=$?
if [ "$status" -eq 0 ] || [ "$status" -eq 3 ]; then ok readers/run; else fail readers/run "status $status"; fi
if reader metrics "http://127.0.0.1:$metrics/metrics" >"$work/metrics.log" 2>&1; then
    ok "readers/metrics ($(tail -n 1 "$work/metrics.log"))"
else
    fail readers/metrics "see metrics.log"
fi
if reader histograms "$work/report" >"$work/histograms.log" 2>&1; then
    ok "readers/histograms ($(tail -n 1 "$work/histograms.log"))"
else
    fail readers/histograms "see histograms.log"
fi
stop_volley engine readers/ delivered_total=1994
