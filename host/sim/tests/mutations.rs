//! Each checker fires when the driver is broken on purpose: a checker that never fires proves nothing.

use farseal_sim::check::Checker;
use farseal_sim::mutation::Mutation;
use farseal_sim::world::{Settings, run};

/// Within this many seeds each break must be noticed.
const SEEDS: u64 = 400;

/// And these, whose worlds have more of what they need, within this many.
const FEW_SEEDS: u64 = 20;

fn fires(mutation: Mutation, by: &[Checker]) {
    fires_within(SEEDS, mutation, by);
}

fn fires_within(seeds: u64, mutation: Mutation, by: &[Checker]) {
    let broken = |seed| run(&Settings { mutation: Some(mutation), ..Settings::new(seed) }).failure;
    let found = (1..=seeds).find_map(|seed| broken(seed).map(|failure| (seed, failure)));
    match found {
        Some((_, failure)) if by.contains(&failure.checker) => {}
        Some((seed, failure)) => panic!("{mutation:?}: seed {seed} was noticed by another checker: {failure}"),
        None => panic!("{mutation:?} was not noticed in {seeds} seeds"),
    }
}

#[test]
fn durability_checker_fires_when_flush_is_answered_early() {
    fires(Mutation::FlushAnsweredEarly, &[Checker::Durability]);
}

#[test]
fn recoverable_checker_fires_when_compaction_does_not_know_of_the_window() {
    fires(Mutation::WindowNotKept, &[Checker::Recoverable]);
}

#[test]
fn recoverable_checker_fires_when_compaction_does_not_know_of_pins() {
    fires(Mutation::PinsNotKept, &[Checker::Recoverable]);
}

#[test]
fn durability_checker_fires_when_a_synchronous_flush_does_not_wait_for_the_secondary() {
    fires(Mutation::SyncAnsweredEarly, &[Checker::Durability]);
}

#[test]
fn durability_checker_fires_when_the_log_is_acknowledged_before_it_is_synced() {
    fires(Mutation::LogAckedEarly, &[Checker::Durability]);
}

#[test]
fn durability_checker_fires_when_journal_damage_is_passed_over() {
    fires(Mutation::DamageIgnored, &[Checker::Durability]);
}

#[test]
fn durability_checker_fires_when_the_disk_lies_about_a_sync() {
    fires(Mutation::SyncLies, &[Checker::Durability]);
}

#[test]
fn durability_checker_fires_when_a_failed_sync_of_the_journal_is_tried_again_and_trusted() {
    fires(Mutation::JournalSyncRetried, &[Checker::Durability]);
}

#[test]
fn write_order_checker_fires_when_a_failed_sync_of_home_is_tried_again_and_trusted() {
    fires(Mutation::HomeSyncRetried, &[Checker::WriteOrder]);
}

#[test]
fn durability_checker_fires_when_a_failed_sync_of_the_log_is_tried_again_and_trusted() {
    // A site that takes over then waits for ever for what it had acknowledged.
    fires(Mutation::LogSyncRetried, &[Checker::Durability, Checker::Liveness]);
}

#[test]
fn write_order_checker_fires_when_unsynced_records_are_sent() {
    // The secondary then holds records that the primary never had, which the machine itself calls a divergence.
    fires(Mutation::UnsyncedSent, &[Checker::WriteOrder, Checker::Liveness]);
}

#[test]
fn rollback_checker_fires_when_a_primary_that_was_behind_has_forgotten_what_it_sent() {
    fires(Mutation::GivenUpForgotten, &[Checker::Rollback]);
}

#[test]
fn write_order_checker_fires_when_records_are_applied_out_of_order() {
    fires(Mutation::AppliedOutOfOrder, &[Checker::WriteOrder]);
}

#[test]
fn write_order_checker_fires_when_an_open_gap_is_served() {
    fires(Mutation::OpenGapServed, &[Checker::WriteOrder]);
}

#[test]
fn write_order_checker_fires_when_an_ordered_transfer_uses_a_path_that_stands_by() {
    fires(Mutation::SpareUsed, &[Checker::WriteOrder]);
}

#[test]
fn write_order_checker_fires_when_a_copy_lacks_what_was_written_last() {
    // The secondary then lacks what was written last, which the dirty map does not owe any more.
    fires(Mutation::CopyReadWithoutTheBuffer, &[Checker::WriteOrder, Checker::Owed]);
}

/// Some seed is noticed in these words; others may be in others, by the same checker.
fn fires_saying(mutation: Mutation, checker: Checker, words: &str) {
    let broken = |seed| run(&Settings { mutation: Some(mutation), ..Settings::new(seed) }).failure;
    let mut found = (1..=SEEDS).filter_map(broken);
    let said = found.find(|failure| failure.checker != checker || failure.what.contains(words));
    match said {
        Some(failure) if failure.checker == checker => {}
        Some(failure) => panic!("{mutation:?} was noticed by another checker: {failure}"),
        None => panic!("{mutation:?} was not noticed as `{words}` in {SEEDS} seeds"),
    }
}

#[test]
fn nonce_checker_fires_when_an_epoch_is_reused_after_a_restart() {
    // A lost tail's numbers come again under the key that sealed them.
    fires_saying(Mutation::EpochReused, Checker::Nonce, "two contents");
}

#[test]
fn nonce_checker_fires_when_an_incarnation_is_reused_after_a_restart() {
    fires_saying(Mutation::IncarnationReused, Checker::Nonce, "is of two lives");
}

#[test]
fn nonce_checker_fires_when_what_waits_for_room_is_sealed_anew() {
    fires_saying(Mutation::SealedAgain, Checker::Nonce, "two contents");
}

#[test]
fn liveness_checker_fires_when_a_carried_key_is_sealed_anew_in_its_place() {
    fires_saying(Mutation::CarriedKeySealedAgain, Checker::Liveness, "one site holds other records");
}

#[test]
fn nonce_checker_fires_when_a_restored_snapshot_brings_keys_back() {
    fires_saying(Mutation::KeyOfTheSnapshot, Checker::Nonce, "and sealed as");
}

#[test]
fn nonce_checker_fires_when_a_takeover_seals_on_under_a_key_of_the_generation_before() {
    fires_saying(Mutation::StaleKeySealsOn, Checker::Nonce, "and sealed as");
}

#[test]
fn ceiling_checker_fires_when_a_key_grows_too_old() {
    fires_saying(Mutation::AgeNotWatched, Checker::Ceiling, "its greatest age");
}

#[test]
fn ceiling_checker_fires_when_a_key_seals_too_much() {
    fires_saying(Mutation::BytesNotWatched, Checker::Ceiling, "are the most");
}

#[test]
fn ceiling_checker_fires_when_keys_follow_each_other_too_fast() {
    fires_saying(Mutation::IntervalNotWatched, Checker::Ceiling, "the interval is");
}

#[test]
fn tamper_checker_fires_when_a_cleared_encrypt_bit_is_not_looked_at() {
    fires_saying(Mutation::FlagNotShown, Checker::Tamper, "encrypt bit cleared");
}

#[test]
fn recoverable_checker_fires_when_a_receipt_is_not_awaited() {
    fires(Mutation::ReceiptNotAwaited, &[Checker::Recoverable]);
}

#[test]
fn owed_checker_fires_when_dirty_bits_are_forgotten() {
    fires(Mutation::DirtyBitsForgotten, &[Checker::Owed]);
}

#[test]
fn epoch_checker_fires_when_a_key_seals_before_its_start() {
    fires(Mutation::SealedTooEarly, &[Checker::Epoch]);
}

#[test]
fn recoverable_checker_fires_when_an_unopenable_key_is_taken() {
    fires(Mutation::RefusedKeyTaken, &[Checker::Recoverable]);
}

#[test]
fn bounds_checker_fires_when_the_data_buffer_leaks() {
    fires(Mutation::BufferLeaked, &[Checker::Bounds]);
}

#[test]
fn bounds_checker_fires_when_a_throttle_is_ignored() {
    fires(Mutation::ThrottleIgnored, &[Checker::Bounds]);
}

#[test]
fn liveness_checker_fires_when_time_never_passes_for_the_primary() {
    fires(Mutation::TicksLost, &[Checker::Liveness]);
}

#[test]
fn fence_checker_fires_when_a_site_forgets_that_it_was_taken_over_from() {
    fires(Mutation::FenceForgotten, &[Checker::Fence]);
}

#[test]
fn fence_checker_fires_when_a_site_asks_the_other_to_write_before_it_has_kept_that_it_does_not() {
    fires(Mutation::HandOverNotKept, &[Checker::Fence]);
}

#[test]
fn fence_checker_fires_when_a_site_takes_back_as_the_generation_that_it_handed_over() {
    fires(Mutation::TakenBackAsAsked, &[Checker::Fence]);
}

#[test]
fn fence_checker_fires_when_a_takeover_does_not_keep_its_generation() {
    fires(Mutation::GenerationNotKept, &[Checker::Fence]);
}

#[test]
fn owed_checker_fires_when_a_keeper_does_not_tell_where_its_base_differs() {
    // What nobody owes is not there when the resync says that it is over.
    fires(Mutation::DiffersNotTold, &[Checker::Owed, Checker::WriteOrder]);
}

#[test]
fn write_order_checker_fires_when_a_base_that_differs_is_taken_for_the_copy() {
    // The site that comes back then meets a history that is none.
    fires(Mutation::BaseTakenForTheCopy, &[Checker::WriteOrder]);
}

#[test]
fn owed_checker_fires_when_a_site_does_not_owe_what_its_own_history_has_and_the_others_lacks() {
    fires(Mutation::OwnHistoryNotOwed, &[Checker::Owed, Checker::WriteOrder]);
}

#[test]
fn preset_checker_fires_when_presets_do_not_hear_of_an_operators_pause() {
    fires(Mutation::OperatorsPauseNotTold, &[Checker::Preset]);
}

#[test]
fn retired_checker_fires_when_the_keeper_does_not_look_which_live_blocks_need_a_key() {
    fires(Mutation::LiveNotScanned, &[Checker::Retired]);
}

#[test]
fn retired_checker_fires_when_what_is_not_offered_yet_is_not_asked_for() {
    fires(Mutation::UnofferedNotAsked, &[Checker::Retired]);
}

#[test]
fn retired_checker_fires_when_an_order_is_judged_by_a_scan_out_of_date() {
    fires(Mutation::ScanOutOfDate, &[Checker::Retired]);
}

#[test]
fn retired_checker_fires_when_the_keepers_own_history_is_not_asked_for() {
    fires(Mutation::OwnHistoryNotAsked, &[Checker::Retired]);
}

#[test]
fn retired_checker_fires_when_a_restart_forgets_the_floor() {
    fires(Mutation::FloorForgotten, &[Checker::Retired]);
}

#[test]
fn retired_checker_fires_when_the_writing_sites_journal_is_not_asked_for() {
    fires(Mutation::OwnKeysDestroyedEarly, &[Checker::Retired]);
}

#[test]
fn retired_checker_fires_when_a_restart_reads_from_the_beginning_what_lies_below_the_floor() {
    // The first key record that is not taken again stops the order, far below what was acknowledged.
    fires(Mutation::CheckpointForgotten, &[Checker::Retired, Checker::Durability]);
}

#[test]
fn fence_checker_fires_when_the_word_of_another_generation_is_taken() {
    fires(Mutation::OldWordTaken, &[Checker::Fence]);
}

#[test]
fn fence_checker_fires_when_an_operator_is_told_that_a_site_is_fenced_which_is_not_yet() {
    fires(Mutation::ToldByTheAnswer, &[Checker::Fence]);
}

#[test]
fn witness_checker_fires_when_the_remotes_silence_is_enough() {
    fires(Mutation::WitnessNotAsked, &[Checker::Witness]);
}

#[test]
fn witness_checker_fires_when_the_takeover_does_not_wait_for_the_statement_to_be_durable() {
    fires(Mutation::StatementNotKept, &[Checker::Witness]);
}

#[test]
fn witness_checker_fires_when_a_witness_that_begins_anew_remembers() {
    fires(Mutation::WitnessRemembers, &[Checker::Witness]);
}

#[test]
fn witness_checker_fires_when_a_statement_counts_for_a_question_that_it_does_not_answer() {
    fires_within(FEW_SEEDS, Mutation::OldStatementTaken, &[Checker::Witness]);
}

#[test]
fn witness_checker_fires_when_a_statement_does_not_grow_old() {
    fires_within(FEW_SEEDS, Mutation::StatementNeverOld, &[Checker::Witness]);
}

#[test]
fn witness_checker_fires_when_what_comes_and_goes_between_two_looks_is_not_heard_of() {
    fires_within(FEW_SEEDS, Mutation::LinkLookedAtAlone, &[Checker::Witness]);
}

#[test]
fn witness_checker_fires_when_the_copys_machine_does_not_have_the_last_word() {
    fires_within(FEW_SEEDS, Mutation::MachineNotAsked, &[Checker::Witness]);
}

#[test]
fn witness_checker_fires_when_nobody_asks_how_seldom_the_main_site_speaks() {
    fires(Mutation::BeatNotAsked, &[Checker::Witness]);
}
