#!/usr/bin/env bash
# SIPp as the phones of several users, over TCP and UDP: it answers our INVITEs and checks them.
# driver.py is the S-CSCF's signalling (deposits, third-party REGISTER, NOTIFY) and the phones' MSRP.
. "$(dirname "$0")/lib.sh"
need sipp python3

users=8
devices=2
calls=$((users * devices))

# round TRANSPORT SCENARIO DRIVER_OPTIONS COUNTER=VALUE..
round() {
    local transport=$1 scenario=$2 options=$3
    shift 3
    local name=$transport-$scenario prefix=sipp-$transport-$scenario/
    local volley_sip volley_msrp phones core media mode before=$failed
    failed=0
    read -r volley_sip volley_msrp phones core media < <(driver ports 5)
    case $transport in tcp) mode=tn ;; udp) mode=u1 ;; esac
    # The S-CSCF takes no INVITE, so that they go to the phones; all else goes to it first.
    sed -e "s|@SIP@|$volley_sip|; s|@MSRP@|$volley_msrp|; s|@TRANSPORT@|$transport|" \
        -e "s|@HOPS@|{ address = \"127.0.0.1:$core\", connections = 1, invite_inflight_max = 0 }, { address = \"127.0.0.1:$phones\", connections = 2 }|" \
        -e "s|@ROUTE@|sip:scscf1.ims.example.net;lr|; s|@GRUU@|strict|; s|@SILENT@|false|; s|@OC@|true|" \
        -e "s|@USERS@||; s|@STORE@|$work/$name|" "$here/volley.toml" >"$work/$name.toml"

    start "$name-sipp" sipp -sf "$here/sipp/$scenario.xml" -i 127.0.0.1 -p "$phones" -t "$mode" \
        -m "$calls" -key msrp_port "$media" -d 200 -timeout 40 -timeout_error -nostdin -max_socket 500 \
        -trace_logs -log_file "$work/$name-checks.log" -trace_err -error_file "$work/$name-errors.log"
    local sipp=$started
    # shellcheck disable=SC2086 # options are words
    start "$name-core" driver scscf --prefix "$prefix" --transport "$transport" \
        --volley "$volley_sip" --listen "$core" --msrp "$media" --users "$users" \
        --devices "$devices" --seconds 25 $options
    local scscf=$started
    if [ "$transport" = tcp ]; then driver wait "$core" 10; fi
    start_volley "$name" "$work/$name.toml"
    finish "$scscf" 40 || failed=1
    cat "$work/$name-core.log"
    if finish "$sipp" 20; then ok "${prefix}sipp"; else fail "${prefix}sipp" "status $?"; fi
    driver checks --prefix "$prefix" --scenario "$here/sipp/$scenario.xml" \
        --log "$work/$name-checks.log" --calls "$calls" || failed=1
    stop_volley "$name" "$prefix" "$@"
    [ "$failed" -ne 0 ] || forget_logs "$name"
    failed=$((failed | before))
}

for transport in tcp udp; do
    round "$transport" accept "" invites_sent_total=$calls invites_accepted_total=$calls \
        acks_sent_total=$calls byes_sent_total=$calls delivered_total=$calls \
        messages_completed_total=$users pushes_failed_total=0 responses_stray_total=0
    round "$transport" refuse-media --no-media invites_sent_total=$calls \
        invites_accepted_total=$calls byes_sent_total=$calls delivered_total=0 \
        messages_completed_total=0
    round "$transport" session-interval --no-media invites_accepted_total=0 \
        acks_sent_total=0 byes_sent_total=0 delivered_total=0
done
