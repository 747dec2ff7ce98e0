use std::path::Path;

use super::file::EXAMPLE;
use super::parse;

fn error(text: &str) -> String {
    parse(Path::new("volley.toml"), text)
        .unwrap_err()
        .to_string()
}

#[test]
fn the_example_is_a_valid_file() {
    let config = parse(Path::new("example.toml"), EXAMPLE).unwrap();
    assert_eq!(config.push.session_expires_s, 1800);
}

#[test]
fn a_typo_names_file_line_key_and_the_closest_key() {
    let text = EXAMPLE.replace("trusted_peers", "trusted_peer");
    let shown = error(&text);
    assert!(shown.contains("volley.toml:"), "{shown}");
    assert!(shown.contains("`trusted_peer`"), "{shown}");
    assert!(shown.contains("did you mean `trusted_peers`?"), "{shown}");
}

// Proves: ST-1, NH-4
#[test]
fn values_out_of_range_name_their_line_and_remedy() {
    let text = EXAMPLE.replace("# session_expires_s = 1800 ", "session_expires_s = 89 ");
    let shown = error(&text);
    assert!(
        shown.contains("push.session_expires_s") && shown.contains("90 or more"),
        "{shown}"
    );
    let line = text
        .lines()
        .position(|line| line.starts_with("session_expires_s"))
        .unwrap()
        + 1;
    assert!(
        shown.starts_with(&format!("volley.toml:{line}:")),
        "{shown}"
    );

    let shown = error(&EXAMPLE.replace("# transport = \"tcp\"", "transport = \"udp\""));
    assert!(
        shown.contains("sip.transport") && shown.contains("path_mtu"),
        "{shown}"
    );
}

#[test]
fn a_list_of_next_hops_has_at_most_64() {
    let line = EXAMPLE.lines().find(|line| line.starts_with("next_hops"));
    let list = |count: usize| {
        let hops: Vec<String> = (0..count)
            .map(|at| format!("{{ address = \"192.0.2.1:{}\" }}", 5060 + at))
            .collect();
        let list = format!("next_hops = [{}]", hops.join(", "));
        EXAMPLE.replace(line.unwrap(), &list)
    };
    assert!(parse(Path::new("volley.toml"), &list(64)).is_ok());
    let shown = error(&list(65));
    assert!(
        shown.contains("sip.next_hops") && shown.contains("at most 64"),
        "{shown}"
    );
}

#[test]
fn what_is_gathered_for_has_a_range() {
    let with =
        |value: &str| EXAMPLE.replace("# gather_us = 100 ", &format!("gather_us = {value} "));
    assert!(parse(Path::new("volley.toml"), &with("1000")).is_ok());
    let shown = error(&with("1001"));
    assert!(
        shown.contains("node.gather_us") && shown.contains("use 0 to 1000"),
        "{shown}"
    );
}

#[test]
fn bounds_of_connections_have_ranges_and_the_core_has_no_cap() {
    let shown = error(&EXAMPLE.replace("# connections_max = 130000", "connections_max = 63"));
    assert!(shown.contains("limits.connections_max") && shown.contains("use 64 to"));
    let text = EXAMPLE.replace(
        "# connections_per_source_max = 16384",
        "connections_per_source_max = 16777216",
    );
    let shown = error(&text);
    assert!(
        shown.contains("limits.connections_per_source_max"),
        "{shown}"
    );
    let text = EXAMPLE
        .replace(
            "# uncapped_sources = []",
            "uncapped_sources = [\"198.51.100.7\"]",
        )
        .replace("# scscf = [", "scscf = [")
        .replace("# hosts = {", "hosts = {")
        .replace("[\"192.0.2.20\"] }", "[\"192.0.2.30\"] }");
    let config = parse(Path::new("volley.toml"), &text).unwrap();
    let uncapped: Vec<String> = config.uncapped().iter().map(ToString::to_string).collect();
    let all = ["192.0.2.20", "192.0.2.22", "192.0.2.30", "198.51.100.7"];
    assert_eq!(uncapped, all);
}

#[test]
fn wrong_types_and_broken_syntax_name_their_line() {
    let shown = error("[sip]\nlisten = 5\n");
    assert!(shown.starts_with("volley.toml:2"), "{shown}");
    let shown = error("[sip\n");
    assert!(shown.starts_with("volley.toml:1"), "{shown}");
}
