#!/usr/bin/env bash
# Wireshark's dissectors as judge: a whole push (deposit, subscription, INVITE, MSRP, BYE) is captured
# on loopback, and every frame must decode as SIP, SDP or MSRP with nothing malformed in it.
. "$(dirname "$0")/lib.sh"
need sipp python3 tshark

users=2
devices=2
calls=$((users * devices))
read -r volley_sip volley_msrp phones core media < <(driver ports 5)
pcap=$work/push.pcapng
# Our own links also leave from the port that follows; the filter takes every port in play.
ports=("$volley_sip" $((volley_sip + 1)) "$phones" "$core" "$volley_msrp" "$media")
filter=$(printf ' or tcp port %s' "${ports[@]}")

start capture tshark -q -i lo -f "${filter# or }" -w "$pcap"
capture=$started
for _ in $(seq 100); do
    grep -q 'Capturing on' "$work/capture.log" && break
    kill -0 "$capture" 2>/dev/null || break
    sleep 0.1
done
if ! kill -0 "$capture" 2>/dev/null || [ "$(id -u)" -ne 0 ]; then
    printf 'SKIPPED capture: no right to capture on lo (root has it)\n'
    exit 0
fi
# dumpcap says that it captures before the socket is open.
sleep 1

sed -e "s|@SIP@|$volley_sip|; s|@MSRP@|$volley_msrp|; s|@TRANSPORT@|tcp|" \
    -e "s|@HOPS@|{ address = \"127.0.0.1:$core\", connections = 1, invite_inflight_max = 0 }, { address = \"127.0.0.1:$phones\", connections = 2 }|" \
    -e "s|@ROUTE@|sip:scscf1.ims.example.net;lr|; s|@GRUU@|strict|; s|@SILENT@|false|; s|@OC@|true|" \
    -e "s|@USERS@||; s|@STORE@|$work/store|" "$here/volley.toml" >"$work/capture.toml"
start phones sipp -sf "$here/sipp/accept.xml" -i 127.0.0.1 -p "$phones" -t tn -m "$calls" \
    -key msrp_port "$media" -d 200 -timeout 40 -timeout_error -nostdin -max_socket 500
sipp=$started
start core driver scscf --prefix capture/ --transport tcp --volley "$volley_sip" --listen "$core" \
    --msrp "$media" --users "$users" --devices "$devices" --seconds 40 --stay "$work/end"
scscf=$started
driver wait "$core" 10
start_volley engine "$work/capture.toml"
if finish "$sipp" 50; then ok capture/sipp; else fail capture/sipp "status $?"; fi
touch "$work/end"
finish "$scscf" 10 || failed=1
cat "$work/core.log"
stop_volley engine capture/ invites_accepted_total=$calls delivered_total=$calls
sleep 0.5
kill -INT "$capture"
finish "$capture" 10

decode=()
for port in "$volley_sip" $((volley_sip + 1)) "$phones" "$core"; do decode+=(-d "tcp.port==$port,sip"); done
for port in "$volley_msrp" "$media"; do decode+=(-d "tcp.port==$port,msrp"); done

# frames DISPLAY_FILTER: how many; `-2` so that what was reassembled is known.
frames() { tshark -r "$pcap" "${decode[@]}" -2 -Y "$1" 2>/dev/null | wc -l; }

# exactly NAME COUNT DISPLAY_FILTER, at_least the same.
exactly() {
    local got
    got=$(frames "$3")
    if [ "$got" -eq "$2" ]; then ok "capture/$1"; else
        fail "capture/$1" "$got frames, not $2, are $3"
        tshark -r "$pcap" "${decode[@]}" -2 -Y "$3" -V 2>/dev/null | head -n 80
    fi
}
at_least() {
    local got
    got=$(frames "$3")
    if [ "$got" -ge "$2" ]; then ok "capture/$1"; else fail "capture/$1" "$got frames, not $2, are $3"; fi
}

exactly nothing-malformed 0 '_ws.malformed || _ws.expert.severity == "Error"'
exactly nothing-undecoded 0 'tcp.len > 0 && !sip && !msrp && !tcp.reassembled_in && !tcp.segment_data'
# A frame may hold several messages; the four INVITEs go over two connections.
at_least sip-invite 1 'sip.CSeq.method == "INVITE" && sip.Method == "INVITE"'
at_least sdp-offer 1 'sdp.media.proto == "TCP/MSRP" && sip.Method == "INVITE"'
at_least sdp-answer 1 'sdp.media.proto == "TCP/MSRP" && sip.Status-Code == 200'
at_least sip-ack 1 'sip.Method == "ACK"'
at_least sip-bye 1 'sip.Method == "BYE"'
at_least sip-deposit-202 1 'sip.Status-Code == 202'
at_least msrp-send "$calls" 'msrp.method == "SEND"'
at_least msrp-report 1 'msrp.method == "REPORT"'
