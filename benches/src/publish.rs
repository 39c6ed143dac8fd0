//! `make bench-publish`: a report becomes part of the documentation.

use std::error::Error;
use std::fs;
use std::path::Path;

use crate::report::Report;

/// Between these lines the README's table is made; everything else there is left as it is.
const BEGIN: &str = "<!-- bench: made by `make bench-publish` from docs/bench -->";
const END: &str = "<!-- bench: end -->";

/// The fewest pairs that a published row may rest on.
const PAIRS: usize = 30;

/// Writes the report kept in `from` into `root`'s docs/bench, and its summary into the README.
pub fn publish(from: &Path, root: &Path) -> Result<String, Box<dyn Error>> {
    let report = Report::kept(from)?;
    if report.rounds < PAIRS {
        let (plan, rounds) = (report.plan, report.rounds);
        return Err(format!(
            "a {plan} run of {rounds} rounds is not published: make bench (at least {PAIRS})"
        )
        .into());
    }
    if report.rows.is_empty() || (1..=10).any(|goal| report.rows.iter().all(|row| row.goal != goal)) {
        return Err("the run left goals out: make bench without GOALS".into());
    }
    report.write(&root.join("docs/bench"))?;
    let path = root.join("README.md");
    let readme = fs::read_to_string(&path)?;
    match filled(&readme, &report.summary("docs/bench")) {
        Some(readme) => {
            fs::write(path, readme)?;
            Ok("docs/bench and README.md are those of this run".into())
        }
        None => {
            Ok(format!("docs/bench is that of this run; README.md has no lines {BEGIN} and {END} to fill"))
        }
    }
}

/// The text with what stands between the markers replaced; `None` without both, in order.
fn filled(readme: &str, summary: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", summary.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = filled(&readme, "new\n\n").expect("markers");
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(filled(&new, "new").as_deref(), Some(&*new));
        assert_eq!(filled("no markers", "new"), None);
        assert_eq!(filled(&format!("{END}\n{BEGIN}"), "new"), None);
    }
}
