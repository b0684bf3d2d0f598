//! Every committed input holds, and so does a fixed number of mutations of each target's corpus.

use std::path::Path;

use farseal_fuzz::{TARGETS, Target, campaign};

/// Never changed without need: it decides which mutations are tried.
const SEED: u64 = 0x000f_a45e_a100;

fn hold(name: &str, mutations: u64) {
    let Some(target) = Target::named(name) else { panic!("no target {name}") };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/corpus");
    let corpus = campaign::corpus(&root, &target).unwrap_or_default();
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for (file, input) in &corpus {
        if let Err(broken) = campaign::play(&target, input) {
            panic!("fixtures/corpus/{name}/{file}: {}", broken.said);
        }
    }
    if let (_, Some(broken)) = campaign::run(&target, &corpus, SEED, mutations, None) {
        panic!("{name} breaks: {}\ninput: {:02x?}", broken.said, broken.input);
    }
}

#[test]
fn every_target_has_a_test_here() {
    let tested = ["config", "frames", "journal", "log", "nbd", "owed", "primary", "secondary"];
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(names, tested);
}

#[test]
fn frames_from_a_stranger_are_whole_or_refused() {
    hold("frames", 30_000);
}

#[test]
fn a_hostile_primary_breaks_no_promise_of_the_secondary() {
    hold("secondary", 4_000);
}

#[test]
fn a_hostile_secondary_breaks_no_promise_of_the_primary() {
    hold("primary", 3_000);
}

#[test]
fn a_harmed_journal_gives_a_prefix() {
    hold("journal", 10_000);
}

#[test]
fn a_harmed_log_gives_a_prefix_or_a_name() {
    hold("log", 500);
}

#[test]
fn an_initiator_never_leaves_its_export() {
    hold("nbd", 4_000);
}

#[test]
fn no_configuration_is_passed_over() {
    hold("config", 3_000);
}

#[test]
fn a_harmed_dirty_map_is_refused_or_whole() {
    hold("owed", 20_000);
}
