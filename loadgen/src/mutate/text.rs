//! The messages of an honest engine, as text.

use crate::identity::put_plain;

/// The CPM service, encoded.
pub(crate) const ICSI: &str = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred";
/// The run that messages belong to.
pub(crate) const RUN: u32 = 1;

/// Corrects Content-Length after a change.
pub(crate) fn reframed(text: &str) -> String {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return text.to_owned();
    };
    let Some((before, _)) = head.rsplit_once("Content-Length: ") else {
        return text.to_owned();
    };
    let mut out = before.as_bytes().to_vec();
    out.extend_from_slice(b"Content-Length: ");
    put_plain(body.len() as u64, &mut out);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body.as_bytes());
    String::from_utf8(out).expect("text before and after")
}

/// Via to Call-ID.
pub(crate) fn head(branch: &str, from_tag: &str, to: &str, to_tag: &str, call_id: &str) -> String {
    format!(
        "Via: SIP/2.0/TCP 127.0.0.1:5060;branch=z9hG4bK{branch};oc;oc-algo=\"loss,rate\"\r\n\
         Max-Forwards: 70\r\nFrom: <sip:cpm-pf@home.example>;tag={from_tag}\r\nTo: <{to}>{to_tag}\r\n\
         Call-ID: {call_id}\r\n"
    )
}

/// An answer of the engine to a request with this branch.
pub(crate) fn answer(status: &str, branch: &str, method: &str, extra: &str) -> String {
    format!(
        "SIP/2.0 {status}\r\nVia: SIP/2.0/TCP 127.0.0.1:5070;branch=z9hG4bK{branch}\r\n\
         From: <sip:a@home.example>;tag=a\r\nTo: <sip:b@home.example>;tag=pf\r\nCall-ID: c-{branch}\r\n\
         CSeq: 1 {method}\r\n{extra}Content-Length: 0\r\n\r\n"
    )
}

/// A SUBSCRIBE for a user.
pub(crate) fn subscribe(user: u32) -> String {
    let aor = format!("sip:+1555{user:07}@home.example");
    format!(
        "SUBSCRIBE {aor} SIP/2.0\r\n{}Route: <sip:127.0.0.1:5070;transport=tcp;lr>\r\n\
         CSeq: 1 SUBSCRIBE\r\nContact: <sip:push@127.0.0.1:5060;transport=tcp>\r\nEvent: reg\r\n\
         Accept: application/reginfo+xml\r\nExpires: 600000\r\nSupported: timer\r\n\
         P-Asserted-Identity: <sip:cpm-pf@home.example>\r\nContent-Length: 0\r\n\r\n",
        head(
            &format!("s{user:08}"),
            &format!("pfs{user:08}"),
            &aor,
            "",
            &format!("reg{user:08}")
        )
    )
}

/// The nth INVITE.
pub(crate) fn invite(n: u32, user: u32, device: u8) -> String {
    let sdp = format!(
        "v=0\r\no=- {n} 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=message 2855 TCP/MSRP *\r\na=path:msrp://127.0.0.1:2855/k9Qv3tZs1mXb{n:08};tcp\r\n\
         a=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
         a=msrp-cema\r\na=sendonly\r\n"
    );
    let aor = format!("sip:+1555{user:07}@home.example");
    format!(
        "INVITE {aor};gr=urn:uuid:00000000-0000-1000-8000-{device:04}{user:08} SIP/2.0\r\n{}\
         Route: <sip:127.0.0.1:5070;transport=tcp;lr>\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:push@127.0.0.1:5060;transport=tcp>;+g.3gpp.icsi-ref=\"{ICSI}\";automata\r\n\
         Accept-Contact: *;+g.3gpp.icsi-ref=\"{ICSI}\"\r\n\
         P-Asserted-Identity: <sip:cpm-pf@home.example>\r\n\
         P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.deferred\r\n\
         P-Charging-Vector: icid-value=\"ic{n:08}\";icid-generated-at=pf1;orig-ioi=\"home.example\"\r\n\
         User-Agent: CPM-serv/OMA2.2 volley/0.1.0\r\n\
         Allow: INVITE, ACK, BYE, CANCEL, UPDATE, OPTIONS\r\nSupported: timer\r\n\
         Session-Expires: 1800;refresher=uac\r\n\
         Conversation-ID: {RUN:08x}-0000-4000-9000-{user:012}\r\n\
         Contribution-ID: {RUN:08x}-0000-4000-8000-{user:012}\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        head(
            &format!("i{n:08}"),
            &format!("pf{n:08}"),
            &aor,
            "",
            &format!("5f0c6a1e{n:08}")
        ),
        sdp.len()
    )
}

/// A request in the dialog of the nth INVITE.
pub(crate) fn in_dialog(
    method: &str,
    cseq: u32,
    (n, user, device): (u32, u32, u8),
    extra: &str,
) -> String {
    let to_tag = format!(";tag=ph{n:08}");
    let aor = format!("sip:+1555{user:07}@home.example");
    format!(
        "{method} sip:+1555{user:07}@phones.home.example:5060;transport=tcp;dev={device:04} SIP/2.0\r\n\
         {}Route: <sip:mt@127.0.0.1:5070;transport=tcp;lr>\r\n\
         Route: <sip:mt@pcscf1.home.example:5060;lr>\r\nCSeq: {cseq} {method}\r\n{extra}\
         Content-Length: 0\r\n\r\n",
        head(
            &format!("{method}{n:08}"),
            &format!("pf{n:08}"),
            &aor,
            &to_tag,
            &format!("5f0c6a1e{n:08}")
        )
    )
}

/// A CANCEL of the nth INVITE.
pub(crate) fn cancel(n: u32, user: u32, device: u8) -> String {
    let aor = format!("sip:+1555{user:07}@home.example");
    format!(
        "CANCEL {aor};gr=urn:uuid:00000000-0000-1000-8000-{device:04}{user:08} SIP/2.0\r\n{}\
         Route: <sip:127.0.0.1:5070;transport=tcp;lr>\r\nCSeq: 1 CANCEL\r\nContent-Length: 0\r\n\r\n",
        head(
            &format!("i{n:08}"),
            &format!("pf{n:08}"),
            &aor,
            "",
            &format!("5f0c6a1e{n:08}")
        )
    )
}
