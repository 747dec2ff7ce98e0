//! What is known of the other parsers: where each differs from ours, on which octets, and why ours is right.
//!
//! Whether octets show a habit is decided by a grammar written here, from RFC 3261 section 25.1, not
//! by what either parser says of them; so ours cannot refuse or change what is right and blame a habit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::{Case, full_name, head_of, one_line};

/// A habit of other parsers that makes them differ from ours.
pub(super) struct Habit {
    pub(super) of: &'static [&'static str],
    /// The kinds of difference that it explains; `*` at the end stands for anything.
    pub(super) kinds: &'static [&'static str],
    /// Whether the octets show it.
    pub(super) shown: fn(&Case<'_>) -> bool,
    /// What they do, and why ours is right.
    pub(super) habit: &'static str,
    /// Nothing but the messages of `VOLLEY_TORTURE_DIR` shows it.
    pub(super) only_hostile: bool,
}

const BOTH: &[&str] = &["rsipstack", "rust-rcs-core"];
const RSIPSTACK: &[&str] = &["rsipstack"];
const RUST_RCS: &[&str] = &["rust-rcs-core"];

const fn habit(
    of: &'static [&'static str],
    kinds: &'static [&'static str],
    shown: fn(&Case<'_>) -> bool,
    habit: &'static str,
) -> Habit {
    Habit {
        of,
        kinds,
        shown,
        habit,
        only_hostile: false,
    }
}

const fn hostile(
    of: &'static [&'static str],
    kinds: &'static [&'static str],
    shown: fn(&Case<'_>) -> bool,
    habit: &'static str,
) -> Habit {
    Habit {
        of,
        kinds,
        shown,
        habit,
        only_hostile: true,
    }
}

pub(super) const HABITS: &[Habit] = &[
    habit(
        BOTH,
        &["takes BadLineEnd"],
        |case| stray_line_end(case.bytes),
        "take a CR or LF that stands alone; a line ends with both (RFC 3261 section 7), and two readers of one stream must agree where",
    ),
    habit(
        BOTH,
        &["takes BadText"],
        |case| not_ascii(case.bytes),
        "take any octet anywhere; UTF-8 stands only in comments, quoted strings, phrases and display names (section 25.1)",
    ),
    habit(
        BOTH,
        &["takes BadHeaderLine"],
        |case| bad_header_line(case.bytes),
        "take or skip lines whose name is no token, or without a colon (section 7.3.1)",
    ),
    habit(
        BOTH,
        &["takes BadRequestUri", "takes BadUri"],
        |case| {
            let uri = request_uri(case.bytes);
            // Behind the `@`: a user may hold `?`.
            !is_uri(&uri) || uri.rsplit('@').next().is_some_and(|end| end.contains('?'))
        },
        "take a Request-URI that breaks the grammar of URIs or has headers (section 19.1.1)",
    ),
    habit(
        BOTH,
        &["takes BadStartLine"],
        |case| !matches(&START_LINE, &start_line(case.bytes)),
        "take a request line that is not three words and single spaces (section 7.1)",
    ),
    habit(
        BOTH,
        &["takes BadStatus"],
        |case| !matches(&STATUS_LINE, &start_line(case.bytes)),
        "take a status that is not one of 100 to 699 (section 7.2)",
    ),
    habit(
        BOTH,
        &["takes BadVersion"],
        |case| !matches(&VERSION, &start_line(case.bytes)),
        "take a version other than 2.0 (section 7.1)",
    ),
    habit(
        BOTH,
        &["takes CSeqMethod", "takes UnknownMethod"],
        |case| cseq_names_another(case.bytes),
        "do not compare the methods of CSeq and request line, which must match (section 8.1.1.5)",
    ),
    habit(
        BOTH,
        &["takes Missing(*"],
        |case| values(case.bytes, &name_of(case.kind)).is_empty(),
        "take a message without one of the headers that each must have (section 8.1.1)",
    ),
    habit(
        BOTH,
        &["takes Duplicate(*"],
        |case| values(case.bytes, &name_of(case.kind)).len() > 1,
        "take headers twice that stand once; of two values readers disagree which counts (section 7.3.1)",
    ),
    habit(
        BOTH,
        &["takes Bad(*"],
        |case| !is_good(case.bytes, &name_of(case.kind)),
        "keep values unread that break their grammar; no dialog or transaction can rest on them (sections 8.2.2, 25.1)",
    ),
    habit(
        RSIPSTACK,
        &["takes Truncated"],
        |case| is_cut(case.bytes),
        "takes as much body as came; less than Content-Length is an error (section 18.3)",
    ),
    habit(
        RSIPSTACK,
        &["body"],
        |case| values(case.bytes, "content-length").is_empty(),
        "takes no body without Content-Length; in a datagram it extends to the end (section 18.3)",
    ),
    habit(
        RSIPSTACK,
        &["uri"],
        same_uri,
        "writes the URI anew: `%` escaped twice, addresses shortened, letters' case; a Request-URI is kept as it came (section 16.6)",
    ),
    habit(
        RSIPSTACK,
        &["what"],
        same_method,
        "takes methods in any case; they are case-sensitive (section 7.1)",
    ),
    habit(
        RSIPSTACK,
        &["header *"],
        |case| find(r"\r\n[^:\r\n]*\r\n[ \t]+:", head_of(case.bytes)),
        "loses a header whose name is folded before the colon, which HCOLON allows (section 25.1)",
    ),
    habit(
        RSIPSTACK,
        &["header *"],
        |case| find(r"^[^\r\n]*\r\n[ \t]", head_of(case.bytes)),
        "loses the first header if its line begins with a blank, which ours takes as it takes other blanks at the ends",
    ),
    habit(
        BOTH,
        &["takes TooLarge"],
        |case| {
            lines(case.bytes)
                .iter()
                .any(|line| line.len() > 16 * 1024 - 8)
        },
        "have no limit; a line has one here, as every length that a peer chooses",
    ),
    hostile(
        RSIPSTACK,
        &["refuses"],
        |case| {
            !find(
                "^(?:INVITE|ACK|BYE|CANCEL|OPTIONS|REGISTER|MESSAGE|NOTIFY|SUBSCRIBE|UPDATE|INFO|PRACK|PUBLISH|REFER) ",
                case.bytes,
            )
        },
        "refuses methods it does not know; that is an answer of 405 or 501, not a syntax error (section 8.2.1)",
    ),
    hostile(
        RSIPSTACK,
        &["refuses"],
        |case| find(r"@?\[", request_uri(case.bytes)),
        "reads IPv6 addresses of the Request-URI at once; whether it can be served is decided after parsing (section 8.2.2.1)",
    ),
    habit(
        RSIPSTACK,
        &["refuses"],
        |case| find(r"(?i);transport=", request_uri(case.bytes)),
        "refuses transports it does not know; `other-transport` is any token (section 25.1)",
    ),
    habit(
        BOTH,
        &["refuses"],
        |case| !matches(&UPPER_VERSION, &start_line(case.bytes)),
        "know SIP only in upper case; the version in a start line has no case (section 7.1)",
    ),
    hostile(
        RUST_RCS,
        &["refuses"],
        |case| start_line(case.bytes).ends_with(' '),
        "refuses blanks at the end of a start line, which may be taken (RFC 4475 section 3.1.2.10)",
    ),
    habit(
        BOTH,
        &["refuses"],
        |case| !find(r"\r\n\r\n", case.bytes),
        "refuse a datagram that ends after a header line; ours serves it, as the field does (RFC 4475 section 3.3 is silent)",
    ),
    habit(
        RUST_RCS,
        &["header *", "refuses", "body", "panics"],
        |case| find(r"\r\n ", head_of(case.bytes)),
        "knows only HT as a fold: a line that begins with SP is another header or none (section 7.3.1)",
    ),
    habit(
        RUST_RCS,
        &["refuses"],
        |case| {
            !find(
                r"(?i)\r\ncontent-length[ \t]*:[ \t]*[0-9]+[ \t]*\r\n",
                head_of(case.bytes),
            )
        },
        "demands Content-Length in full of a datagram, too (sections 7.3.3, 20.14: `l` is the same, and only a stream needs it)",
    ),
    habit(
        RUST_RCS,
        &["refuses"],
        |case| {
            values(case.bytes, "content-type")
                .iter()
                .any(|value| find("^(?i:message|multipart) ?/", value))
        },
        "takes bodies of messages and parts apart at once; a body is opaque to the parser (section 7.4)",
    ),
    habit(
        RUST_RCS,
        &["panics"],
        |case| {
            !values(case.bytes, "content-type")
                .iter()
                .any(|v| find(r"^[A-Za-z]+/[A-Za-z]", v))
        },
        "panics at a body without a type; a peer's octets must not end a server",
    ),
];

// --- the grammar ---------------------------------------------------------------------------------

const TOKEN: &str = r"[A-Za-z0-9\-.!%*_+`'~]+";
const HOST: &str = r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-.]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])";
const QUOTED: &str = r#""(?:[^"\\]|\\.)*""#;
const SIP_URI_TEXT: &str = r"(?i:sips?):(?:(?:[A-Za-z0-9\-_.!~*'()&=+$,;?/]|%[0-9A-Fa-f]{2})+(?::(?:[A-Za-z0-9\-_.!~*'()&=+$,]|%[0-9A-Fa-f]{2})*)?@)?HOST(?::[0-9]{1,5})?(?:;PCHAR+(?:=PCHAR+)?)*(?:\?(?:[A-Za-z0-9\-_.!~*'()\[\]/?:+$=&]|%[0-9A-Fa-f]{2})+)?";
const PCHAR: &str = r"(?:[A-Za-z0-9\-_.!~*'()\[\]/:&+$]|%[0-9A-Fa-f]{2})";
const PARAMS: &str = r"(?: ?; ?TOKEN(?: ?= ?(?:TOKEN|HOST|QUOTED))?)*";

fn grammar(text: &str) -> Regex {
    let text = text.replace("PARAMS", PARAMS);
    let text = text
        .replace("TOKEN", TOKEN)
        .replace("HOST", HOST)
        .replace("QUOTED", QUOTED);
    let text = text.replace("PCHAR", PCHAR);
    Regex::new(&format!("(?-u)^(?:{text})$")).expect("a grammar of ours")
}

static SIP_URI: LazyLock<Regex> = LazyLock::new(|| grammar(SIP_URI_TEXT));
/// Of schemes other than SIP's only the characters count.
static OTHER_URI: LazyLock<Regex> =
    LazyLock::new(|| grammar(r"[A-Za-z][A-Za-z0-9+\-.]*:[A-Za-z0-9\-_.!~*'();/?:@&=+$,%#\[\]]+"));
static START_LINE: LazyLock<Regex> = LazyLock::new(|| {
    grammar(r"TOKEN [^\x00-\x20]+ SIP/[0-9]+\.[0-9]+ *|SIP/[0-9]+\.[0-9]+ [0-9]+(?: .*)?")
});
static STATUS_LINE: LazyLock<Regex> = LazyLock::new(|| grammar(r"SIP/2\.0 [1-6][0-9]{2}(?: .*)?"));
static VERSION: LazyLock<Regex> = LazyLock::new(|| grammar(r".* (?i:SIP)/2\.0 *|(?i:SIP)/2\.0 .*"));
static UPPER_VERSION: LazyLock<Regex> = LazyLock::new(|| grammar(r".* SIP/2\.0 *|SIP/2\.0 .*"));
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
    grammar(r"(?:(?:QUOTED|(?:TOKEN ?)*) ?<(?P<in>[^<>]*)>|(?P<bare>[^<>;,? ]+))PARAMS")
});
static VIA: LazyLock<Regex> = LazyLock::new(|| {
    let one = r"(?i:SIP) ?/ ?2\.0 ?/ ?TOKEN HOST(?: ?: ?[0-9]{1,5})?PARAMS";
    grammar(&format!("{one}(?: ?, ?{one})*"))
});
static CSEQ: LazyLock<Regex> = LazyLock::new(|| grammar("[0-9]+ TOKEN"));
static CALL_ID: LazyLock<Regex> = LazyLock::new(|| {
    grammar(
        r#"[A-Za-z0-9\-.!%*_+`'~()<>:\\"/\[\]?{}]+(?:@[A-Za-z0-9\-.!%*_+`'~()<>:\\"/\[\]?{}]+)?"#,
    )
});

fn matches(grammar: &Regex, text: &str) -> bool {
    grammar.is_match(text.as_bytes())
}

thread_local! {
    static PATTERNS: RefCell<BTreeMap<&'static str, Regex>> = const { RefCell::new(BTreeMap::new()) };
}

fn find(pattern: &'static str, text: impl AsRef<[u8]>) -> bool {
    PATTERNS.with_borrow_mut(|known| {
        let regex = known
            .entry(pattern)
            .or_insert_with(|| Regex::new(&format!("(?-u){pattern}")).expect("a pattern of ours"));
        regex.is_match(text.as_ref())
    })
}

fn is_uri(text: &str) -> bool {
    let sip = find("^(?i:sips?):", text);
    matches(if sip { &SIP_URI } else { &OTHER_URI }, text)
}

fn is_address(value: &str) -> bool {
    ADDRESS.captures(value.as_bytes()).is_some_and(|parts| {
        let uri = parts.name("in").or_else(|| parts.name("bare"));
        uri.is_some_and(|uri| is_uri(&String::from_utf8_lossy(uri.as_bytes())))
    })
}

/// Whether each value of a header keeps its grammar and range.
fn is_good(bytes: &[u8], name: &str) -> bool {
    let up_to = |value: &str, most: u64| value.parse().is_ok_and(|n: u64| n <= most);
    values(bytes, name).iter().all(|value| match name {
        "via" => matches(&VIA, value),
        "from" | "to" => is_address(value) && !find(r";\s*tag\b.*;\s*tag\b", value),
        "call-id" => matches(&CALL_ID, value),
        "cseq" => {
            matches(&CSEQ, value) && up_to(value.split(' ').next().unwrap_or(""), (1 << 31) - 1)
        }
        "max-forwards" => up_to(value, 255),
        "content-length" => up_to(value, u64::from(u32::MAX)),
        "expires" => find("^[0-9]+$", value),
        _ => true,
    })
}

// --- lines, without the help of any parser -------------------------------------------------------

fn lines(bytes: &[u8]) -> Vec<String> {
    let begin = bytes
        .iter()
        .take_while(|one| matches!(one, b'\r' | b'\n'))
        .count();
    let head = String::from_utf8_lossy(head_of(&bytes[begin..])).into_owned();
    let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    head.split("\r\n")
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

fn start_line(bytes: &[u8]) -> String {
    lines(bytes).into_iter().next().unwrap_or_default()
}

fn request_uri(bytes: &[u8]) -> String {
    start_line(bytes).split(' ').nth(1).unwrap_or("").to_owned()
}

fn values(bytes: &[u8], name: &str) -> Vec<String> {
    let lines = lines(bytes);
    let pairs = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let of_name = pairs.filter(|(left, _)| full_name(left.trim()) == name);
    of_name
        .map(|(_, value)| one_line(value.as_bytes()))
        .collect()
}

/// `takes Bad(CallId)` is about `call-id`.
fn name_of(kind: &str) -> String {
    let inner = kind.split(['(', ')']).nth(1).unwrap_or("");
    if inner == "CSeq" {
        return "cseq".to_owned();
    }
    let mut name = String::new();
    for (at, letter) in inner.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn stray_line_end(bytes: &[u8]) -> bool {
    find(r"\r[^\n]|[^\r]\n|^\n|\r$|\x00", head_of(bytes))
}

fn not_ascii(bytes: &[u8]) -> bool {
    find(r"[^\x20-\x7e\r\n\t]", head_of(bytes))
}

fn bad_header_line(bytes: &[u8]) -> bool {
    let lines = lines(bytes);
    let bad = |line: &String| !find(r"^[A-Za-z0-9\-.!%*_+`'~]+[ \t]*:", line);
    lines.iter().skip(1).any(bad) || find(r"^[^\r\n]*\r\n[ \t]", head_of(bytes))
}

fn cseq_names_another(bytes: &[u8]) -> bool {
    let method = start_line(bytes).split(' ').next().unwrap_or("").to_owned();
    values(bytes, "cseq")
        .iter()
        .any(|value| value.split(' ').nth(1) != Some(&method))
}

fn is_cut(bytes: &[u8]) -> bool {
    let begin = bytes
        .iter()
        .take_while(|one| matches!(one, b'\r' | b'\n'))
        .count();
    let head = head_of(&bytes[begin..]).len() + begin;
    let body = bytes.len().saturating_sub(head + 2);
    values(bytes, "content-length")
        .iter()
        .any(|value| value.parse().is_ok_and(|n: usize| n > body))
}

/// Ours is the very text of the request line.
fn same_uri(case: &Case<'_>) -> bool {
    case.ours
        .is_some_and(|ours| ours.uri == request_uri(case.bytes))
}

fn same_method(case: &Case<'_>) -> bool {
    let (Some(ours), Some(theirs)) = (case.ours, case.theirs) else {
        return false;
    };
    start_line(case.bytes).starts_with(&format!("{} ", ours.what))
        && ours.what.eq_ignore_ascii_case(&theirs.what)
}
