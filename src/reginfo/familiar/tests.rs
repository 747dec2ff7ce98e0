use super::*;
use crate::base::entropy::Jitter;
use crate::base::shape::tests::scribbled;
use crate::reginfo::document::tests::{TWO_DEVICES, said};

const ONE: &str = "<?xml version=\"1.0\"?>\r\n\
    <reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" \
    version=\"41\" state=\"partial\"><registration aor=\"sip:+15550100@home.example\" id=\"r1\" \
    state=\"active\"><contact id=\"c1\" state=\"active\" event=\"refreshed\" expires=\"3599\" \
    duration-registered=\"17\" callid=\"a8f3@192.0.2.1\" cseq=\"12\" q=\"0.5\">\
    <uri>sip:+15550100@192.0.2.1:5060</uri>\
    <unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:00000000-0000-1000-8000-000A95A0E128&gt;\"\
    </unknown-param>\
    <unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.deferred\"\
    </unknown-param>\
    <gr:pub-gruu uri=\"sip:+15550100@home.example;gr=urn:uuid:00000000-0000-1000-8000-000A95A0E128\"/>\
    <gr:temp-gruu uri=\"sip:t7f3qp@home.example;gr\" first-cseq=\"9\"/></contact></registration></reginfo>";

fn with(old: &str, new: &str) -> String {
    assert!(ONE.contains(old), "{old}");
    ONE.replacen(old, new, 1)
}

fn samples() -> Vec<Vec<u8>> {
    let texts = [
        ONE.to_owned(),
        with("version=\"41\"", "version=\"0\""),
        with(" expires=\"3599\"", ""),
        with("<registration", "<!-- a note --><registration"),
        with("<uri>sip:", "<uri> sip:"),
        with("event=\"refreshed\"", "event=\"expired\""),
        with("&lt;urn:", "urn:").replacen("128&gt;", "128", 1),
        with(
            "</registration>",
            "</registration><x contact=\"7\" uri=\"u\"/>",
        ),
    ];
    let mut all: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    all.push(TWO_DEVICES.to_vec());
    all
}

/// A memory of this sample alone.
fn knows(sample: &[u8]) -> Documents {
    let mut documents = Documents::new();
    documents.read(sample, &mut Document::new()).unwrap();
    documents
}

fn recalls(documents: &mut Documents, bytes: &[u8]) -> Option<Document> {
    let mut document = Document::new();
    let noted = documents.0.recall(bytes)?;
    noted.restore(bytes, &mut document).then_some(document)
}

// Proves: REG-6
#[test]
fn what_is_recalled_is_what_reading_would_say_whatever_octets_changed() {
    let mut dice = Jitter::new(6);
    for sample in samples() {
        let mut documents = knows(&sample);
        let (mut taken, mut fresh) = (0, Document::new());
        for _ in 0..20_000 {
            let bytes = scribbled(&mut dice, &sample, 0..sample.len());
            let Some(recalled) = recalls(&mut documents, &bytes) else {
                // A memory that misses falls asleep.
                documents = knows(&sample);
                continue;
            };
            taken += 1;
            let verdict = fresh.parse(&bytes);
            let readable = String::from_utf8_lossy(&bytes);
            assert_eq!(said(&recalled, Ok(())), said(&fresh, verdict), "{readable}");
        }
        let readable = String::from_utf8_lossy(&sample);
        assert!(taken > 1_000, "{taken} of\n{readable}");
    }
}

#[test]
fn other_names_and_numbers_are_recalled() {
    let mut documents = knows(ONE.as_bytes());
    let other = ONE
        .replace("+15550100", "+49151234")
        .replace("\"41\"", "\"99\"")
        .replace("\"3599\"", "\"0000\"")
        .replace("\"17\"", "\"86\"")
        .replace("a8f3@192.0.2.1", "Zz09@198.5.1.7")
        .replace("000A95A0E128", "77D0B5C12F4E")
        .replace("t7f3qp", "q1w2e3");
    let recalled = recalls(&mut documents, other.as_bytes()).expect("it has the same shape");
    assert_eq!(recalled.version, 99);
    let contact = recalled.contacts[0];
    assert_eq!(
        (contact.expires_s, contact.duration_registered_s),
        (Some(0), Some(86))
    );
    assert_eq!(
        recalled.text(contact.instance),
        b"urn:uuid:00000000-0000-1000-8000-77D0B5C12F4E"
    );
    assert_eq!(
        recalled.text(recalled.params[0].value),
        b"\"<urn:uuid:00000000-0000-1000-8000-77D0B5C12F4E>\""
    );
}

#[test]
fn what_means_something_else_is_read() {
    for (old, new) in [
        ("state=\"active\"><contact", "state=\"activf\"><contact"),
        ("refreshed", "registere"),
        ("q=\"0.5\"", "q=\"0.6\""),
        ("cpm.deferred", "cpm.defer%65"),
        ("&lt;urn", "&gt;urn"),
        ("17\" callid", "1x\" callid"),
        ("gr:pub-gruu", "gr:pub-grux"),
        ("a8f3@", "a8&3@"),
    ] {
        let text = with(old, new);
        assert!(
            recalls(&mut knows(ONE.as_bytes()), text.as_bytes()).is_none(),
            "{new}"
        );
    }
    // What had to be decoded, and what stands under a prefix, is not kept at all.
    for text in [
        with("id=\"r1\"", "id=\"r&#49;\""),
        ONE.replace("<contact", "<p:contact")
            .replace("</contact", "</p:contact")
            .replace(
                "<reginfo",
                "<reginfo xmlns:p=\"urn:ietf:params:xml:ns:reginfo\"",
            ),
    ] {
        let mut documents = Documents::new();
        documents
            .read(text.as_bytes(), &mut Document::new())
            .unwrap();
        assert!(recalls(&mut documents, text.as_bytes()).is_none(), "{text}");
    }
}
