#!/usr/bin/env bash
# SIPp as phones that refuse, hesitate, change their mind or hang up: one round each, with what must
# reach the wire checked in the scenario and what came of it in the engine's counters.
. "$(dirname "$0")/lib.sh"
need sipp python3

only=${1:-}
fresh

# Final responses: acknowledged by the hop, no session, nothing delivered, and no second try while
# the device's wait runs (60 s after busy, a new registration after 480 and 302, an hour after 603).
refused=(invites_sent_total=4 invites_failed_total=4 invites_accepted_total=0 acks_sent_total=0
    byes_sent_total=0 cancels_sent_total=0 delivered_total=0 messages_completed_total=0)
settle=1 status="486 Busy Here" line="Retry-After: 600"
round busy-486 udp refuse --no-media "${refused[@]}"
settle=1 status="480 Temporarily Unavailable" line="Allow: INVITE, ACK"
round unavailable-480 tcp refuse --no-media "${refused[@]}"
settle=1 status="302 Moved Temporarily" line="Contact: <sip:elsewhere@127.0.0.1:9>"
round moved-302 tcp refuse --no-media "${refused[@]}"
settle=1 status="603 Decline" line="Allow: INVITE, ACK"
round decline-603 udp refuse --no-media "${refused[@]}"

# The hop asks for silence: of the devices that wait behind one INVITE at a time none is tried.
calls=1 inflight=1 settle=2 status="503 Service Unavailable" line="Retry-After: 600"
round unavailable-503 tcp refuse --no-media invites_sent_total=1 invites_failed_total=1 \
    invites_accepted_total=0 delivered_total=0 messages_completed_total=0

round session-interval-accept tcp session-interval-accept "" invites_sent_total=8 \
    invites_accepted_total=4 acks_sent_total=4 byes_sent_total=4 delivered_total=4 \
    messages_completed_total=2

answer_s=2
round no-answer udp no-answer --no-media invites_sent_total=4 cancels_sent_total=4 \
    invites_accepted_total=0 acks_sent_total=0 byes_sent_total=0 late_2xx_total=0 delivered_total=0
answer_s=1
round late-2xx tcp late-2xx --no-media invites_sent_total=4 cancels_sent_total=4 acks_sent_total=4 \
    byes_sent_total=4 late_2xx_total=4 delivered_total=0 messages_completed_total=0

linger_ms=1000
round forked-2xx tcp forked-2xx "" invites_sent_total=4 invites_accepted_total=4 acks_sent_total=8 \
    byes_sent_total=8 forks_ended_total=4 delivered_total=4 messages_completed_total=2

linger_ms=3000
round refresher-uas tcp refresher-uas "" invites_accepted_total=4 refreshes_sent_total=0 \
    acks_sent_total=4 byes_sent_total=4 delivered_total=4 messages_completed_total=2
round bye-mid-transfer tcp bye-mid-transfer --stall invites_accepted_total=4 acks_sent_total=4 \
    byes_received_total=4 byes_sent_total=0 delivered_total=0 messages_completed_total=0

# A re-INVITE with the session as it is, from the phone: answered, and delivery goes on.
linger_ms=3000
round reinvite tcp reinvite "" invites_accepted_total=4 acks_sent_total=4 byes_sent_total=4 \
    delivered_total=4 messages_completed_total=2 pushes_failed_total=0
