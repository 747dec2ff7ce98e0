#!/usr/bin/env bash
# Kamailio as registrar, notifier and proxy between volley and two SIPp phones of one user.
# The user has mail and is not registered. Both phones register; each must get one INVITE and the
# message. Kamailio's NOTIFY has no GRUU: the fallbacks of `selection.gruu` are used.
. "$(dirname "$0")/lib.sh"
need sipp kamailio sqlite3 python3

schema=/usr/share/kamailio/db_sqlite
modules=$(find /usr/lib /usr/lib64 -name presence_reginfo.so -path '*kamailio/modules*' 2>/dev/null | head -n 1)
modules=${modules%/*}
user=+15550000001
uuids=(00000001-0000-4000-8000-000000000001 00000001-0000-4000-8000-000000000002)

# check NAME STATUS WHY
check() { if [ "$2" -eq 0 ]; then ok "$1"; else fail "$1" "$3"; fi; }

# round NAME GRUU_RULE KAMAILIO_DEFINE
round() {
    local name=$1 prefix=kamailio-$1/ before=$failed part at count deposits ports contacts
    local volley_sip volley_msrp proxy core media phone0 phone1
    failed=0
    read -r volley_sip volley_msrp proxy core media phone0 phone1 < <(driver ports 7)
    mkdir "$work/$name"
    for part in standard presence; do
        sqlite3 "$work/$name/kamailio.sqlite" <"$schema/$part-create.sql" || fail "${prefix}database" "$part"
    done
    sed -e "s|@PORT@|$proxy|; s|@MODULES@|$modules|; s|@WORK@|$work/$name|; s|@VOLLEY@|$volley_sip|" \
        -e "s|@DEFINE@|$3|" "$here/kamailio.cfg" >"$work/$name/kamailio.cfg"
    # Without overload control: the Via parser of Kamailio 5.6 ends a quoted value at its comma, and
    # the one of RFC 7415 section 3.3, oc-algo="loss,rate", has one.
    sed -e "s|@SIP@|$volley_sip|; s|@MSRP@|$volley_msrp|; s|@TRANSPORT@|tcp|" \
        -e "s|@HOPS@|{ address = \"127.0.0.1:$proxy\", connections = 2 }|" \
        -e "s|@ROUTE@|sip:127.0.0.1:$proxy;transport=tcp;lr|; s|@GRUU@|$2|; s|@SILENT@|true|; s|@OC@|false|" \
        -e "s|@USERS@|\"sip:$user@ims.example.net\"|; s|@STORE@|$work/$name/store|" \
        "$here/volley.toml" >"$work/$name/volley.toml"

    start "$name-kamailio" kamailio -DD -E -f "$work/$name/kamailio.cfg" -Y "$work/$name" \
        -P "$work/$name/kamailio.pid" -m 128 -M 8
    local kamailio=$started
    driver wait "$proxy" 20
    check "${prefix}kamailio-listens" $? "port $proxy is closed"
    start_volley "$name-volley" "$work/$name/volley.toml"
    driver wait "$volley_sip" 20
    check "${prefix}engine-listens" $? "port $volley_sip is closed"

    # The phones: the first behind UDP, the second behind TCP. They ring for three seconds, so that
    # both have registered before the message is delivered to either.
    ports=("$phone0" "$phone1")
    contacts=("$phone0" "$phone1;transport=tcp")
    local phones=() modes=(u1 tn) uris
    case $name in
        gruu) uris=("sip:$user@ims.example.net;gr=urn:uuid:${uuids[0]}" "sip:$user@ims.example.net;gr=urn:uuid:${uuids[1]}") ;;
        contact) uris=("sip:$user@127.0.0.1:$phone0" "sip:$user@127.0.0.1:$phone1;transport=tcp") ;;
    esac
    for at in 0 1; do
        start "$name-phone$at" sipp -sf "$here/sipp/accept-through-proxy.xml" -i 127.0.0.1 \
            -p "${ports[at]}" -t "${modes[at]}" -key msrp_port "$media" -key uuid "${uuids[at]}" \
            -d 3000 -m 1 -timeout 50 -timeout_error -nostdin -max_socket 500 \
            -trace_logs -log_file "$work/$name-phone$at-checks.log" \
            -trace_err -error_file "$work/$name-phone$at-errors.log"
        phones+=("$started")
    done

    start "$name-core" driver deposit --prefix "$prefix" --transport tcp --proxy "$proxy" \
        --listen "$core" --msrp "$media" --seconds 30
    deposits=$started
    for _ in $(seq 100); do
        grep -q deposit-202 "$work/$name-core.log" && break
        sleep 0.1
    done

    for at in 0 1; do
        start "$name-register$at" sipp -sf "$here/sipp/register.xml" -i 127.0.0.1 -t u1 -m 1 \
            -key user "$user" -key uuid "${uuids[at]}" -key contact "${contacts[at]}" \
            -timeout 10 -timeout_error -nostdin -max_socket 500 \
            -trace_logs -log_file "$work/$name-register$at-checks.log" "127.0.0.1:$proxy"
        finish "$started" 15
        check "${prefix}phone$at-registers" $? "SIPp failed"
        driver checks --prefix "${prefix}phone$at-" --scenario "$here/sipp/register.xml" \
            --log "$work/$name-register$at-checks.log" --calls 1 || failed=1
    done

    finish "$deposits" 40 || failed=1
    cat "$work/$name-core.log"
    for at in 0 1; do
        finish "${phones[at]}" 15
        check "${prefix}phone$at-sipp" $? "SIPp failed"
        driver checks --prefix "${prefix}phone$at-" --scenario "$here/sipp/accept-through-proxy.xml" \
            --log "$work/$name-phone$at-checks.log" --calls 1 || failed=1
    done
    stop_volley "$name-volley" "$prefix" invites_sent_total=2 invites_accepted_total=2 \
        acks_sent_total=2 byes_sent_total=2 delivered_total=2 messages_completed_total=1 \
        pushes_failed_total=0 subscribes_sent_total=1 notifies_rejected_total=0 \
        reginfo_rejected_total=0
    # What Kamailio was asked to route to: each phone once, and nothing else.
    for at in 0 1; do
        count=$(grep -cF "INVITE to ${uris[at]} " "$work/$name-kamailio.log")
        [ "$count" = 1 ]
        check "${prefix}phone$at-one-invite-to-its-uri" $? "$count INVITEs"
    done
    count=$(grep -c "INVITE to " "$work/$name-kamailio.log")
    [ "$count" = 2 ]
    check "${prefix}one-invite-per-phone" $? "$count INVITEs"
    kill "$kamailio"
    [ "$failed" -ne 0 ] || forget_logs "$name"
    failed=$((failed | before))
}

# Kamailio as packaged: neither GRUU nor instance in its NOTIFY, so the contact is all there is.
round contact any "# as packaged"
# With the instance, as an S-CSCF gives it: the GRUU put together from it, which Kamailio routes.
round gruu instance "#!define WITH_INSTANCE"
