#!/usr/bin/env bash
# Kamailio as registrar, notifier and proxy between volley and two SIPp phones of one user.
# The user has mail and is not registered. Both phones register; each must get one INVITE, by the
# GRUU that volley composes because Kamailio's NOTIFY has none, and the message.
. "$(dirname "$0")/lib.sh"
need sipp kamailio sqlite3 python3

schema=/usr/share/kamailio/db_sqlite
modules=$(dirname "$(find /usr/lib* -name presence_reginfo.so -path '*kamailio/modules*' 2>/dev/null | head -n 1)")
for part in standard presence; do
    sqlite3 "$work/kamailio.sqlite" <"$schema/$part-create.sql" || fail "kamailio-database" "$part"
done

read -r volley_sip volley_msrp proxy core media phone1 phone2 < <(driver ports 7)
user=+15550000001
sed -e "s|@PORT@|$proxy|; s|@MODULES@|$modules|; s|@WORK@|$work|; s|@VOLLEY@|$volley_sip|" \
    "$here/kamailio.cfg" >"$work/kamailio.cfg"
# Without overload control: the Via parser of Kamailio 5.6 ends a quoted value at its comma, and the
# one of RFC 7415 section 3.3, oc-algo="loss,rate", has one.
sed -e "s|@SIP@|$volley_sip|; s|@MSRP@|$volley_msrp|; s|@TRANSPORT@|tcp|" \
    -e "s|@HOPS@|{ address = \"127.0.0.1:$proxy\", connections = 2 }|" \
    -e "s|@ROUTE@|sip:127.0.0.1:$proxy;transport=tcp;lr|; s|@GRUU@|instance|; s|@SILENT@|true|; s|@OC@|false|" \
    -e "s|@USERS@|\"sip:$user@ims.example.net\"|; s|@STORE@|$work/store|" \
    "$here/volley.toml" >"$work/volley.toml"

start kamailio kamailio -DD -E -f "$work/kamailio.cfg" -Y "$work" -P "$work/kamailio.pid" -m 128 -M 8
driver wait "$proxy" 20 || fail kamailio/ready "it does not listen"
start_volley volley "$work/volley.toml"
driver wait "$volley_sip" 20 || fail kamailio/engine-ready "it does not listen"


# The phones; the first behind UDP, the second behind TCP. They ring for three seconds, so that both
# have registered before the message is delivered to either.
ports=("$phone1" "$phone2")
modes=(u1 tn)
contacts=("$phone1" "$phone2;transport=tcp")
uuids=(00000001-0000-4000-8000-000000000001 00000001-0000-4000-8000-000000000002)
phones=()
for at in 0 1; do
    start "phone$at" sipp -sf "$here/sipp/accept-through-proxy.xml" -i 127.0.0.1 \
        -p "${ports[at]}" -t "${modes[at]}" -key msrp_port "$media" -key uuid "${uuids[at]}" -d 3000 \
        -m 1 -timeout 50 -timeout_error -nostdin -max_socket 500 -trace_logs \
        -log_file "$work/phone$at-checks.log" -trace_err -error_file "$work/phone$at-errors.log"
    phones+=("$started")
done

start core driver deposit --prefix kamailio/ --transport tcp --proxy "$proxy" --listen "$core" \
    --msrp "$media" --seconds 40
deposits=$started
for _ in $(seq 100); do
    grep -q deposit-202 "$work/core.log" && break
    sleep 0.1
done

for at in 0 1; do
    start "register$at" sipp -sf "$here/sipp/register.xml" -i 127.0.0.1 -t u1 -m 1 \
        -key user "$user" -key uuid "${uuids[at]}" -key contact "${contacts[at]}" \
        -timeout 10 -timeout_error -nostdin -max_socket 500 -trace_logs \
        -log_file "$work/register$at-checks.log" "127.0.0.1:$proxy"
    if finish "$started" 15; then ok "kamailio/phone$at-registers"; else fail "kamailio/phone$at-registers" "status $?"; fi
    driver checks --prefix "kamailio/phone$at-" --scenario "$here/sipp/register.xml" \
        --log "$work/register$at-checks.log" --calls 1 || failed=1
done

finish "$deposits" 50 || failed=1
cat "$work/core.log"
for at in 0 1; do
    if finish "${phones[at]}" 15; then ok "kamailio/phone$at-sipp"; else fail "kamailio/phone$at-sipp" "status $?"; fi
    driver checks --prefix "kamailio/phone$at-" --scenario "$here/sipp/accept-through-proxy.xml" \
        --log "$work/phone$at-checks.log" --calls 1 || failed=1
    count=$(grep -c "INVITE to sip:$user@ims.example.net;gr=urn:uuid:${uuids[at]} " "$work/kamailio.log")
    if [ "$count" = 1 ]; then ok "kamailio/phone$at-one-invite-by-its-gruu"; else fail "kamailio/phone$at-one-invite-by-its-gruu" "$count INVITEs"; fi
done
stop_volley volley kamailio/ invites_sent_total=2 invites_accepted_total=2 acks_sent_total=2 \
    byes_sent_total=2 delivered_total=2 messages_completed_total=1 pushes_failed_total=0 \
    subscribes_sent_total=1 notifies_rejected_total=0 reginfo_rejected_total=0
