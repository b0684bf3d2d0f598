//! A fixed number of seeds keeps every promise, and a run is a function of its seed.

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
