//! Every row at work, with next to nothing to do: what is measured only now and then must not rot.

use std::collections::BTreeSet;
use std::process::Command;

/// A run that is good for a rough idea only does not become documentation.
#[test]
fn what_was_not_measured_in_full_is_not_published() {
    let directory = std::env::temp_dir().join(format!("fdpost-bench-publish-{}", std::process::id()));
    let bench = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fdpost-bench"));
        // Where nothing could be written over, if it published after all.
        command.current_dir(std::env::temp_dir()).args(arguments).arg("--directory").arg(&directory);
        command.output().expect("the benchmark starts")
    };
    let measured = bench(&["--smoke", "--goal", "3"]);
    let published = bench(&["--publish"]);
    let _gone = std::fs::remove_dir_all(&directory);
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
    assert!(!published.status.success());
    let words = String::from_utf8_lossy(&published.stderr);
    assert!(words.contains("smoke run of 1 rounds is not published"), "{words}");
}

#[test]
fn every_row_runs_and_the_report_has_its_form() {
    let directory = std::env::temp_dir().join(format!("fdpost-bench-smoke-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_fdpost-bench"))
        .args(["--smoke", "--directory"])
        .arg(&directory)
        .output()
        .expect("the benchmark starts");
    let report = std::fs::read(directory.join("report.json"));
    let plots = ["alone", "bursts", "round-trips", "depth", "senders", "descriptors"]
        .map(|plot| std::fs::read_to_string(directory.join(format!("{plot}.svg"))));
    let page = std::fs::read_to_string(directory.join("README.md"));
    let _gone = std::fs::remove_dir_all(&directory);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let rows: serde_json::Value = serde_json::from_slice(&report.expect("a report")).expect("JSON");
    let rows = rows.as_array().expect("an array");
    let mut names = BTreeSet::new();
    let mut goals = BTreeSet::new();
    for row in rows {
        let goal = row["goal"].as_u64().expect("goal is a number");
        assert!(goal <= 10, "{row}");
        goals.insert(goal);
        assert!(names.insert(row["name"].as_str().expect("name is a text")), "twice: {row}");
        assert!(row["ratio"].as_f64().is_some_and(|ratio| ratio.is_finite() && ratio >= 0.0), "{row}");
        assert!(row["goal_ratio"].is_number(), "{row}");
        assert!(["higher", "lower"].contains(&row["better"].as_str().expect("better is a text")), "{row}");
        assert!(row["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{row}");
    }
    assert!((1..=10).all(|goal| goals.contains(&goal)), "goals without a row: {goals:?}");
    // With fewer cores than two, two-core rows are left out in words.
    assert!(rows.len() >= 50, "{} rows", rows.len());

    let page = page.expect("a page");
    assert!(names.iter().all(|name| page.contains(name)), "rows that the page leaves out");
    assert!(page.contains("smoke run"), "a smoke run passes for a measurement");
    for (place, plot) in plots.into_iter().enumerate() {
        // Without two cores there may be nothing to draw of placed threads, but one core there is.
        let plot = plot.unwrap_or_else(|error| panic!("plot {place}: {error}"));
        assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"), "plot {place}");
        assert!(!plot.contains("NaN") && !plot.contains("inf"), "plot {place}");
    }
}
