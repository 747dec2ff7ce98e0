//! Whole messages of this project's own making, for tests and benches.

/// A 200 to a push INVITE, 1,016 octets.
pub(crate) const OK_INVITE: &[u8] = b"\
    SIP/2.0 200 OK\r\n\
    Via: SIP/2.0/TCP push1.home.example:5060;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb;oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1795329600.001\r\n\
    From: <sip:push@home.example>;tag=bq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb\r\n\
    To: <sip:+15550123@home.example>;tag=phone-5d2f01\r\n\
    Call-ID: cq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb@push1.home.example\r\n\
    CSeq: 1 INVITE\r\n\
    Record-Route: <sip:term@edge.home.example:5060;lr>, <sip:core.home.example:5060;transport=tcp;lr>\r\n\
    Contact: <sip:+15550123@home.example;gr=urn:uuid:0f3c2b1a-7dec-11d0-a765-00a0c91e0001>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, UPDATE, MESSAGE\r\n\
    Supported: timer\r\n\
    Require: timer\r\n\
    Session-Expires: 1800;refresher=uac\r\n\
    User-Agent: phone/1\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 203\r\n\
    \r\n\
    v=0\r\n\
    o=- 7 1 IN IP4 203.0.113.20\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.20\r\n\
    t=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\n\
    a=path:msrp://203.0.113.20:2855/kkkkkkkkkkkk;tcp\r\n\
    a=accept-types:message/cpim\r\n\
    a=setup:active\r\n\
    a=recvonly\r\n\
    ";

/// A push INVITE, 1,454 octets.
pub(crate) const INVITE: &[u8] = b"\
    INVITE sip:+15550123@home.example;gr=urn:uuid:0f3c2b1a-7dec-11d0-a765-00a0c91e0001 SIP/2.0\r\n\
    Via: SIP/2.0/TCP push1.home.example:5060;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb;oc;oc-algo=\"loss,rate\"\r\n\
    Max-Forwards: 70\r\n\
    Route: <sip:core.home.example:5060;transport=tcp;lr>\r\n\
    From: <sip:push@home.example>;tag=bq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb\r\n\
    To: <sip:+15550123@home.example>\r\n\
    Call-ID: cq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb@push1.home.example\r\n\
    CSeq: 1 INVITE\r\n\
    Contact: <sip:push@push1.home.example:5060;transport=tcp>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\";automata\r\n\
    Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"\r\n\
    P-Asserted-Identity: <sip:push@home.example>\r\n\
    P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
    P-Charging-Vector: icid-value=\"dq4tz2mxv7c3k5w6\";icid-generated-at=push1.home.example;orig-ioi=\"home.example\"\r\n\
    User-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\n\
    Supported: timer\r\n\
    Session-Expires: 1800;refresher=uac\r\n\
    Conversation-ID: 11111111-2222-4333-8444-555555555555\r\n\
    Contribution-ID: 66666666-7777-4888-9999-aaaaaaaaaaaa\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 229\r\n\
    \r\n\
    v=0\r\n\
    o=- 3973000001 1 IN IP4 203.0.113.10\r\n\
    s=-\r\n\
    c=IN IP4 203.0.113.10\r\n\
    t=0 0\r\n\
    m=message 2855 TCP/MSRP *\r\n\
    a=path:msrp://203.0.113.10:2855/kk;tcp\r\n\
    a=accept-types:message/cpim\r\n\
    a=accept-wrapped-types:*\r\n\
    a=setup:actpass\r\n\
    a=sendonly\r\n\
    ";

/// What the first hop says to a push INVITE.
pub(crate) const TRYING: &[u8] = b"\
    SIP/2.0 100 Trying\r\n\
    Via: SIP/2.0/TCP push1.home.example:5060;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb;oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1795329600.001\r\n\
    From: <sip:push@home.example>;tag=bq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb\r\n\
    To: <sip:+15550123@home.example>\r\n\
    Call-ID: cq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb@push1.home.example\r\n\
    CSeq: 1 INVITE\r\n\
    Content-Length: 0\r\n\
    \r\n\
    ";

/// The answer to a BYE.
pub(crate) const OK_BYE: &[u8] = b"\
    SIP/2.0 200 OK\r\n\
    Via: SIP/2.0/TCP push1.home.example:5060;branch=z9hG4bKaq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb;oc=0;oc-algo=\"loss\";oc-validity=0;oc-seq=1795329600.001\r\n\
    From: <sip:push@home.example>;tag=bq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb\r\n\
    To: <sip:+15550123@home.example>;tag=phone-5d2f01\r\n\
    Call-ID: cq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb@push1.home.example\r\n\
    CSeq: 2 BYE\r\n\
    User-Agent: phone/1\r\n\
    Content-Length: 0\r\n\
    \r\n\
    ";

/// The head of a registration's NOTIFY.
pub(crate) const NOTIFY: &[u8] = b"\
    NOTIFY sip:push@push1.home.example:5060;transport=tcp SIP/2.0\r\n\
    Via: SIP/2.0/TCP scscf1.home.example:5060;branch=z9hG4bK-n2p5r7s2dq4wz6yb\r\n\
    Max-Forwards: 68\r\n\
    From: <sip:+15550123@home.example>;tag=reg-5d2f01\r\n\
    To: <sip:push@home.example>;tag=bq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb\r\n\
    Call-ID: cq4tz2mxv7c3k5w6n2p5r7s2dq4wz6yb@push1.home.example\r\n\
    CSeq: 17 NOTIFY\r\n\
    Contact: <sip:scscf1.home.example:5060;transport=tcp>\r\n\
    Event: reg\r\n\
    Subscription-State: active;expires=3600\r\n\
    P-Asserted-Identity: <sip:scscf1.home.example>\r\n\
    P-Charging-Vector: icid-value=\"dq4tz2mxv7c3k5w6\";orig-ioi=\"home.example\"\r\n\
    User-Agent: scscf/1\r\n\
    Content-Type: application/reginfo+xml\r\n\
    Content-Length: 20\r\n\
    \r\n\
    <reginfo></reginfo>\n";
