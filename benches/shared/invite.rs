//! The INVITE of the benches, and the same message by one `write!` for each part: its speed is the reason for
//! templates.

use std::io::Write as _;

use volley::sip::template::InviteFields;

pub(crate) const FIELDS: InviteFields<'_> = InviteFields {
    request_uri: b"sip:+15550100@ims.example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    branch: b"abcdefghijklmnopqrstuvwxyz234567",
    from_tag: b"bcdefghijklmnopqrstuvwxyz234567a",
    to_uri: b"sip:+15550100@ims.example.net",
    call_id: b"cdefghijklmnopqrstuvwxyz234567ab",
    cseq: 1,
    icid: b"defghijklmnopqrstuvwxyz234567abc",
    session_expires_s: Some(1800),
    min_se: None,
    conversation_id: b"4f93f0fe-86d6-462c-9ba2-e4bc3d1cafcc",
    contribution_id: b"94d850fb-ed40-437e-9609-de9ea0e393d9",
    sdp_session: 3_973_000_001,
    sdp_version: 1,
    msrp_session: b"efghijklmnopqrstuvwxyz234567abcd",
    no_require: false,
    related_icid: b"",
    extra_accept_contact: b"",
    extra_headers: b"",
    from_uri: b"",
};

fn sdp_of(f: &InviteFields<'_>, out: &mut Vec<u8>) {
    let msrp = text(f.msrp_session);
    write!(
        out,
        "v=0\r\no=- {} {} IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
         m=message 2855 TCP/MSRP *\r\na=path:msrp://192.0.2.10:2855/{msrp};tcp\r\n\
         a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
         a=msrp-cema\r\na=sendonly\r\n",
        f.sdp_session, f.sdp_version
    )
    .expect("a Vec grows");
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("the fields are text")
}

/// One `write!` for each part.
pub(crate) fn write_invite(f: &InviteFields<'_>, out: &mut Vec<u8>) {
    sdp_of(f, out);
    let body_len = out.len();
    out.clear();
    let (uri, branch, tag) = (text(f.request_uri), text(f.branch), text(f.from_tag));
    let (to, call_id, cseq, icid) = (text(f.to_uri), text(f.call_id), f.cseq, text(f.icid));
    let (conversation, contribution) = (text(f.conversation_id), text(f.contribution_id));
    let expires = f.session_expires_s.unwrap_or_default();
    let tagged = "+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"";
    write!(
        out,
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/TCP pf1.ims.example.net:5060;branch=z9hG4bK{branch};\
         oc;oc-algo=\"loss,rate\"\r\nMax-Forwards: 70\r\n\
         Route: <sip:scscf1.ims.example.net:5060;transport=tcp;lr>\r\n\
         From: <sip:cpm-pf@ims.example.net>;tag={tag}\r\nTo: <{to}>\r\n\
         Call-ID: {call_id}@pf1.ims.example.net\r\nCSeq: {cseq} INVITE\r\n\
         Contact: <sip:push@pf1.ims.example.net:5060;transport=tcp>;{tagged};automata\r\n\
         Accept-Contact: *;{tagged}\r\nP-Asserted-Identity: <sip:cpm-pf@ims.example.net>\r\n\
         P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
         P-Charging-Vector: icid-value=\"{icid}\";icid-generated-at=pf1.ims.example.net;\
         orig-ioi=\"ims.example.net\"\r\nUser-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS\r\nSupported: timer\r\n\
         Session-Expires: {expires};refresher=uac\r\nConversation-ID: {conversation}\r\n\
         Contribution-ID: {contribution}\r\nContent-Type: application/sdp\r\n\
         Content-Length: {body_len}\r\n\r\n"
    )
    .expect("a Vec grows");
    sdp_of(f, out);
}
