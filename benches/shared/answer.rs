//! What the benches read of an answer.

use volley::sip::message::{HeaderName, Message};

/// Every field that handling the answer to a push reads.
pub(crate) fn read_answer(message: &Message<'_>) -> usize {
    let via = message.via_top().expect("the message is sound");
    let cseq = message.cseq().expect("the message is sound");
    let contact = message
        .contact()
        .map(|contact| contact.expect("the message is sound"));
    let timer = message
        .session_expires()
        .map(|timer| timer.expect("the message is sound"));
    usize::from(message.status())
        + via.branch.map_or(0, <[u8]>::len)
        + message.via_count()
        + cseq.number as usize
        + message.to_tag().map_or(0, <[u8]>::len)
        + message.call_id().len()
        + contact.map_or(0, |contact| contact.uri.len())
        + message
            .values(HeaderName::RecordRoute)
            .map(<[u8]>::len)
            .sum::<usize>()
        + timer.map_or(0, |timer| timer.interval_s as usize)
        + usize::from(message.lists(HeaderName::Allow, b"UPDATE"))
        + usize::from(message.lists(HeaderName::Supported, b"timer"))
        + message.body().len()
}
