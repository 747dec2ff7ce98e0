#!/usr/bin/env bash
# SIPp as a phone whose refresh meets ours. The least session interval is 90 s, so that this takes most
# of a minute: a step of its own.
. "$(dirname "$0")/lib.sh"
need sipp python3

fresh
users=1 devices=1 calls=1 linger_ms=80000 expires_s=90 seconds=80
round glare-update tcp glare-update "" invites_accepted_total=1 refreshes_sent_total=2 \
    byes_received_total=1 byes_sent_total=0 delivered_total=1 messages_completed_total=1
