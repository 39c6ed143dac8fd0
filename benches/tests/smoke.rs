//! Every row at work, with next to nothing to do: what is measured only now and then must not rot.

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn every_row_runs_and_the_report_has_its_form() {
    let directory = std::env::temp_dir().join(format!("fdpost-bench-smoke-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_fdpost-bench"))
        .args(["--smoke", "--directory"])
        .arg(&directory)
        .output()
        .expect("the benchmark starts");
    let report = std::fs::read(directory.join("report.json"));
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
    assert!((1..=7).all(|goal| goals.contains(&goal)), "goals without a row: {goals:?}");
    // With fewer cores than two, two-core rows are left out in words.
    assert!(rows.len() >= 30, "{} rows", rows.len());
}
