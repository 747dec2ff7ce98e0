//! The layer rule: a module names only what is in its own layer or below.

use crate::source::{Source, line_of, paths_from};

/// Modules with their layers; the longest prefix counts. A split module (`sip`) is listed by its
/// parts, and stands itself for what its `mod.rs` declares.
const LAYERS: &[(&str, u8)] = &[
    ("base", 0),
    ("wheel", 0),
    ("cpim", 1),
    ("imdn", 1),
    ("metrics", 1),
    ("msrp", 1),
    ("msrp::coverage", 1),
    ("msrp::encode", 1),
    ("msrp::familiar", 1),
    ("msrp::frame", 1),
    ("msrp::uri", 1),
    ("reginfo", 1),
    ("reginfo::document", 1),
    ("reginfo::familiar", 1),
    ("reginfo::scan", 1),
    ("sdp", 1),
    ("sip", 1),
    ("sip::branch", 1),
    ("sip::feature", 1),
    ("sip::framing", 1),
    ("sip::header", 1),
    ("sip::message", 1),
    ("sip::parser", 1),
    ("sip::response", 1),
    ("sip::scan", 1),
    ("sip::template", 1),
    ("sip::uri", 1),
    ("store", 1),
    ("msrp::inbound", 2),
    ("msrp::session", 2),
    ("reginfo::registration", 2),
    ("reginfo::subscription", 2),
    ("sip::dialog", 2),
    ("sip::overload", 2),
    ("sip::session_timer", 2),
    ("sip::transaction", 2),
    ("push", 3),
    ("registry", 3),
    ("selection", 3),
    ("shard", 4),
    ("io", 5),
    ("sim", 5),
    ("admin", 6),
    ("cli", 6),
    ("config", 6),
    ("main", 6),
];
/// Modules whose parts lie in several layers: each part must be listed.
const SPLIT: &[&str] = &["msrp", "reginfo", "sip"];
/// Modules of one layer that must not name each other.
const STRANGERS: &[(&str, &str)] = &[("io", "sim"), ("sim", "io")];

/// The module of a file under `src/`.
pub(crate) fn module_of(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut module: Vec<&str> = path.split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    (module != ["lib"]).then_some(module)
}

/// The layer of a module path, and the table's row that says so.
pub(crate) fn layer_of(path: &[&str]) -> Option<(u8, &'static str)> {
    LAYERS
        .iter()
        .filter(|(prefix, _)| {
            let mut parts = path.iter();
            prefix.split("::").all(|part| parts.next() == Some(&part))
        })
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|&(prefix, layer)| (layer, prefix))
}

pub(crate) fn check(source: &Source) -> Vec<String> {
    let Some(module) = module_of(&source.path) else {
        return Vec::new();
    };
    if source.shipped.is_empty() {
        return Vec::new();
    }
    let listed = layer_of(&module);
    let unlisted_part = listed.is_some_and(|(_, row)| SPLIT.contains(&row)) && module.len() > 1;
    let (Some((layer, _)), false) = (listed, unlisted_part) else {
        let path = &source.path;
        return vec![format!(
            "{path}: {} has no layer in tests/tidy/layers.rs",
            module.join("::")
        )];
    };
    let mut findings = Vec::new();
    for (at, named) in named_modules(source, &module) {
        let Some((below, _)) = layer_of(&named) else {
            continue;
        };
        let strangers = STRANGERS.contains(&(module[0], named[0]));
        if below > layer || strangers {
            findings.push(format!(
                "{}:{}: {} (layer {layer}) names {} (layer {below})",
                source.path,
                line_of(&source.shipped, at),
                module.join("::"),
                named.join("::"),
            ));
        }
    }
    findings
}

/// Every path to one of our modules: from `crate`, from `volley` (the binary), from `super`.
fn named_modules<'a>(source: &'a Source, module: &[&'a str]) -> Vec<(usize, Vec<&'a str>)> {
    let mut named = paths_from(&source.shipped, "crate");
    named.extend(paths_from(&source.shipped, "volley"));
    for (at, path) in paths_from(&source.shipped, "super") {
        let ups = 1 + path.iter().take_while(|&&part| part == "super").count();
        let Some(kept) = module.len().checked_sub(ups) else {
            continue;
        };
        let mut full = module[..kept].to_vec();
        full.extend(&path[ups - 1..]);
        named.push((at, full));
    }
    named.retain(|(_, path)| !path.is_empty());
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn naming_upwards_is_found() {
        assert_eq!(
            findings("src/base/slab.rs", "use crate::sip::message::Message;"),
            1
        );
        assert_eq!(
            findings(
                "src/sip/uri.rs",
                "use crate::{base::x, sip::dialog::Dialog};"
            ),
            1
        );
        assert_eq!(
            findings("src/sip/uri.rs", "fn f() { super::transaction::g(); }"),
            1
        );
        assert_eq!(
            findings("src/sip/header/via.rs", "use super::super::dialog::D;"),
            1
        );
        assert_eq!(
            findings("src/msrp/frame.rs", "fn f(x: crate::registry::User) {}"),
            1
        );
        assert_eq!(
            findings("src/store/index.rs", "use crate::shard::surface::Location;"),
            1
        );
        assert_eq!(findings("src/shard/mod.rs", "use crate::io::host;"), 1);
        assert_eq!(findings("src/io/mod.rs", "use crate::config::Options;"), 1);
    }

    #[test]
    fn io_and_sim_are_strangers() {
        assert_eq!(findings("src/io/tcp.rs", "use crate::sim::World;"), 1);
        assert_eq!(findings("src/sim/world.rs", "use crate::io::tcp;"), 1);
    }

    #[test]
    fn an_unlisted_module_is_found() {
        assert_eq!(findings("src/fresh/mod.rs", "fn f() {}"), 1);
        assert_eq!(findings("src/sip/fresh.rs", "fn f() {}"), 1);
    }

    #[test]
    fn naming_downwards_and_in_tests_is_fine() {
        assert_eq!(
            findings("src/sip/dialog.rs", "use crate::sip::message::Message;"),
            0
        );
        assert_eq!(
            findings(
                "src/push/mod.rs",
                "use crate::{registry::User, sip::dialog::D};"
            ),
            0
        );
        assert_eq!(
            findings(
                "src/main.rs",
                "use volley::io::host; use volley::config::C;"
            ),
            0
        );
        assert_eq!(
            findings("src/sip/mod.rs", "pub mod dialog; pub mod uri;"),
            0
        );
        assert_eq!(
            findings(
                "src/base/slab.rs",
                "#[cfg(test)] mod t { use crate::sim::W; }"
            ),
            0
        );
        assert_eq!(
            findings("src/sip/uri/tests.rs", "use crate::sip::dialog::D;"),
            0
        );
        assert_eq!(
            findings(
                "src/sip/uri.rs",
                "// crate::shard\nconst A: &str = \"crate::io\";"
            ),
            0
        );
    }
}
