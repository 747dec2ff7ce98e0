//! Checks on the source text itself: layers, forbidden names, sizes, and the list of requirements.
//!
//! Every check is a function from text to findings, so that its own tests can plant a violation
//! and see it found. `VOLLEY_TIDY_WRITE=1 cargo test --test tidy` rewrites the list of
//! requirements and the README's table from the `// Proves:` comments.

mod layers;
mod requirements;
mod rules;
mod source;

use source::{Source, root, sources, texts};

/// Fails with every finding, one per line.
fn none(what: &str, findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{what}: {} findings\n{}",
        findings.len(),
        findings.join("\n")
    );
}

fn all(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(check).collect()
}

#[test]
fn a_module_names_only_what_is_below_it() {
    none("layers", &all(layers::check));
}

#[test]
fn the_core_names_no_runtime_and_no_system() {
    none("forbidden names", &all(rules::forbidden_names));
}

#[test]
fn unsafe_stands_in_one_file() {
    none("unsafe", &all(rules::stray_unsafe));
}

#[test]
fn files_and_functions_are_short() {
    none("sizes", &all(rules::sizes));
}

#[test]
fn no_path_of_a_machine_is_written_down() {
    let findings: Vec<String> = texts()
        .iter()
        .flat_map(|(path, text)| rules::machine_paths(path, text))
        .collect();
    none("machine paths", &findings);
}

#[test]
fn requirements_and_proofs_agree() {
    let ids = source::read("tests/data/requirement_ids.txt");
    let ids = requirements::parse_ids(&ids).unwrap_or_else(|error| panic!("{error}"));
    let (proofs, mut findings) = requirements::proofs(sources());
    let list = source::read("tests/data/requirements.txt");
    let readme = root().join("README.md");
    let readme_text = std::fs::read_to_string(&readme).ok();
    if std::env::var_os("VOLLEY_TIDY_WRITE").is_some() {
        let list = requirements::render(&ids, &proofs, &list);
        std::fs::write(root().join("tests/data/requirements.txt"), &list).expect("writable");
        if let Some(text) = readme_text {
            let table = requirements::table(&ids, &list);
            if let Some(text) = requirements::with_table(&text, &table) {
                std::fs::write(readme, text).expect("writable");
            }
        }
        none("proofs", &findings);
        return;
    }
    findings.extend(requirements::compare(&ids, &proofs, &list));
    if let Some(text) = readme_text {
        findings.extend(requirements::check_table(
            &text,
            &requirements::table(&ids, &list),
        ));
    }
    none(
        "requirements (VOLLEY_TIDY_WRITE=1 rewrites the list)",
        &findings,
    );
}
