//! Rows of figures, printed and put into a page.

/// One operation by one subject: its figures of all rounds.
pub struct Row {
    what: &'static str,
    who: &'static str,
    unit: &'static str,
    figures: Vec<f64>,
}

impl Row {
    pub fn new(
        what: &'static str,
        who: &'static str,
        unit: &'static str,
        mut figures: Vec<f64>,
    ) -> Self {
        figures.sort_by(f64::total_cmp);
        Self {
            what,
            who,
            unit,
            figures,
        }
    }
}

/// Prints the rows; with `--page FILE` they go between `<!-- NAME:begin -->` and `<!-- NAME:end -->` of it.
pub fn publish(rows: &[Row], name: &str, arguments: &[String]) {
    let mut table = String::from("| operation | by | median (range) |\n|---|---|---|\n");
    for row in rows {
        let (low, high) = (row.figures[0], row.figures[row.figures.len() - 1]);
        let figure = format!(
            "{:.0} {} ({low:.0}-{high:.0})",
            row.figures[row.figures.len() / 2],
            row.unit
        );
        println!("{:<30} {:<24} {figure}", row.what, row.who);
        table += &format!("| {} | {} | {figure} |\n", row.what, row.who);
    }
    let at = arguments.iter().position(|argument| argument == "--page");
    if let Some(path) = at.and_then(|at| arguments.get(at + 1))
        && let Err(why) = write(path, name, &table)
    {
        eprintln!("{path}: {why}");
        std::process::exit(1);
    }
}

fn write(path: &str, name: &str, table: &str) -> Result<(), String> {
    let page = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let (begin, end) = (
        format!("<!-- {name}:begin -->\n"),
        format!("<!-- {name}:end -->"),
    );
    let parts = page
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.ok_or(format!("no {begin}"))?;
    std::fs::write(path, format!("{before}{begin}{table}{end}{after}"))
        .map_err(|error| error.to_string())
}
