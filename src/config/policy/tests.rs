use std::path::Path;

use super::*;
use crate::base::time::UnixMillis;
use crate::selection::rules::Ruling;
use crate::store::op::Hints;

fn read(text: &str) -> RuleBook {
    parse(Path::new("policy.toml"), text, &Base::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    parse(Path::new("policy.toml"), text, &Base::default())
        .unwrap_err()
        .to_string()
}

fn of(book: &RuleBook, identity: &str) -> Ruling {
    book.look_up([identity.as_bytes()].into_iter())
}

#[test]
fn the_example_is_a_valid_file_and_says_what_it_shows() {
    let book = read(EXAMPLE);
    assert_eq!(book.counts(), (1, 1));
    let alice = of(&book, "alice@ims.example.net");
    assert_eq!(
        book.policy(alice),
        &Base::default().policy,
        "nothing of the provider's is changed"
    );
    let wishes = book.preference(alice).unwrap();
    assert_eq!(book.preference(of(&book, "+4915123456")), Some(wishes));
    assert_eq!(wishes.quiet.len(), 2);
    assert_eq!(wishes.utc_offset_min, 60);
    assert!(!wishes.admits(device_key(b"urn:uuid:00000000-0000-1000-8000-00aa00389b71")));
    let phone = device_key(b"URN:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
    assert_eq!(wishes.priority, phone);
    assert!(
        wishes
            .limit_of(phone)
            .takes(102_400, Hints::of(b"image/png", b""))
    );
    assert!(
        !wishes
            .limit_of(phone)
            .takes(102_401, Hints::of(b"image/png", b""))
    );
    assert!(!wishes.limit_of(1).takes(1, Hints::of(b"image/png", b"")));
    let tester = of(&book, "bob@test.ims.example.net");
    assert_eq!(book.policy(tester).fanout, Fanout::First);
    assert_eq!(book.policy(tester).devices_max, 2);
    assert!(book.preference(tester).is_none());
    let line = EXAMPLE
        .lines()
        .position(|line| line == "[[override]]")
        .unwrap();
    assert_eq!(book.policy(tester).line as usize, line + 1);
}

#[test]
fn an_empty_file_changes_nothing() {
    let book = read("");
    assert!(book.is_uniform());
    assert_eq!(book.policy(Ruling::default()), &Base::default().policy);
}

#[test]
fn the_provider_section_changes_what_it_names() {
    let book = read(
        "[provider]\nstopped = true\nmax_devices = 3\nfanout = 2\nroaming = false\n\
         min_remaining_s = 60\nassume_when_silent = true\nbarred = [\"sip:eve@Host.Example\"]\n\
         accepted_icsi = [\"urn:urn-7:3gpp-service.ims.icsi.oma.cpm.SESSION\"]\n",
    );
    let own = book.policy(of(&book, "anna@host.example"));
    assert!(own.stopped && own.assume_when_silent && !own.allow_roaming && !own.barred);
    assert_eq!((own.devices_max, own.fanout), (3, Fanout::Best(2)));
    assert_eq!(own.min_remaining, Duration::from_secs(60));
    assert_eq!(own.accepted, 1 << 3);
    assert!(book.policy(of(&book, "eve@host.example")).barred);
}

#[test]
fn identities_are_taken_in_every_spelling() {
    let book = read(
        "[[preferences]]\nusers = [\"sip:+49-151@x.example;user=phone\", \"bob@X.example\", \
         \"sip:*@y.EXAMPLE\", \"tel:+1555*\"]\nmode = \"hold\"\n",
    );
    for identity in [
        "+49151",
        "bob@x.example",
        "any@y.example",
        "+1555",
        "+15551",
    ] {
        assert!(book.preference(of(&book, identity)).is_some(), "{identity}");
    }
    for identity in ["+49152", "Bob@x.example", "any@z.example", "+155"] {
        assert!(book.preference(of(&book, identity)).is_none(), "{identity}");
    }
}

#[test]
fn quiet_hours_are_read_with_their_days() {
    let book = read(
        "[[preferences]]\nusers = [\"a@x\"]\nquiet = [\"fri-mon 22:30-07:15\", \"wed 00:00-00:00\"]\n\
         utc_offset = \"-03:30\"\n",
    );
    let wishes = book.preference(of(&book, "a@x")).unwrap();
    assert_eq!(
        wishes.quiet[0],
        Quiet {
            days: 0b111_0001,
            from_min: 22 * 60 + 30,
            to_min: 7 * 60 + 15
        }
    );
    assert_eq!(wishes.quiet[1].days, 1 << 2);
    assert_eq!(wishes.utc_offset_min, -210);
    // Friday, 2026-11-27, 23:00 local time.
    let now = UnixMillis::from_secs(1_795_608_000 + 2 * 86_400 + 14 * 3600 + 30 * 60);
    let end = UnixMillis(now.0 + (8 * 60 + 15) * 60_000);
    assert_eq!(wishes.quiet_until(now), end);
}

#[test]
fn mistakes_name_file_line_key_and_remedy() {
    let table = [
        (
            "[provider]\nstoped = true\n",
            2,
            "`stoped`",
            "did you mean `stopped`?",
        ),
        (
            "[provider]\n\nfanout = \"some\"\n",
            3,
            "fanout",
            "\"first\"",
        ),
        ("[provider]\nfanout = 0\n", 2, "fanout", "1 to 64"),
        (
            "[provider]\nmax_devices = 65\n",
            2,
            "max_devices",
            "1 to 64",
        ),
        (
            "[provider]\nmin_remaining_s = 86401\n",
            2,
            "min_remaining_s",
            "86400",
        ),
        (
            "[provider]\nbarred = [\"eve\"]\n",
            2,
            "provider.barred",
            "sip:user@host",
        ),
        (
            "[provider]\nbarred = [\"sip:+49*@x\"]\n",
            2,
            "without its host",
            "+49*",
        ),
        (
            "[provider]\naccepted_icsi = [\n\"urn:x\"]\n",
            3,
            "`urn:x`",
            "identity.accepted_icsi",
        ),
        ("[[override]]\nfanout = 1\n", 1, "users", ""),
        (
            "[[override]]\nusers = []\n",
            1,
            "override.users",
            "leave the entry out",
        ),
        (
            "[[override]]\nusers = [\"a@x\"]\n[[override]]\nusers = [\"b@x\",\n\"sip:a@X\"]\n",
            5,
            "named twice",
            "in one rule",
        ),
        (
            "[[preferences]]\nusers = [\"a@x\"]\nquiet = [\"22-7\"]\n",
            3,
            "preferences.quiet",
            "22:00-07:00",
        ),
        (
            "[[preferences]]\nusers = [\"a@x\"]\nquiet = [\"24:00-07:00\"]\n",
            3,
            "preferences.quiet",
            "22:00-07:00",
        ),
        (
            "[[preferences]]\nusers = [\"a@x\"]\nutc_offset = \"CET\"\n",
            3,
            "preferences.utc_offset",
            "+01:00",
        ),
        (
            "[[preferences]]\nusers = [\"a@x\"]\nmode = \"held\"\n",
            3,
            "held",
            "",
        ),
        (
            "[[preferences]]\nusers = [\"a@x\"]\ndeny = [\"\"]\n",
            3,
            "instance",
            "+sip.instance",
        ),
        (
            "[[preferences]]\nusers = [\"a@x\"]\n[[preferences.device]]\ninstance = \"*\"\n\
             types = [\"image/png\"]\n",
            5,
            "`image/png`",
            "multipart",
        ),
        (
            "[[preferences]]\nusers = [\"a@x\"]\n[[preferences.device]]\ninstance = \"*\"\n\
             [[preferences.device]]\ninstance = \"*\"\n",
            6,
            "two entries",
            "one entry",
        ),
    ];
    for (text, line, what, remedy) in table {
        let shown = refusal(text);
        assert!(
            shown.starts_with(&format!("policy.toml:{line}:")),
            "{text}\n{shown}"
        );
        assert!(
            shown.contains(what) && shown.contains(remedy),
            "{text}\n{shown}"
        );
    }
}
