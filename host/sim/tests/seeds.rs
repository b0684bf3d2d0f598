//! A fixed number of seeds keeps every promise, and a run is a function of its seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use farseal_sim::mutation::Mutation;
use farseal_sim::trace;
use farseal_sim::world::{Settings, run};

#[test]
fn the_first_seeds_keep_every_promise() {
    for seed in 1..=300 {
        let report = run(&Settings::new(seed));
        assert!(report.failure.is_none(), "{}", trace::tell(&report));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 14, 159] {
        let told = || {
            let report = run(&Settings { traced: true, ..Settings::new(seed) });
            (report.stats.events, report.stats.simulated_us, report.trace)
        };
        assert_eq!(told(), told(), "seed {seed}");
    }
}

#[test]
fn a_recorded_failure_is_the_same_when_it_is_played_again() {
    let broken = |seed| run(&Settings { mutation: Some(Mutation::LogAckedEarly), ..Settings::new(seed) });
    let report = (1..100).map(broken).find(|report| report.failure.is_some()).unwrap();
    let text = trace::record(&report);
    let (settings, fails, hash) = trace::recorded(&text).unwrap();
    let again = run(&Settings { mutation: Some(Mutation::LogAckedEarly), ..settings });
    assert_eq!(again.failure.map(|failure| failure.to_string()), fails);
    assert_eq!(format!("{:016x}", again.trace_hash), hash);
    assert!(text.ends_with(&(again.trace.join("\n") + "\n")));
    assert!(trace::recorded("seed 5").is_none());
}
