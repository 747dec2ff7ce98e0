use super::*;

fn kinds(document: &str) -> Result<usize, ReginfoErrorKind> {
    let mut scanner = Scanner::new(document.as_bytes()).map_err(|error| error.kind)?;
    let mut attributes = Attributes::default();
    let mut events = 0;
    loop {
        match scanner
            .next(&mut attributes, true)
            .map_err(|error| error.kind)?
        {
            Event::Finish => return Ok(events),
            Event::Start { .. } | Event::End | Event::Text { .. } => events += 1,
        }
    }
}

// Proves: REG-11, BAD-22
#[test]
fn refuses_what_is_not_well_formed() {
    use ReginfoErrorKind::{Doctype, Encoding, Limit, Syntax};
    let deep = "<a>".repeat(17) + &"</a>".repeat(17);
    let long = format!("<a b=\"{}\"/>", "x".repeat(ATTRIBUTE_BYTES_MAX + 1));
    let many: String = (0..33).map(|n| format!(" a{n}=\"\"")).collect();
    let huge = format!("<a>{}</a>", " ".repeat(REGINFO_BYTES_MAX));
    for (document, want) in [
        ("", Syntax),
        ("   ", Syntax),
        ("text", Syntax),
        ("<a>", Syntax),
        ("<a></b>", Syntax),
        ("<a></aa>", Syntax),
        ("<aa></a>", Syntax),
        ("<a><b></a></b>", Syntax),
        ("<a/><b/>", Syntax),
        ("<a/>text", Syntax),
        ("<a b=\"1\" b=\"2\"/>", Syntax),
        ("<a b=1/>", Syntax),
        ("<a b/>", Syntax),
        ("<a b=\"1\"c=\"2\"/>", Syntax),
        ("<a b=\"<\"/>", Syntax),
        ("<a b=\"&x;\"/>", Syntax),
        ("<a>&x;</a>", Syntax),
        ("<a>&</a>", Syntax),
        ("<a>&#0;</a>", Syntax),
        ("<a>&#xD800;</a>", Syntax),
        ("<a>&#xFFFE;</a>", Syntax),
        ("<a>&#99999999999;</a>", Syntax),
        ("<a>]]></a>", Syntax),
        ("<a><!-- -- --></a>", Syntax),
        ("<a><!-- </a>", Syntax),
        ("<a><![CDATA[x</a>", Syntax),
        ("<![CDATA[x]]><a/>", Syntax),
        ("<a><?xml version=\"1.0\"?></a>", Syntax),
        (" <?xml version=\"1.0\"?><a/>", Syntax),
        ("<a>\u{0}</a>", Syntax),
        ("<a>\u{1b}</a>", Syntax),
        ("<a>\u{ffff}</a>", Syntax),
        ("<1/>", Syntax),
        ("<", Syntax),
        ("</a>", Syntax),
        ("<!DOCTYPE a><a/>", Doctype),
        ("<a><!ENTITY b \"c\"></a>", Doctype),
        (
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a/>",
            Encoding,
        ),
        (&deep, Limit),
        (&long, Limit),
        (&format!("<a{many}/>"), Limit),
        (&huge, Limit),
    ] {
        assert_eq!(
            kinds(document),
            Err(want),
            "{}",
            &document[..document.len().min(80)]
        );
    }
}

#[test]
fn takes_every_legal_shape() {
    for document in [
        "<a/>",
        "<a ></a >",
        "\u{feff}<?xml version='1.0' encoding='utf-8'?>\r\n<a/>\r\n",
        "<?x y?><!-- c --><a><?x ?><!----></a><!-- - - -->",
        "<a b = '\"' c=\"'\">&lt;&#65;&#x41;<![CDATA[<&]] >]]>]] ></a>",
        "<p:a xmlns:p=\"x\">\u{e9}\u{1f600}</p:a>",
    ] {
        assert!(kinds(document).is_ok(), "{document}");
    }
}

#[test]
fn an_error_says_where() {
    let error = Scanner::new(b"<a>\x01</a>").unwrap_err();
    assert_eq!(error.at, 3);
    let error = Scanner::new(b"<a>\xc0\xaf</a>").unwrap_err();
    assert_eq!((error.kind, error.at), (ReginfoErrorKind::Encoding, 3));
}
