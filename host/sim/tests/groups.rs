//! Groups of several lanes keep what depends on each other together, and the checker fires when they do not.

use farseal_sim::check::Checker;
use farseal_sim::group::{Mutation, Report, run};

/// Within this many seeds each break must be noticed.
const SEEDS: u64 = 300;

#[test]
fn the_first_seeds_keep_dependent_writes_together() {
    let reports: Vec<Report> = (1..=200).map(|seed| run(seed, None)).collect();
    if let Some(failed) = reports.iter().find(|report| report.failure.is_some()) {
        panic!("{failed:?}");
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    for (what, count) in [
        ("cuts made", sum(|report| report.made)),
        ("cuts given up", sum(|report| report.abandoned)),
        ("cuts offered", sum(|report| report.offered)),
        ("crashes", sum(|report| report.crashes)),
        ("pauses", sum(|report| report.paused)),
        ("reads held", sum(|report| report.reads_held)),
        ("writes lost by crashes", sum(|report| report.lost)),
    ] {
        println!("{what}: {count}");
        assert!(count > 0, "{what}: never");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 14, 159] {
        assert_eq!(format!("{:?}", run(seed, None)), format!("{:?}", run(seed, None)), "seed {seed}");
    }
}

fn fires(mutation: Mutation) {
    let found = (1..=SEEDS).find_map(|seed| run(seed, Some(mutation)).failure.map(|failure| (seed, failure)));
    match found {
        Some((_, failure)) if failure.checker == Checker::GroupCut => {}
        Some((seed, failure)) => panic!("{mutation:?}: seed {seed} was noticed by another checker: {failure}"),
        None => panic!("{mutation:?} was not noticed in {SEEDS} seeds"),
    }
}

#[test]
fn group_cut_checker_fires_when_answers_go_out_before_all_have_opened() {
    fires(Mutation::ReleasedEarly);
}

#[test]
fn group_cut_checker_fires_when_an_unconfirmed_cut_is_offered() {
    fires(Mutation::UnconfirmedOffered);
}

#[test]
fn group_cut_checker_fires_when_a_boundary_is_placed_late() {
    fires(Mutation::BoundaryLate);
}

#[test]
fn group_cut_checker_fires_when_a_read_shows_what_is_withheld() {
    fires(Mutation::ReadNotHeld);
}
