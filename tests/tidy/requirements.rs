//! The list of requirements against the tests that claim to prove them, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::source::Source;

/// Which tests prove which requirement.
pub(crate) type Proofs = BTreeMap<String, BTreeSet<String>>;

/// One requirement: its ID and level, in the order of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    pub id: String,
    pub level: String,
}

/// What the list says of one requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    status: Status,
    tests: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Met by the code as a matter of construction or by a decision written down.
    Decided,
    Implemented,
    Later,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Implemented => "implemented",
            Self::Later => "later",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Decided, Self::Implemented, Self::Later]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

const MARK: &str = "// Proves:";
const BEGIN: &str = "<!-- coverage:begin -->";
const END: &str = "<!-- coverage:end -->";

pub(crate) fn parse_ids(text: &str) -> Result<Vec<Id>, String> {
    let mut seen = BTreeSet::new();
    text.lines()
        .map(|line| {
            let (id, level) = line
                .split_once('\t')
                .ok_or_else(|| format!("no tab: {line}"))?;
            if !seen.insert(id) {
                return Err(format!("{id} twice in requirement_ids.txt"));
            }
            Ok(Id {
                id: id.to_owned(),
                level: level.to_owned(),
            })
        })
        .collect()
}

/// Collects the claims of all files, with findings for claims that stand wrongly.
pub(crate) fn proofs(sources: &[Source]) -> (Proofs, Vec<String>) {
    let mut proofs = Proofs::new();
    let mut findings = Vec::new();
    for source in sources {
        let lines: Vec<&str> = source.text.lines().collect();
        let code: Vec<&str> = source.code.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some(ids) = line.trim_start().strip_prefix(MARK) else {
                continue;
            };
            let place = format!("{}:{}", source.path, index + 1);
            let Some(name) = test_below(&lines, &code, index) else {
                findings.push(format!("{place}: no test function directly below"));
                continue;
            };
            for id in ids.split(',') {
                if id.trim().is_empty() {
                    findings.push(format!("{place}: an empty ID"));
                } else {
                    proofs
                        .entry(id.trim().to_owned())
                        .or_default()
                        .insert(name.to_owned());
                }
            }
        }
    }
    (proofs, findings)
}

/// The name of the test function under the comment at `index`; only comments and attributes, one
/// of them `#[test]`, may stand between.
fn test_below<'a>(lines: &[&'a str], code: &[&'a str], index: usize) -> Option<&'a str> {
    let mut is_test = false;
    let mut open = 0;
    for (line, code) in lines.iter().zip(code).skip(index + 1) {
        let line = line.trim();
        let inside_attribute = open > 0;
        open += code.matches('[').count();
        open = open.saturating_sub(code.matches(']').count());
        if line.starts_with("#[") || inside_attribute {
            is_test |= line.starts_with("#[test]");
        } else if !line.starts_with("//") {
            let rest = line.strip_prefix("fn ")?;
            return rest.split(['(', '<']).next().filter(|_| is_test);
        }
    }
    None
}

fn parse_list(text: &str) -> (BTreeMap<&str, Entry>, Vec<String>) {
    let mut entries = BTreeMap::new();
    let mut findings = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let id = fields.next().unwrap_or_default();
        let status = fields.next().and_then(Status::parse);
        let tests = fields.next().unwrap_or_default();
        let (Some(status), None) = (status, fields.next()) else {
            findings.push(format!(
                "requirements.txt: not `ID<TAB>status<TAB>tests`: {line}"
            ));
            continue;
        };
        let tests = tests.split(',').filter(|test| !test.is_empty());
        let entry = Entry {
            status,
            tests: tests.map(str::to_owned).collect(),
        };
        if entries.insert(id, entry).is_some() {
            findings.push(format!("requirements.txt: {id} twice"));
        }
    }
    (entries, findings)
}

/// Compares the list with the IDs and with the claims.
pub(crate) fn compare(ids: &[Id], proofs: &Proofs, list: &str) -> Vec<String> {
    let (entries, mut findings) = parse_list(list);
    let known: BTreeSet<&str> = ids.iter().map(|id| id.id.as_str()).collect();
    for id in proofs.keys().filter(|id| !known.contains(id.as_str())) {
        findings.push(format!("{id} is claimed by a test and not a requirement"));
    }
    for id in entries.keys().filter(|id| !known.contains(*id)) {
        findings.push(format!("{id} is listed and not a requirement"));
    }
    let none = BTreeSet::new();
    for id in known {
        let Some(entry) = entries.get(id) else {
            findings.push(format!("{id} is not listed"));
            continue;
        };
        let claims = proofs.get(id).unwrap_or(&none);
        for test in claims.difference(&entry.tests) {
            findings.push(format!("{id}: {test} claims it and is not listed"));
        }
        for test in entry.tests.difference(claims) {
            findings.push(format!("{id}: {test} is listed and does not claim it"));
        }
        match entry.status {
            Status::Implemented if entry.tests.is_empty() => {
                findings.push(format!("{id} is implemented without a test"));
            }
            Status::Later if !entry.tests.is_empty() => {
                findings.push(format!("{id} is for later and has a test"));
            }
            Status::Decided | Status::Implemented | Status::Later => {}
        }
    }
    findings
}

/// The list as it should be. `decided` is kept from `old`; the rest follows from the claims.
pub(crate) fn render(ids: &[Id], proofs: &Proofs, old: &str) -> String {
    let (old, _) = parse_list(old);
    let mut list = String::new();
    for Id { id, .. } in ids {
        let tests: Vec<&str> = proofs
            .get(id)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let decided = old
            .get(id.as_str())
            .is_some_and(|entry| entry.status == Status::Decided);
        let status = match (decided, tests.is_empty()) {
            (true, _) => Status::Decided,
            (false, true) => Status::Later,
            (false, false) => Status::Implemented,
        };
        writeln!(list, "{id}\t{}\t{}", status.as_str(), tests.join(",")).expect("a String");
    }
    list
}

/// The README's table: per area, how many requirements have which status; musts apart.
pub(crate) fn table(ids: &[Id], list: &str) -> String {
    let (entries, _) = parse_list(list);
    let mut areas: Vec<(&str, [usize; 5])> = Vec::new();
    for Id { id, level } in ids {
        let area = id.split('-').next().unwrap_or(id);
        let at = areas
            .iter()
            .position(|(known, _)| *known == area)
            .unwrap_or_else(|| {
                areas.push((area, [0; 5]));
                areas.len() - 1
            });
        let counts = &mut areas[at].1;
        let status = entries
            .get(id.as_str())
            .map_or(Status::Later, |entry| entry.status);
        let must = level.starts_with('M') || level.starts_with('N');
        counts[0] += 1;
        counts[match status {
            Status::Implemented => 1,
            Status::Decided => 2,
            Status::Later => 3,
        }] += 1;
        counts[4] += usize::from(must && status == Status::Later);
    }
    let mut total = [0; 5];
    let mut text = String::from(
        "| area | rows | proved by a test | decided | later | of these a must |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut row = |area: &str, counts: [usize; 5]| {
        let [all, implemented, decided, later, musts] = counts;
        writeln!(
            text,
            "| {area} | {all} | {implemented} | {decided} | {later} | {musts} |"
        )
        .expect("a String");
    };
    for (area, counts) in areas {
        row(area, counts);
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    row("all", total);
    text
}

/// `readme` with `table` between the markers; `None` without markers.
pub(crate) fn with_table(readme: &str, table: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

pub(crate) fn check_table(readme: &str, table: &str) -> Option<String> {
    let fresh = with_table(readme, table)?;
    (fresh != readme).then(|| "README.md: the coverage table is stale".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &[(&str, &str)]) -> Vec<Id> {
        let text: String = list
            .iter()
            .map(|(id, level)| format!("{id}\t{level}\n"))
            .collect();
        parse_ids(&text).expect("good")
    }

    fn proved(text: &str) -> (Proofs, Vec<String>) {
        proofs(&[Source::new("src/a.rs", text)])
    }

    const TEXT: &str = "// Proves: A-1, A-2\n// Proves: B-1\n/// Doc.\n#[test]\n\
        #[cfg(x)]\nfn works() {}\n";

    #[test]
    fn claims_are_read() {
        let (proofs, findings) = proved(TEXT);
        assert!(findings.is_empty(), "{findings:?}");
        let all: Vec<&str> = proofs.keys().map(String::as_str).collect();
        assert_eq!(all, ["A-1", "A-2", "B-1"]);
        assert!(proofs["A-1"].contains("works"));
    }

    #[test]
    fn claims_that_stand_wrongly_are_found() {
        for text in [
            "// Proves: A-1\n\n#[test]\nfn f() {}\n",
            "// Proves: A-1\nfn f() {}\n",
            "// Proves: A-1\nconst X: u8 = 1;\n",
            "// Proves: A-1\n",
            "// Proves: A-1,,\n#[test]\nfn f() {}\n",
        ] {
            assert!(!proved(text).1.is_empty(), "{text}");
        }
    }

    #[test]
    fn each_disagreement_is_found() {
        let ids = ids(&[("A-1", "M"), ("A-2", "Md"), ("B-1", "S"), ("C-1", "Y")]);
        let (proofs, _) = proved(TEXT);
        let good = "A-1\timplemented\tworks\nA-2\timplemented\tworks\nB-1\tdecided\tworks\n\
            C-1\tlater\t\n";
        assert_eq!(compare(&ids, &proofs, good), Vec::<String>::new());
        for (from, to, finding) in [
            ("C-1\tlater\t\n", "", "C-1 is not listed"),
            ("C-1\tlater\t\n", "C-1\tsoon\t\n", "not `ID<TAB>status"),
            (
                "C-1\tlater\t\n",
                "C-1\tlater\t\nC-1\tlater\t\n",
                "C-1 twice",
            ),
            (
                "C-1\tlater\t\n",
                "C-1\tlater\t\nD-1\tlater\t\n",
                "D-1 is listed and not",
            ),
            (
                "C-1\tlater",
                "C-1\timplemented",
                "C-1 is implemented without",
            ),
            ("A-1\timplemented", "A-1\tlater", "A-1 is for later"),
            (
                "A-1\timplemented\tworks",
                "A-1\timplemented\tother",
                "works claims it",
            ),
            (
                "A-1\timplemented\tworks",
                "A-1\timplemented\tworks,other",
                "other is listed",
            ),
        ] {
            let found = compare(&ids, &proofs, &good.replacen(from, to, 1));
            assert!(
                found.iter().any(|text| text.contains(finding)),
                "{finding}: {found:?}"
            );
        }
        let (unknown, _) = proved("// Proves: Z-9\n#[test]\nfn f() {}\n");
        let list = "A-1\tlater\t\nA-2\tlater\t\nB-1\tlater\t\nC-1\tlater\t\n";
        assert_eq!(compare(&ids, &unknown, list).len(), 1);
        assert!(parse_ids("A-1\tM\nA-1\tM\n").is_err());
    }

    #[test]
    fn what_is_rendered_passes_and_keeps_decisions() {
        let ids = ids(&[("A-1", "M"), ("A-2", "M"), ("B-1", "S"), ("C-1", "Y")]);
        let (proofs, _) = proved(TEXT);
        let list = render(&ids, &proofs, "C-1\tdecided\t\nB-1\tlater\t\n");
        assert!(list.contains("C-1\tdecided\t\n") && list.contains("B-1\timplemented\tworks\n"));
        assert_eq!(compare(&ids, &proofs, &list), Vec::<String>::new());
        let table = table(&ids, &list);
        assert!(table.contains("| A | 2 | 2 | 0 | 0 | 0 |\n"), "{table}");
        assert!(table.ends_with("| all | 4 | 3 | 1 | 0 | 0 |\n"), "{table}");
    }

    #[test]
    fn a_stale_table_is_found() {
        let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let fresh = with_table(&readme, "new\n").expect("markers");
        assert_eq!(fresh, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(check_table(&readme, "new\n").is_some());
        assert!(check_table(&fresh, "new\n").is_none());
        assert!(check_table("no markers", "new\n").is_none());
    }
}
