//! The goals that this program measures, and whether they were met in this run.

use serde_json::{Value, json};

/// Which side of the bound is good.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Goal {
    name: &'static str,
    bound: Bound,
    unit: &'static str,
    /// `None` where it could not be measured.
    found: Option<f64>,
}

/// Prints the goals with what was measured, and returns the same.
pub(super) fn judge(report: &Value) -> Value {
    let goals = goals(report);
    let lines = goals.iter().map(|goal| {
        let (sign, bound) = match goal.bound {
            Bound::AtLeast(bound) => (">=", bound),
            Bound::AtMost(bound) => ("<=", bound),
        };
        let verdict = match goal.found {
            None => "not measured",
            Some(found) if goal.bound.holds(found) => "pass",
            Some(_) => "short",
        };
        let found = goal.found.map_or(String::from("-"), |found| format!("{found:.3}"));
        println!("  {:<58} {sign} {bound:<5} {:<11} {found:>9}  {verdict}", goal.name, goal.unit);
        json!({ "goal": goal.name, "bound": bound, "sign": sign, "unit": goal.unit, "found": goal.found, "verdict": verdict })
    });
    Value::Array(lines.collect())
}

impl Bound {
    fn holds(self, found: f64) -> bool {
        match self {
            Self::AtLeast(bound) => found >= bound,
            Self::AtMost(bound) => found <= bound,
        }
    }
}

fn goals(report: &Value) -> Vec<Goal> {
    let cipher = |load: &str, way: &str| {
        let loads = report["ciphers"]["loads"].as_array()?;
        named(named(loads, "load", load)?["ways"].as_array()?, "way", way)?["ratio"].as_f64()
    };
    let nbd = |job: &str, server: &str, what: &str| {
        let jobs = report["nbd"]["jobs"].as_array()?;
        named(named(jobs, "job", job)?["servers"].as_array()?, "server", server)?[what].as_f64()
    };
    let rotating = |job: &str| {
        let mut rows = report["rotation"].as_array()?.iter();
        rows.find(|row| row["job"] == job && row["way"] == "in-band, 1 a second")?["p99-ratio"].as_f64()
    };
    let (write1, write32) = ("4 KiB random write, qd 1", "4 KiB random write, qd 32");
    let copied = "sealed, copied";
    let added = nbd(write1, copied, "p50-us").zip(nbd(write1, "nbdkit", "p50-us")).map(|(ours, theirs)| ours - theirs);
    let least = |name, bound, unit, found| Goal { name, bound: Bound::AtLeast(bound), unit, found };
    let most = |name, bound, unit, found| Goal { name, bound: Bound::AtMost(bound), unit, found };
    let plain = |job| nbd(job, "no pair", "ratio");
    vec![
        least("cipher plugin by plan, 64 KiB", 0.97, "of aws-lc", cipher("64 KiB", "by plan")),
        least("cipher plugin by plan, 16 x 64 KiB", 0.97, "of aws-lc", cipher("16 x 64 KiB", "by plan")),
        least("cipher plugin by plan, 1 MiB", 0.97, "of aws-lc", cipher("1 MiB", "by plan")),
        least("cipher plugin by plan, 64 x 4 KiB", 0.93, "of aws-lc", cipher("64 x 4 KiB", "by plan")),
        least("cipher plugin in the raw world, 16 x 64 KiB", 0.05, "of aws-lc", cipher("16 x 64 KiB", "raw")),
        least("4 KiB random write, qd 32, sealed and copied", 0.60, "of nbdkit", nbd(write32, copied, "ratio")),
        most("4 KiB write p50, qd 1, sealed and copied: added", 25.0, "us", added),
        least("no pair: 4 KiB random write, qd 1", 0.90, "of nbdkit", plain(write1)),
        least("no pair: 4 KiB random write, qd 32", 0.90, "of nbdkit", plain(write32)),
        least("no pair: 4 KiB random read, qd 1", 0.90, "of nbdkit", plain("4 KiB random read, qd 1")),
        least("no pair: 4 KiB random read, qd 32", 0.90, "of nbdkit", plain("4 KiB random read, qd 32")),
        least("no pair: 1 MiB write", 0.90, "of nbdkit", plain("1 MiB write, qd 16")),
        least("no pair: 1 MiB read", 0.90, "of nbdkit", plain("1 MiB read, qd 16")),
        least("1 MiB write, sealed and copied", 954.0, "MiB/s", nbd("1 MiB write, qd 16", copied, "mib-per-s")),
        most("rotation a second, in-band: p99 of 4 KiB writes, qd 1", 1.02, "of without", rotating(write1)),
        most("rotation a second, in-band: p99 of 4 KiB writes, qd 32", 1.02, "of without", rotating(write32)),
        most("takeover to the first block, sparse 1 TiB", 1.0, "s", report["takeover"]["first-block-s"].as_f64()),
        most("start with plugins cached", 0.3, "s", report["takeover"]["cached-start-s"].as_f64()),
    ]
}

fn named<'a>(list: &'a [Value], field: &str, name: &str) -> Option<&'a Value> {
    list.iter().find(|entry| entry[field] == name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let way = json!({ "way": "by plan", "ratio": 0.98 });
        let row =
            |job: &str, ratio: Option<f64>| json!({ "job": job, "way": "in-band, 1 a second", "p99-ratio": ratio });
        let report = json!({
            "ciphers": { "loads": [{ "load": "64 KiB", "ways": [way] }] }, "takeover": { "first-block-s": 1.5 },
            "rotation": [row("4 KiB random write, qd 1", Some(1.0)), row("4 KiB random write, qd 32", None)],
        });
        let judged = judge(&report);
        let verdict = |name: &str| named(judged.as_array().unwrap(), "goal", name).unwrap()["verdict"].clone();
        assert_eq!(verdict("cipher plugin by plan, 64 KiB"), "pass");
        assert_eq!(verdict("takeover to the first block, sparse 1 TiB"), "short");
        assert_eq!(verdict("no pair: 1 MiB read"), "not measured");
        assert_eq!(verdict("rotation a second, in-band: p99 of 4 KiB writes, qd 1"), "pass");
        let unchanged = "rotation a second, in-band: p99 of 4 KiB writes, qd 32";
        assert_eq!(verdict(unchanged), "not measured", "no key changed");
    }
}
