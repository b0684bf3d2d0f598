//! Groups of several lanes keep what depends on each other together, and the checkers fire when they do not.

use farseal_sim::check::Checker;
use farseal_sim::group::figures::Figures;
use farseal_sim::group::{Mutation, Report, run, run_traced};

/// Within this many seeds each break must be noticed.
const SEEDS: u64 = 400;

#[test]
fn the_first_seeds_keep_dependent_writes_together() {
    let reports: Vec<Report> = (1..=300).map(|seed| run(seed, None)).collect();
    if let Some(failed) = reports.iter().find(|report| report.failure.is_some()) {
        panic!("{failed:?}");
    }
    let mut figures = Figures::default();
    reports.iter().for_each(|report| figures.add_all(&report.figures));
    println!("{figures}");
    assert_eq!(figures.never(), []);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 14, 159] {
        assert_eq!(format!("{:?}", run_traced(seed, None)), format!("{:?}", run_traced(seed, None)), "seed {seed}");
    }
}

fn fires(mutation: Mutation, by: Checker) {
    let found = (1..=SEEDS).find_map(|seed| run(seed, Some(mutation)).failure.map(|failure| (seed, failure)));
    match found {
        Some((_, failure)) if failure.checker == by => {}
        Some((seed, failure)) => panic!("{mutation:?}: seed {seed} was noticed by another checker: {failure}"),
        None => panic!("{mutation:?} was not noticed in {SEEDS} seeds"),
    }
}

#[test]
fn group_cut_checker_fires_when_answers_go_out_before_all_have_opened() {
    fires(Mutation::ReleasedEarly, Checker::GroupCut);
}

#[test]
fn group_cut_checker_fires_when_an_unconfirmed_cut_is_offered() {
    fires(Mutation::UnconfirmedOffered, Checker::GroupCut);
}

#[test]
fn group_cut_checker_fires_when_a_boundary_is_placed_late() {
    fires(Mutation::BoundaryLate, Checker::GroupCut);
}

#[test]
fn group_cut_checker_fires_when_a_read_shows_what_is_withheld() {
    fires(Mutation::ReadNotHeld, Checker::GroupCut);
}

#[test]
fn group_cut_checker_fires_when_lanes_are_taken_over_each_at_its_own_state() {
    fires(Mutation::TakenOverApart, Checker::GroupCut);
}

#[test]
fn group_cut_checker_fires_when_a_takeover_that_is_under_way_is_forgotten() {
    fires(Mutation::TakeoverForgotten, Checker::GroupCut);
}

#[test]
fn group_turn_checker_fires_when_sides_are_changed_before_every_copy_has_the_cut() {
    fires(Mutation::TurnedTooEarly, Checker::GroupTurn);
}

#[test]
fn group_turn_checker_fires_when_lanes_change_sides_one_by_one() {
    fires(Mutation::TurnedOneByOne, Checker::GroupTurn);
}

#[test]
fn group_turn_checker_fires_when_the_decision_is_not_kept_over_a_crash_of_the_lead() {
    fires(Mutation::DecisionForgotten, Checker::GroupTurn);
}

#[test]
fn group_pause_checker_fires_when_one_lane_of_a_paused_group_is_resumed() {
    fires(Mutation::ResumedAlone, Checker::GroupPause);
}

#[test]
fn retired_checker_fires_when_a_keeper_does_not_go_by_what_its_group_lets_it_offer() {
    fires(Mutation::LimitNotAsked, Checker::Retired);
}

#[test]
fn group_disaster_checker_fires_when_the_word_for_one_pair_is_not_the_word_for_all() {
    fires(Mutation::WordForOnePair, Checker::GroupDisaster);
}

#[test]
fn group_disaster_checker_fires_when_the_copies_are_not_asked_before_they_are_taken_over() {
    fires(Mutation::CopiesNotAsked, Checker::GroupDisaster);
}

#[test]
fn group_disaster_checker_fires_when_an_operator_is_told_that_lanes_are_fenced_which_are_not_yet() {
    fires(Mutation::SaidByTheAnswer, Checker::GroupDisaster);
}

#[test]
fn group_disaster_checker_fires_when_a_cut_is_named_that_some_copy_lacks() {
    fires(Mutation::NamedTooEarly, Checker::GroupDisaster);
}

#[test]
fn group_silence_checker_fires_when_one_copys_silence_is_taken_for_the_groups() {
    fires(Mutation::SilenceOfOne, Checker::GroupSilence);
}

#[test]
fn group_silence_checker_fires_when_nobody_looks_again_before_the_decision() {
    fires(Mutation::NoLastLook, Checker::GroupSilence);
}
