//! SUBSCRIBE of the engine, and its answers to REGISTER, NOTIFY and MESSAGE.

use super::{Bench, tag, via_branch};
use crate::identity::Names;
use crate::rules::Rule;
use crate::scan::{Header, Message, lists, name_addr, param, parse_number};

/// Judges a SUBSCRIBE; gives the user it is about.
pub fn subscribe(
    names: &Names,
    message: &Message<'_>,
    transport: &[u8],
    bench: &mut Bench<'_>,
) -> Option<u32> {
    via_branch(message, transport, bench);
    let to = message.value(Header::To)?;
    let (to_uri, _) = name_addr(to)?;
    let user = names.read_aor(to_uri);
    bench.demand(
        user.is_some(),
        Rule::Sub1,
        "To is no identity of this registrar",
    );
    let initial = tag(to).is_none();
    if initial {
        bench.demand(
            message.target == to_uri,
            Rule::Sub1,
            "Request-URI is not the identity in To",
        );
        let identity = message.value(Header::PAssertedIdentity).is_some();
        bench.demand(identity, Rule::Sub1, "no P-Asserted-Identity");
        bench.demand(
            message.value(Header::Route).is_some(),
            Rule::Sub1,
            "no Route to the S-CSCF",
        );
    }
    let event = message.value(Header::Event).unwrap_or(&[]);
    bench.demand(event == b"reg", Rule::Sub1, "Event is not reg");
    let accept = message.value(Header::Accept).unwrap_or(&[]);
    let accepts = lists(accept, b"application/reginfo+xml");
    bench.demand(
        accepts,
        Rule::Sub1,
        "Accept does not list application/reginfo+xml",
    );
    let expires = message.value(Header::Expires).and_then(parse_number);
    bench.demand(expires.is_some(), Rule::Sub1, "no Expires");
    let contact = message.value(Header::Contact).and_then(name_addr);
    bench.demand(contact.is_some(), Rule::Sub1, "no Contact");
    let from_tag = message.value(Header::From).and_then(tag);
    bench.demand(from_tag.is_some(), Rule::Sub1, "From without tag");
    let supported = message.value(Header::Supported).unwrap_or(&[]);
    bench.demand(
        lists(supported, b"timer"),
        Rule::PushF2,
        "Supported does not list timer",
    );
    let number = message
        .cseq()
        .is_some_and(|(_, method)| method == b"SUBSCRIBE");
    bench.demand(number, Rule::Sub1, "CSeq is not <number> SUBSCRIBE");
    user
}

/// Judges the answer to a third-party REGISTER.
pub fn register_answer(
    message: &Message<'_>,
    contact_uri: &[u8],
    expires: u32,
    bench: &mut Bench<'_>,
) {
    bench.demand(
        message.status == 200,
        Rule::Isc1,
        "REGISTER not answered 200",
    );
    if message.status != 200 {
        return;
    }
    let Some((uri, tail)) = message.value(Header::Contact).and_then(name_addr) else {
        bench.fail(Rule::Isc1, "200 to REGISTER without Contact");
        return;
    };
    bench.demand(
        uri == contact_uri,
        Rule::Isc1,
        "Contact is not the one registered",
    );
    let granted = param(tail, b"expires").and_then(parse_number);
    bench.demand(
        granted == Some(expires),
        Rule::Isc1,
        "expires is not the one asked",
    );
    let to_tag = message.value(Header::To).and_then(tag);
    bench.demand(to_tag.is_some(), Rule::Isc1, "To without tag");
}

/// Judges a 202 to a MESSAGE.
pub fn message_answer(message: &Message<'_>, bench: &mut Bench<'_>) {
    bench.demand(message.status == 202, Rule::Int2, "success other than 202");
    bench.demand(
        message.count(Header::Contact) == 0,
        Rule::Int2,
        "202 with Contact",
    );
    bench.demand(message.body.is_empty(), Rule::Int2, "202 with a body");
    let to_tag = message.value(Header::To).and_then(tag);
    bench.demand(to_tag.is_some(), Rule::Int2, "To without tag");
}
