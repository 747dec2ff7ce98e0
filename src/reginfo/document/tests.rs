use quick_xml::events::Event as Quick;

use super::*;

pub(crate) const TWO_DEVICES: &[u8] = include_bytes!("../cases/two_devices.xml");
const HEAD: &str = "xmlns=\"urn:ietf:params:xml:ns:reginfo\" \
     xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\"";

fn one(contact: &str) -> String {
    format!(
        "<reginfo {HEAD} version=\"7\" state=\"full\"><registration aor=\"sip:a@h\" id=\"r\" \
         state=\"active\">{contact}</registration></reginfo>"
    )
}

fn parse(text: &str) -> Result<Document, ReginfoErrorKind> {
    let mut document = Document::new();
    document
        .parse(text.as_bytes())
        .map_err(|error| error.kind)?;
    Ok(document)
}

fn text(document: &Document, span: Text) -> &str {
    core::str::from_utf8(document.text(span)).unwrap()
}

// Proves: REG-6
#[test]
fn reads_every_row_a_push_needs() {
    let mut document = Document::new();
    document.parse(TWO_DEVICES).unwrap();
    assert_eq!((document.version, document.state), (0, DocumentState::Full));
    let aors: Vec<_> = document
        .registrations
        .iter()
        .map(|row| text(&document, row.aor))
        .collect();
    assert_eq!(aors, ["sip:+15550100@ims.example.net", "tel:+15550100"]);
    assert_eq!(document.contacts.len(), 4);
    let contact = &document.contacts_of(&document.registrations[1])[1];
    assert_eq!(text(&document, contact.id), "c4");
    assert_eq!(
        text(&document, contact.uri),
        "sip:+15550100@203.0.113.9:5061;transport=tcp"
    );
    assert_eq!(
        text(&document, contact.pub_gruu.unwrap()),
        "sip:+15550100@ims.example.net;user=phone;gr=urn:uuid:2ad8950e-48a5-4a74-8d99-ad76cc7fc74c"
    );
    assert_eq!(contact.event, Some(ContactEvent::Created));
    assert_eq!(
        (contact.expires_s, contact.duration_registered_s),
        (Some(3514), Some(86))
    );
    assert_eq!(text(&document, contact.cseq), "7");
    let params: Vec<_> = document.params_of(contact).collect();
    assert_eq!(params[0].0, b"+sip.instance");
    assert_eq!(
        params[0].1,
        b"\"<urn:uuid:2ad8950e-48a5-4a74-8d99-ad76cc7fc74c>\""
    );
    assert_eq!(params.len(), 2);
}

// Proves: REG-1
#[test]
fn namespaces_decide_and_prefixes_do_not() {
    let swapped = one("<contact id=\"1\" state=\"active\"><gr:pub-gruu uri=\"g\"/></contact>")
        .replace("<gr:", "<zz:")
        .replace("xmlns:gr", "xmlns:zz");
    assert!(parse(&swapped).unwrap().contacts[0].pub_gruu.is_some());
    let local = one(
        "<contact id=\"1\" state=\"active\"><pub-gruu xmlns=\"urn:ietf:params:xml:ns:gruuinfo\" \
         uri=\"g\"/></contact>",
    );
    assert!(parse(&local).unwrap().contacts[0].pub_gruu.is_some());
    for ignored in [
        "<contact id=\"1\" state=\"active\"><pub-gruu uri=\"g\"/></contact>",
        "<contact id=\"1\" state=\"active\"><x:pub-gruu xmlns:x=\"other\" uri=\"g\"/></contact>",
        "<contact id=\"1\" state=\"active\"><x xmlns=\"\"><gr:pub-gruu uri=\"g\"/></x></contact>",
        "<contact id=\"1\" state=\"active\"><gr:pub-gruu xmlns:gr=\"o\" uri=\"g\"/></contact>",
    ] {
        assert!(
            parse(&one(ignored)).unwrap().contacts[0].pub_gruu.is_none(),
            "{ignored}"
        );
    }
    let encoded = one("").replace("ns:reginfo", "ns:regin&#102;o");
    assert_eq!(parse(&encoded).unwrap().registrations.len(), 1);
    let foreign = one("").replace("ns:reginfo", "ns:other");
    assert_eq!(parse(&foreign).unwrap_err(), ReginfoErrorKind::NotReginfo);
}

#[test]
fn text_is_gathered_over_entities_cdata_and_comments() {
    for (inside, want) in [
        ("sip:a@h", "sip:a@h"),
        ("\r\n  sip:a@h \t", "sip:a@h"),
        ("<![CDATA[sip:a@h]]>", "sip:a@h"),
        ("sip:<!-- x -->a<?y z?>@<![CDATA[h]]>", "sip:a@h"),
        ("sip:a&#64;&#x68;", "sip:a@h"),
        ("&lt;&gt;&amp;&quot;&apos;", "<>&\"'"),
        ("sip:a<b>c</b>@h", "sip:a@h"),
        ("a &amp; <!-- --> <![CDATA[ & ]]>", "a &   &"),
        ("", ""),
    ] {
        let contact = format!("<contact id=\"1\" state=\"active\"><uri>{inside}</uri></contact>");
        let document = parse(&one(&contact)).unwrap();
        assert_eq!(text(&document, document.contacts[0].uri), want, "{inside}");
    }
}

// Proves: REG-11, REG-12, BAD-22
#[test]
fn a_refused_document_leaves_no_row_behind() {
    let many: String = (0..65)
        .map(|n| format!("<contact id=\"{n}\" state=\"active\"/>"))
        .collect();
    let mut document = Document::new();
    document.parse(TWO_DEVICES).unwrap();
    for (bad, kind) in [
        (one(&many), ReginfoErrorKind::Limit),
        (one("<contact id=\"1\"/>"), ReginfoErrorKind::Value),
        (one("<contact state=\"active\"/>"), ReginfoErrorKind::Value),
        (
            one("<contact id=\"1\" state=\"on\"/>"),
            ReginfoErrorKind::Value,
        ),
        (
            one("<contact id=\"1\" state=\"active\" expires=\"-1\"/>"),
            ReginfoErrorKind::Value,
        ),
        (one("").replace("\"7\"", "\"-7\""), ReginfoErrorKind::Value),
        (
            one("").replace("\"7\"", "\"18446744073709551616\""),
            ReginfoErrorKind::Value,
        ),
        (
            one("").replace("\"full\"", "\"most\""),
            ReginfoErrorKind::Value,
        ),
        (one("").replace("id=\"r\"", ""), ReginfoErrorKind::Value),
        (
            one("<contact id=\"1\" state=\"active\"></contact"),
            ReginfoErrorKind::Syntax,
        ),
    ] {
        assert_eq!(
            document.parse(bad.as_bytes()).unwrap_err().kind,
            kind,
            "{bad}"
        );
        assert!(document.contacts.is_empty() && document.registrations.is_empty());
    }
    let utf16: Vec<u8> = "\u{feff}<a/>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(
        document.parse(&utf16).unwrap_err().kind,
        ReginfoErrorKind::Encoding
    );
    document.parse(TWO_DEVICES).unwrap();
    assert_eq!(document.contacts.len(), 4);
}

#[test]
fn quality_values_are_thousandths() {
    for (value, want) in [
        ("1", 1000),
        ("1.0", 1000),
        ("0.7", 700),
        ("0.05", 50),
        ("0.125", 125),
        ("0", 0),
        ("1.5", 1000),
        ("x", 1000),
        ("0.1234", 1000),
    ] {
        assert_eq!(quality(value.as_bytes()), want, "{value}");
    }
}

/// Whether quick-xml finds the document well-formed, as far as it checks that.
fn second_opinion(bytes: &[u8]) -> bool {
    let mut reader = quick_xml::Reader::from_reader(bytes);
    reader.config_mut().check_comments = true;
    let mut buffer = Vec::new();
    let mut depth = 0usize;
    loop {
        match reader.read_event_into(&mut buffer) {
            Err(_) => return false,
            Ok(Quick::Eof) => return depth == 0,
            Ok(Quick::Start(tag)) => {
                depth += 1;
                if tag.attributes().any(|attribute| attribute.is_err()) {
                    return false;
                }
            }
            Ok(Quick::Empty(tag)) => {
                if tag.attributes().any(|attribute| attribute.is_err()) {
                    return false;
                }
            }
            Ok(Quick::End(_)) => depth = depth.saturating_sub(1),
            Ok(_) => {}
        }
        buffer.clear();
    }
}

// Proves: BAD-22
#[test]
fn mutated_documents_never_panic_and_nothing_malformed_is_taken() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % bound as u64).unwrap()
    };
    let fragments: [&[u8]; 14] = [
        b"<",
        b">",
        b"&",
        b"\"",
        b"]]>",
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"&#x41;",
        b"/>",
        b"</",
        b"<?",
        b"\xff",
        b"xmlns=\"\"",
    ];
    let mut document = Document::new();
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = TWO_DEVICES.to_vec();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(5) {
                0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                1 => bytes.truncate(at),
                2 => drop(bytes.splice(at..at, fragments[next(fragments.len())].iter().copied())),
                3 => drop(bytes.drain(at..(at + next(40)).min(TWO_DEVICES.len()).min(at + 1))),
                _ => bytes[at] = bytes[at].wrapping_add(1),
            }
            if bytes.is_empty() {
                bytes.push(b'<');
            }
        }
        if document.parse(&bytes).is_ok() {
            accepted += 1;
            assert!(
                second_opinion(&bytes),
                "{}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
    assert!(accepted > 1000 && accepted < 19_000, "{accepted}");
}

// Proves: REG-11, BAD-22
#[test]
fn hostile_corpus_gets_the_verdicts_of_its_index() {
    let Some(directory) = option_env_dir() else {
        println!("skipped: VOLLEY_TORTURE_DIR is not set");
        return;
    };
    let index = std::fs::read_to_string(directory.join("INDEX-own.tsv")).unwrap();
    let mut seen = 0;
    for line in index.lines().filter(|line| line.starts_with("own-reginfo")) {
        let columns: Vec<_> = line.split('\t').collect();
        let (name, verdict, expect) = (columns[1], columns[5], columns[6]);
        let bytes = std::fs::read(directory.join("own-reginfo").join(name)).unwrap();
        let mut document = Document::new();
        let parsed = document.parse(&bytes).is_ok();
        // "reject" of a GRUU is the registry's verdict: the document itself is sound.
        let must_refuse = verdict == "reject" && !name.starts_with("gruu-");
        if must_refuse {
            assert!(!parsed, "{name}: {expect}");
        } else if verdict != "either" {
            assert!(parsed, "{name}: {expect}");
        }
        seen += 1;
    }
    assert_eq!(seen, 41);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the corpus is not part of the repository"
)]
fn option_env_dir() -> Option<std::path::PathBuf> {
    std::env::var("VOLLEY_TORTURE_DIR")
        .ok()
        .map(std::path::PathBuf::from)
}

/// What a document says, in full.
pub(crate) fn said(document: &Document, verdict: Result<(), ReginfoError>) -> String {
    let mut out = format!("{verdict:?} {} {:?}\n", document.version, document.state);
    for registration in &document.registrations {
        let (aor, id) = (
            text(document, registration.aor),
            text(document, registration.id),
        );
        out += &format!("{aor} {id} {:?}\n", registration.state);
        for contact in document.contacts_of(registration) {
            let part = |span| text(document, span);
            out += &format!(
                "  {} {:?} {:?} {:?} {:?} {} {} {} {} {} {:?} {}\n",
                part(contact.id),
                contact.state,
                contact.event,
                contact.expires_s,
                contact.duration_registered_s,
                contact.q,
                part(contact.call_id),
                part(contact.cseq),
                part(contact.uri),
                part(contact.instance),
                contact.pub_gruu.map(part),
                contact.has_temp_gruu,
            );
            for row in document.param_rows_of(contact) {
                out += &format!(
                    "    {} {} {:?}\n",
                    part(row.name),
                    part(row.value),
                    row.kind
                );
            }
        }
    }
    out
}

/// Documents of the usual form and just beside it.
fn near_usual() -> Vec<String> {
    let contact = "<contact id=\"1\" state=\"active\" event=\"registered\" expires=\"7\" q=\"0.5\" \
         duration-registered=\"3\" callid=\"a@b\" cseq=\"1\"><uri> sip:a@h </uri>\
         <unknown-param name=\"+sip.instance\">\"&lt;urn:x&gt;\"</unknown-param>\
         <unknown-param name=\"audio\"/>\
         <gr:temp-gruu uri=\"sip:t@h;gr\" first-cseq=\"5\"/>\
         <gr:pub-gruu uri=\"sip:a@h;gr=1\"/></contact>";
    let mut all = vec![one(contact), one(&format!("{contact}\n\t {contact}"))];
    for (from, to) in [
        (" id=", " id=\"0\" id="),
        ("active\" event", "passive\" event"),
        ("\"7\"", "\"7x\""),
        ("\"7\"", "'7'"),
        ("a@b", "a&amp;b"),
        ("a@b", "a<b"),
        ("a@b", ""),
        (" cseq", "  cseq"),
        ("\"1\"><uri", "\"1\" ><uri"),
        ("<uri>", "<uri x=\"1\">"),
        ("<uri>", "<uri xmlns=\"other\">"),
        ("</uri>", "</uri ></uri>"),
        ("</uri>", "</uri >"),
        ("sip:a@h ", "sip:a@h&amp; "),
        ("sip:a@h ", "<!-- c -->sip:a@h"),
        ("&lt;urn:x", "&lt;<b/>urn:x"),
        ("&lt;urn:x&gt;", "&lt;urn:x&gt"),
        ("&lt;urn:x&gt;", "&lt;&gt;"),
        ("\"&lt;urn:x&gt;\"", " &lt;urn:y&gt; "),
        ("\"&lt;urn:x&gt;\"", "urn:y"),
        ("+sip.instance", "+SIP.Instance"),
        (
            "<unknown-param name=\"audio\"/>",
            "<unknown-param name=\"+sip.instance\"/>",
        ),
        (
            "<unknown-param name=\"audio\"/>",
            "<unknown-param name=\"a\">x]]></unknown-param>",
        ),
        ("<gr:temp", "<gx:temp"),
        ("<gr:pub", "<pub"),
        ("</contact>", "</contact"),
        ("<contact", "<contact xmlns:gr=\"other\""),
        (
            "event=\"registered\"",
            "event=\"unheard-of\" retry-after=\"5\"",
        ),
        ("aor=", "aor=\"\" aor="),
        ("aor=\"sip:a@h\"", ""),
        (" state=\"active\">", " state=\"active\" xmlns=\"other\">"),
        ("<registration", "<other/><registration"),
        ("<reginfo", "<reginfo xmlns:gr=\"other\""),
        ("<reginfo", "<reginfo xmlns:x=\"a\" xmlns:y=\"b\""),
        ("<reginfo", "<reginfo xmlns:x=\"other\""),
        ("<reginfo", "<!-- c --><reginfo"),
        ("<reginfo", "<?xml version=\"1.0\"?>\n<reginfo"),
        ("xmlns=", "xmlns:p="),
        ("version=\"7\"", "version=\" 7\""),
        ("version=\"7\"", "version=\"7\" version=\"8\""),
        ("version=\"7\"", ""),
        ("\"full\"", "\"partial\""),
        ("\"full\"", "\"empty\""),
        ("expires=\"7\"", "expires=\"4294967296\""),
        ("expires=\"7\"", "expires=\"\""),
        ("registered=\"3\"", "registered=\"3s\""),
        ("sip:a@h;gr=1", "sip:a@h;gr=urn:x"),
        ("sip:a@h;gr=1", "sip:a@h;gr=urn:x&amp;"),
        ("sip:a@h;gr=1", "sip:a@h;gr=urn:xy"),
        (
            "</reginfo>",
            "</reginfo><reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"1\" state=\"full\"></reginfo>",
        ),
    ] {
        let base = one(contact);
        assert!(base.contains(from), "{from}");
        all.push(base.replacen(from, to, 1));
    }
    all
}

// Proves: REG-6, REG-11, BAD-22
#[test]
fn the_quick_reader_says_what_the_careful_one_says() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % bound as u64).unwrap()
    };
    let mut quick = Document::new();
    let mut careful = Document::new();
    careful.careful = true;
    let mut compare = |bytes: &[u8]| {
        let verdict = quick.parse(bytes);
        let quickly = said(&quick, verdict);
        let verdict = careful.parse(bytes);
        // Where a fault stands may be told differently; that it is one may not.
        let carefully = said(&careful, verdict);
        assert_eq!(quickly, carefully, "{}", String::from_utf8_lossy(bytes));
        verdict.is_ok()
    };
    let mut bases: Vec<Vec<u8>> = near_usual().into_iter().map(String::into_bytes).collect();
    bases.push(TWO_DEVICES.to_vec());
    for base in &bases {
        compare(base);
    }
    let pieces: [&[u8]; 12] = [
        b"<",
        b">",
        b"&",
        b"\"",
        b" ",
        b"&lt;",
        b"/>",
        b"<uri>",
        b"</contact>",
        b"]]>",
        b"x:",
        b"'",
    ];
    let (mut taken, rounds) = (0, 30_000);
    for round in 0..rounds {
        let mut bytes = bases[round % bases.len()].clone();
        for _ in 0..=next(2) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = u8::try_from(next(128)).unwrap(),
                1 => drop(bytes.splice(at..at, pieces[next(pieces.len())].iter().copied())),
                2 => drop(bytes.drain(at..(at + 1 + next(12)).min(bytes.len()))),
                _ => {
                    let from = next(bytes.len());
                    let piece = bytes[from..(from + next(60)).min(bytes.len())].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
            }
            if bytes.is_empty() {
                bytes.push(b'<');
            }
        }
        taken += usize::from(compare(&bytes));
    }
    assert!(taken > rounds / 20 && taken < rounds, "{taken}");
}

#[test]
fn the_usual_form_is_read_quickly() {
    let mut document = Document::new();
    document.parse(TWO_DEVICES).unwrap();
    // Equal long texts are one only if the quick reader took them.
    let icsi: Vec<_> = document
        .params
        .iter()
        .filter(|row| row.kind == ParamKind::IcsiRef)
        .map(|row| row.value)
        .collect();
    assert_eq!(icsi.len(), 4);
    assert!(icsi.iter().all(|value| *value == icsi[0]));
}
