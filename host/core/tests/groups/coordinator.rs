//! The coordinator: cuts that are made, given up, refused, and a pause of all lanes at one of them.

use farseal_core::group::{Command, Coordinator, CutName, Input, LaneStanding, Numbers, Output, Phase, Settings};
use farseal_core::limits::{
    CUT_OPEN_WAIT, CUT_RELEASE_WAIT, CUT_TRIES_MAX, GROUP_DECLARED_WAIT, GROUP_STAND_WAIT, GROUP_TURN_AGAIN,
};
use farseal_core::primary::{CutCopied, PauseState, SwapState};
use farseal_core::units::{CutNumber, Generation, Instant, Millis, Now, PairId, Ticket, WallTime};

fn lane(number: u8) -> PairId {
    PairId([number; 16])
}

fn name(lane: PairId) -> char {
    char::from(b'@' + lane.0[0])
}

const GOOD: LaneStanding = LaneStanding {
    in_order: true,
    written: true,
    pause: PauseState::Running,
    swap: None,
    fenced: None,
    newest: CutNumber(0),
    copied: CutCopied { boundary: CutNumber(0), confirmed: CutNumber(0) },
};

/// A coordinator whose numbers are made durable at once.
struct Group {
    coordinator: Coordinator,
    numbers: Numbers,
    now: u64,
    /// Nothing can be kept.
    disk_fails: bool,
}

impl Group {
    /// With lanes A, B, ..; nobody is there yet.
    fn new(lanes: u8, phase: Phase) -> Self {
        let settings = Settings { interval: Some(Millis(250)) };
        let lanes = (1..=lanes).map(lane).collect();
        let now = Now { instant: Instant(1_000), wall: WallTime(1_000) };
        Self {
            coordinator: Coordinator::new(now, settings, lanes, phase),
            numbers: Numbers::after(CutNumber(0)),
            now: 1_000,
            disk_fails: false,
        }
    }

    /// One thing that happens, and what the coordinator does for it.
    fn tell(&mut self, input: Input) -> String {
        let now = Now { instant: Instant(self.now), wall: WallTime(self.now) };
        self.coordinator.handle(now, &mut self.numbers, input);
        let mut does = Vec::new();
        while let Some(output) = self.coordinator.poll_output() {
            does.push(match output {
                Output::Reserve { .. } if self.disk_fails => {
                    self.coordinator.handle(now, &mut self.numbers, Input::NotReserved);
                    continue;
                }
                Output::Persist { phase: Phase::Turning { .. } } if self.disk_fails => {
                    self.coordinator.handle(now, &mut self.numbers, Input::NotPersisted);
                    continue;
                }
                Output::Reserve { through } => {
                    self.numbers.reserved(through);
                    self.coordinator.handle(now, &mut self.numbers, Input::Reserved);
                    continue;
                }
                Output::Open { lane, cut, .. } => format!("open {cut} {}", name(lane)),
                Output::Release { lane, cut } => format!("release {cut} {}", name(lane)),
                Output::Confirm { lane, cut, name: called, .. } => {
                    let called = called.map(|called| format!(" as {called}")).unwrap_or_default();
                    format!("confirm {cut} {}{called}", name(lane))
                }
                Output::Pause { lane } => format!("pause {}", name(lane)),
                Output::Resume { lane } => format!("resume {}", name(lane)),
                Output::Persist { phase: Phase::Running } => "persist running".into(),
                Output::Persist { phase: Phase::Paused { cut, .. } } => format!("persist paused at {cut}"),
                Output::Persist { phase: Phase::Turning { cut, .. } } => format!("persist turning at {cut}"),
                Output::PrepareTurn { lane } => format!("prepare {}", name(lane)),
                Output::Quiesce { lane } => format!("quiesce {}", name(lane)),
                Output::GoOn { lane } => format!("go on {}", name(lane)),
                Output::Declare { lane } => format!("declare {}", name(lane)),
                Output::HandOver { lane } => format!("hand over {}", name(lane)),
                Output::Named { name, cut, .. } => format!("keep {name} {cut}"),
                Output::Answer { ticket, result: Ok(cut) } => format!("answer {} cut {cut}", ticket.0),
                Output::Answer { ticket, result: Err(why) } => format!("answer {} no: {why}", ticket.0),
                Output::Event(event) => format!("({event:?})").replace("PairId", ""),
            });
        }
        let does = does.join(", ");
        (1..9).fold(does, |text, number| text.replace(&lane(number).to_string(), &name(lane(number)).to_string()))
    }

    fn joined(&mut self, number: u8, standing: LaneStanding) -> String {
        self.tell(Input::Joined { lane: lane(number), standing })
    }

    fn stands(&mut self, number: u8, standing: LaneStanding) -> String {
        self.tell(Input::Stands { lane: lane(number), standing })
    }

    fn opened(&mut self, number: u8, cut: u64) -> String {
        self.tell(Input::Opened { lane: lane(number), cut: CutNumber(cut) })
    }

    fn released(&mut self, number: u8, cut: u64, whole: bool) -> String {
        self.tell(Input::Released { lane: lane(number), cut: CutNumber(cut), whole })
    }

    fn later(&mut self, ms: u64) -> String {
        self.now += ms;
        self.tell(Input::Tick)
    }

    fn wants(&mut self, command: Command) -> String {
        self.tell(Input::Wanted { ticket: Ticket(7), command })
    }
}

/// Lanes A and B are there, and a cut of both was made.
fn pair_of_lanes() -> Group {
    let mut group = Group::new(2, Phase::Running);
    group.joined(1, GOOD);
    group.joined(2, GOOD);
    group.later(250);
    group.opened(1, 1);
    group.opened(2, 1);
    group.released(1, 1, true);
    group.released(2, 1, true);
    assert_eq!(group.coordinator.status(Now::default()).made, 1);
    group
}

#[test]
fn a_cut_is_confirmed_when_all_have_opened_it_and_all_held_on_until_they_were_told() {
    let mut group = Group::new(2, Phase::Running);
    assert_eq!(group.joined(1, GOOD), "(Waits { missing: [(B)], not_in_order: [] })");
    assert_eq!(group.joined(2, GOOD), "(Complete)");
    assert_eq!(group.later(250), "open 1 A, open 1 B");
    assert_eq!(group.opened(2, 1), "");
    assert_eq!(group.opened(1, 1), "release 1 A, release 1 B");
    assert_eq!(group.released(1, 1, true), "");
    assert_eq!(group.released(2, 1, true), "confirm 1 A, confirm 1 B");
    let status = group.coordinator.status(Now::default());
    assert_eq!((status.made, status.abandoned, status.last.map(|made| made.cut)), (1, 0, Some(CutNumber(1))));
}

#[test]
fn a_lane_that_is_late_costs_the_cut_and_nobody_a_longer_wait() {
    let mut group = pair_of_lanes();
    group.stands(1, GOOD);
    assert_eq!(group.later(250), "open 2 A, open 2 B");
    group.opened(1, 2);
    assert_eq!(group.later(CUT_OPEN_WAIT.0 - 1), "");
    assert_eq!(group.later(1), "release 2 A, release 2 B, (Abandoned { cut: CutNumber(2), late: [(B)], in_a_row: 1 })");
    assert_eq!(group.opened(2, 2), "", "too late");
    assert_eq!(group.released(1, 2, true), "");
    assert_eq!(group.released(2, 2, true), "");
    assert_eq!(group.later(250), "open 3 A, open 3 B", "the next beat tries again under another number");
    assert_eq!(group.coordinator.status(Now::default()).abandoned, 1);
}

#[test]
fn a_lane_that_let_go_by_itself_left_or_came_anew_leaves_no_cut() {
    for how in ["by itself", "left", "came anew", "silent", "another lane"] {
        let mut group = pair_of_lanes();
        group.stands(1, GOOD);
        group.later(250);
        group.opened(1, 2);
        group.opened(2, 2);
        group.released(1, 2, true);
        let does = match how {
            "by itself" => group.released(2, 2, false),
            "left" => group.tell(Input::Left { lane: lane(2) }),
            "came anew" => group.joined(2, GOOD),
            "silent" => group.later(CUT_RELEASE_WAIT.0),
            _ => group.tell(Input::Lanes((1..=3).map(lane).collect())),
        };
        assert!(does.contains("Abandoned") && !does.contains("confirm"), "{how}: {does}");
        let late = group.released(2, 2, true);
        assert!(!late.contains("confirm"), "{how}: {late}");
    }
}

#[test]
fn without_all_lanes_in_order_no_cut_is_made_and_it_says_so() {
    let mut group = pair_of_lanes();
    let lagging = LaneStanding { in_order: false, ..GOOD };
    assert_eq!(group.stands(1, lagging), "(Waits { missing: [], not_in_order: [(A)] })");
    assert_eq!(group.later(1_000), "");
    let refused = "answer 7 no: 1 of the group's pairs are not copied in order now";
    assert_eq!(group.wants(Command::Cut { name: None }), refused);
    group.stands(1, GOOD);
    assert_eq!(group.tell(Input::Left { lane: lane(2) }), "(Waits { missing: [(B)], not_in_order: [] })");
    assert_eq!(group.wants(Command::Pause), "answer 7 no: 1 of the group's pairs cannot be reached");
    assert_eq!(group.joined(2, GOOD), "(Complete)");
    assert_eq!(group.later(250), "open 2 A, open 2 B");
}

#[test]
fn no_cut_is_made_of_what_has_not_changed() {
    let mut group = pair_of_lanes();
    assert_eq!(group.later(10_000), "");
    group.stands(2, GOOD);
    assert_eq!(group.later(250), "open 2 A, open 2 B");
}

#[test]
fn a_group_of_one_makes_cuts_when_asked_and_never_by_itself() {
    let mut group = Group::new(1, Phase::Running);
    group.joined(1, GOOD);
    assert_eq!((group.later(10_000), group.coordinator.poll_timeout()), (String::new(), None));
    let called = CutName::new("nightly").unwrap();
    assert_eq!(group.wants(Command::Cut { name: Some(called) }), "open 1 A");
    group.opened(1, 1);
    assert_eq!(group.released(1, 1, true), "keep nightly 1, confirm 1 A as nightly, answer 7 cut 1");
}

#[test]
fn what_an_operator_wants_is_tried_again_and_then_refused() {
    let mut group = pair_of_lanes();
    group.wants(Command::Cut { name: None });
    for attempt in 1.. {
        let does = group.later(250);
        if does.contains("answer 7") {
            assert!(does.contains("last late: 2"), "{does}");
            assert_eq!(attempt, 2 * CUT_TRIES_MAX - 1);
            break;
        }
        assert!(attempt < 1_000, "it was never refused");
    }
}

#[test]
fn all_lanes_stop_at_one_cut_and_one_that_comes_back_stops_there_too() {
    let mut group = pair_of_lanes();
    assert_eq!(group.wants(Command::Pause), "open 2 A, open 2 B");
    group.opened(1, 2);
    group.opened(2, 2);
    group.released(1, 2, true);
    assert_eq!(
        group.released(2, 2, true),
        "persist paused at 2, confirm 2 A, confirm 2 B, pause A, pause B, answer 7 cut 2"
    );
    group.stands(1, GOOD);
    assert_eq!(group.later(1_000), "", "no cut is made before resume");
    assert_eq!(group.wants(Command::Pause), "answer 7 no: the group is paused");
    group.tell(Input::Left { lane: lane(2) });
    assert_eq!(group.wants(Command::Resume), "answer 7 no: 1 of the group's pairs cannot be reached");
    assert!(group.joined(2, GOOD).starts_with("confirm 2 B, pause B"));
    assert!(!group.coordinator.status(Now::default()).settled);
    let copied = CutCopied { boundary: CutNumber(2), confirmed: CutNumber(2) };
    let stopped = LaneStanding { pause: PauseState::Paused, copied, ..GOOD };
    group.stands(1, stopped);
    group.stands(2, stopped);
    assert!(group.coordinator.status(Now::default()).settled);
    assert!(group.wants(Command::Resume).starts_with("persist running, resume A, resume B, answer 7 cut 2"));
    assert_eq!(group.wants(Command::Resume), "answer 7 no: the group is not paused");
}

#[test]
fn a_lead_that_restarts_knows_the_pause_and_gives_no_number_again() {
    let mut group = Group::new(2, Phase::Paused { cut: CutNumber(9), lanes: 2, settled: true });
    assert!(group.joined(1, GOOD).starts_with("confirm 9 A, pause A"));
    group.joined(2, LaneStanding { newest: CutNumber(5_000), ..GOOD });
    let does = group.wants(Command::Resume);
    assert!(does.starts_with("persist running, resume A, resume B, answer 7 cut 9"), "{does}");
    assert!(does.ends_with("open 5001 A, open 5001 B"), "a lane's order holds 5000: {does}");
}

/// A lane that has stopped, and what its copy is known to hold.
fn stopped(boundary: u64) -> LaneStanding {
    let copied = CutCopied { boundary: CutNumber(boundary), confirmed: CutNumber(boundary) };
    LaneStanding { pause: PauseState::Paused, copied, newest: CutNumber(9), ..GOOD }
}

#[test]
fn a_pause_that_a_restart_cut_short_is_begun_anew_and_ends() {
    let mut group = Group::new(2, Phase::Paused { cut: CutNumber(9), lanes: 2, settled: false });
    // One lane kept what its copy holds, the other began anew and cannot know: nothing more is sent that would tell.
    group.joined(1, stopped(9));
    let does = group.joined(2, stopped(0));
    assert!(does.contains("persist running") && does.contains("resume A, resume B"), "{does}");
    assert!(does.ends_with("open 10 A, open 10 B"), "{does}");
    group.opened(1, 10);
    group.opened(2, 10);
    group.released(1, 10, true);
    let does = group.released(2, 10, true);
    assert_eq!(does, "persist paused at 10, confirm 10 A, confirm 10 B, pause A, pause B");
    group.stands(1, stopped(10));
    assert!(!group.coordinator.status(Now::default()).settled);
    assert_eq!(group.stands(2, stopped(10)), "persist paused at 10");
    assert!(group.coordinator.status(Now::default()).settled);
}

#[test]
fn a_pause_that_was_reached_stays_at_its_cut_whoever_restarts() {
    let mut group = Group::new(2, Phase::Paused { cut: CutNumber(9), lanes: 2, settled: true });
    group.joined(1, stopped(0));
    let does = group.joined(2, stopped(0));
    assert!(!does.contains("resume"), "{does}");
    assert!(group.coordinator.status(Now::default()).settled);
}

#[test]
fn the_exposure_is_the_age_of_the_last_cut_that_the_copy_holds() {
    let mut group = pair_of_lanes();
    let at = |ms| Now { instant: Instant(ms), wall: WallTime(ms) };
    assert_eq!(group.coordinator.status(at(1_350)).exposure, None);
    let copied = CutCopied { boundary: CutNumber(1), confirmed: CutNumber(1) };
    group.stands(1, LaneStanding { copied, written: false, ..GOOD });
    assert_eq!(group.coordinator.status(at(1_350)).exposure, None, "the other lane does not");
    let boundary_only = CutCopied { confirmed: CutNumber(0), ..copied };
    group.stands(2, LaneStanding { copied: boundary_only, written: false, ..GOOD });
    assert_eq!(group.coordinator.status(at(1_350)).exposure, Some(Millis(0)), "nothing was written since");
    group.stands(2, LaneStanding { copied: boundary_only, ..GOOD });
    assert_eq!(group.coordinator.status(at(1_350)).exposure, Some(Millis(100)));
}

fn swaps(swap: SwapState) -> LaneStanding {
    LaneStanding { swap: Some(swap), written: false, ..GOOD }
}

fn quiesced(copied: u64) -> LaneStanding {
    let copied = CutCopied { boundary: CutNumber(copied), confirmed: CutNumber(copied) };
    LaneStanding { copied, ..swaps(SwapState::Quiesced) }
}

/// Both lanes stand still and say that they can change sides; the cut over them is made, and not copied yet.
fn standing_still() -> Group {
    let mut group = Group::new(2, Phase::Running);
    group.joined(1, LaneStanding { written: false, ..GOOD });
    group.joined(2, LaneStanding { written: false, ..GOOD });
    assert_eq!(group.wants(Command::Turn), "prepare A, prepare B");
    assert_eq!(group.tell(Input::Ready { lane: lane(1), ready: true }), "");
    assert_eq!(group.tell(Input::Ready { lane: lane(2), ready: true }), "quiesce A, quiesce B");
    assert_eq!(group.stands(1, quiesced(0)), "");
    assert_eq!(group.stands(2, quiesced(0)), "open 1 A, open 1 B");
    group.opened(1, 1);
    assert_eq!(group.opened(2, 1), "release 1 A, release 1 B");
    group.released(1, 1, true);
    assert_eq!(group.released(2, 1, true), "confirm 1 A, confirm 1 B");
    group
}

#[test]
fn all_lanes_hand_over_once_every_copy_holds_the_cut_and_not_before() {
    let mut group = standing_still();
    assert_eq!(group.stands(1, quiesced(1)), "");
    assert_eq!(group.stands(2, quiesced(1)), "persist turning at 1, hand over A, hand over B");
    assert_eq!(group.wants(Command::Pause), "answer 7 no: the group is changing sides");
    assert_eq!(group.stands(1, swaps(SwapState::Asking)), "");
    assert_eq!(group.tell(Input::Turned { lane: lane(1) }), "");
    let told = group.tell(Input::Turned { lane: lane(2) });
    assert!(told.starts_with("persist running, answer 7 cut 1"), "{told}");
}

/// Both lanes stand still for a disaster that was declared; the cut over them is made, and not copied yet.
fn declared() -> Group {
    let mut group = Group::new(2, Phase::Running);
    group.joined(1, LaneStanding { written: false, ..GOOD });
    group.joined(2, LaneStanding { written: false, ..GOOD });
    assert_eq!(group.wants(Command::Declare), "quiesce A, quiesce B");
    assert_eq!(group.stands(1, quiesced(0)), "");
    assert_eq!(group.stands(2, quiesced(0)), "open 1 A, open 1 B");
    group.opened(1, 1);
    group.opened(2, 1);
    group.released(1, 1, true);
    assert_eq!(group.released(2, 1, true), "confirm 1 A, confirm 1 B");
    group
}

#[test]
fn the_word_of_a_disaster_goes_out_once_every_copy_holds_the_cut_and_is_given_once() {
    let mut group = declared();
    assert_eq!(group.stands(1, quiesced(1)), "");
    assert_eq!(group.wants(Command::Declare), "answer 7 no: a disaster of the group is being declared");
    assert_eq!(group.stands(2, quiesced(1)), "declare A, declare B");
    for command in [Command::Declare, Command::Turn, Command::Pause, Command::Resume, Command::Cut { name: None }] {
        let refused = group.wants(command);
        let refused = refused.trim_end_matches(", ");
        assert!(
            ["answer 7 no: a disaster of the group is being declared", "answer 7 no: the group is not paused"]
                .contains(&refused),
            "{refused}"
        );
    }
    assert_eq!(group.later(1_000), "quiesce A, quiesce B", "initiators wait until it is known who goes on");
    assert_eq!(group.tell(Input::Declared { lane: lane(2), taken: true }), "");
    assert_eq!(group.tell(Input::Declared { lane: lane(2), taken: false }), "", "it has answered");
    assert_eq!(group.tell(Input::Declared { lane: lane(1), taken: true }), "answer 7 cut 1");
}

/// It was answered as if it had been done now.
#[test]
fn a_group_that_was_taken_over_is_not_declared_again_and_one_that_is_so_in_part_is() {
    let fenced = |generation| LaneStanding { fenced: Some(Generation(generation)), in_order: false, ..GOOD };
    let mut group = Group::new(2, Phase::Running);
    group.joined(1, fenced(2));
    group.joined(2, GOOD);
    assert_eq!(group.wants(Command::Declare), "quiesce A, quiesce B");
    let mut group = Group::new(2, Phase::Running);
    group.joined(1, fenced(2));
    assert_eq!(group.wants(Command::Declare), "answer 7 no: 1 of the group's pairs cannot be reached", "B may write");
    group.joined(2, fenced(4));
    let told = group.wants(Command::Declare);
    let says = "the other site has taken all of the group's pairs over already, and writes them in generation 4";
    assert_eq!(told, format!("answer 7 no: {says}"));
}

#[test]
fn the_word_of_a_disaster_goes_out_without_a_cut_where_there_is_no_time_for_one() {
    let mut group = pair_of_lanes();
    assert_eq!(group.wants(Command::Declare), "quiesce A, quiesce B");
    // One is behind and does not stand still, and then its node is lost.
    group.stands(1, quiesced(1));
    assert_eq!(group.tell(Input::Left { lane: lane(2) }).matches("go on").count(), 0);
    assert_eq!(group.later(GROUP_STAND_WAIT.0), "declare A");
    assert_eq!(group.tell(Input::Declared { lane: lane(1), taken: true }), "answer 7 cut 0");

    let mut group = declared();
    assert_eq!(group.later(GROUP_STAND_WAIT.0), "declare A, declare B", "the copies are too slow to hold it");
}

/// The operator was told of a cut, or a later one, that one of the copies lacked: they had been taken over at an earlier one.
#[test]
fn no_cut_is_named_of_a_disaster_whose_word_goes_out_before_every_copy_holds_it() {
    let mut group = declared();
    group.stands(1, quiesced(1));
    assert_eq!(group.later(GROUP_STAND_WAIT.0), "declare A, declare B");
    assert_eq!(group.tell(Input::Declared { lane: lane(1), taken: true }), "");
    assert_eq!(group.tell(Input::Declared { lane: lane(2), taken: true }), "answer 7 cut 0");
}

/// The operator was told that the other site takes over, and nobody had told it so (group seed 736).
#[test]
fn a_disaster_is_not_called_declared_where_nobody_could_say_the_word() {
    let mut group = declared();
    group.tell(Input::Left { lane: lane(1) });
    group.tell(Input::Left { lane: lane(2) });
    assert_eq!(group.later(GROUP_STAND_WAIT.0), "answer 7 no: 2 of the group's pairs cannot be reached");
}

/// All copies held a later cut, and one had given up the one that was named (group seed 5570).
#[test]
fn a_cut_that_one_copy_gave_up_is_not_named_whatever_later_one_it_holds() {
    let mut group = declared();
    group.stands(1, quiesced(1));
    group.stands(2, LaneStanding { in_order: false, ..GOOD });
    group.stands(2, GOOD);
    assert_eq!(group.later(250), "open 2 A, open 2 B");
    group.opened(1, 2);
    group.opened(2, 2);
    group.released(1, 2, true);
    assert_eq!(group.released(2, 2, true), "confirm 2 A, confirm 2 B");
    assert_eq!(group.stands(2, LaneStanding { copied: quiesced(2).copied, ..GOOD }), "", "A holds 1 alone");
    assert_eq!(group.stands(1, quiesced(2)), "declare A, declare B");
    group.tell(Input::Declared { lane: lane(1), taken: true });
    assert_eq!(group.tell(Input::Declared { lane: lane(2), taken: true }), "answer 7 cut 2");
}

#[test]
fn a_lane_that_comes_back_while_a_disaster_is_declared_stands_still_again() {
    let mut group = declared();
    group.tell(Input::Left { lane: lane(1) });
    let told = group.joined(1, quiesced(1));
    assert!(told.contains("quiesce A") && !told.contains("go on"), "{told}");
}

#[test]
fn lanes_go_on_where_the_other_site_does_not_take_over_at_the_word_of_a_disaster() {
    let mut group = declared();
    group.stands(1, quiesced(1));
    group.stands(2, quiesced(1));
    group.tell(Input::Declared { lane: lane(1), taken: false });
    let told = group.tell(Input::Declared { lane: lane(2), taken: true });
    assert_eq!(told, "go on A, go on B, answer 7 no: the other site did not take over 1 of the group's pairs");

    let mut group = declared();
    group.stands(1, quiesced(1));
    group.stands(2, quiesced(1));
    let told = group.later(GROUP_DECLARED_WAIT.0);
    assert_eq!(told, "go on A, go on B, answer 7 no: the other site did not take over 2 of the group's pairs");

    let mut nobody = Group::new(2, Phase::Running);
    let told = nobody.wants(Command::Declare);
    assert!(told.starts_with("answer 7 no: 2 of the group's pairs cannot be reached"), "{told}");
}

#[test]
fn a_lane_that_cannot_change_sides_keeps_all_of_them_here() {
    let mut group = Group::new(2, Phase::Running);
    group.joined(1, GOOD);
    group.joined(2, LaneStanding { written: false, ..GOOD });
    group.wants(Command::Turn);
    let told = group.tell(Input::Ready { lane: lane(2), ready: false });
    assert!(told.contains("go on A, go on B, answer 7 no: 1 of the group's pairs cannot change sides now"), "{told}");
}

#[test]
fn a_lane_that_went_on_before_the_decision_keeps_all_of_them_here() {
    let mut group = standing_still();
    group.stands(1, quiesced(1));
    let told = group.stands(2, LaneStanding { swap: None, ..quiesced(1) });
    assert_eq!(told, "go on A, go on B, answer 7 no: the pairs did not all stand still in time; late: 1");
}

#[test]
fn a_cut_that_does_not_reach_the_copies_in_time_keeps_all_of_them_here() {
    let mut group = standing_still();
    group.stands(1, quiesced(1));
    let told = group.later(GROUP_STAND_WAIT.0);
    assert_eq!(told, "go on A, go on B, answer 7 no: the copies did not all hold the cut in time; late: 1");
}

#[test]
fn what_was_decided_is_carried_out_by_each_lane_whenever_it_comes() {
    let mut group = standing_still();
    group.stands(1, quiesced(1));
    group.stands(2, quiesced(1));
    group.stands(2, swaps(SwapState::Asking));
    // A went on by itself before it heard, and is told until it hands over.
    group.stands(1, GOOD);
    assert_eq!(group.later(GROUP_TURN_AGAIN.0), "hand over A");
    // The lead restarts; one lane has turned meanwhile.
    let mut group = Group::new(2, Phase::Turning { cut: CutNumber(1), lanes: 2 });
    group.tell(Input::Turned { lane: lane(2) });
    let told = group.joined(1, GOOD);
    assert!(told.starts_with("hand over A"), "{told}");
    assert!(group.tell(Input::Turned { lane: lane(1) }).starts_with("persist running"));
}

#[test]
fn an_operator_ends_a_change_of_sides_that_comes_to_no_end() {
    let mut group = standing_still();
    group.stands(1, quiesced(1));
    group.stands(2, quiesced(1));
    group.tell(Input::Turned { lane: lane(2) });
    let told = group.tell(Input::Wanted { ticket: Ticket(8), command: Command::Resume });
    assert!(
        told.starts_with("persist running, go on A, answer 7 no: an operator had the pairs")
            && told.contains("answer 8 cut 1"),
        "{told}"
    );
}

#[test]
fn a_group_that_is_to_pause_does_not_change_sides_as_well() {
    let mut group = pair_of_lanes();
    assert_eq!(group.wants(Command::Pause), "open 2 A, open 2 B");
    assert_eq!(group.wants(Command::Turn), "answer 7 no: the group is paused", "its cut is under way");
    // It is tried again at the next beat.
    group.later(CUT_OPEN_WAIT.0);
    assert_eq!(group.wants(Command::Turn), "answer 7 no: the group is paused");
}

#[test]
fn a_lane_that_did_not_hear_that_nothing_was_decided_goes_on_when_it_is_back() {
    let mut group = standing_still();
    assert!(group.tell(Input::Left { lane: lane(1) }).starts_with("go on B, answer 7 no:"));
    assert!(group.joined(1, quiesced(0)).starts_with("go on A"));
    // A lead that crashed before it decided has not either.
    let mut group = Group::new(2, Phase::Running);
    assert!(group.joined(2, quiesced(0)).starts_with("go on B"));
}

#[test]
fn a_change_of_sides_that_cannot_be_kept_is_not_decided_and_no_lane_hears_of_it() {
    let mut group = standing_still();
    group.disk_fails = true;
    group.stands(1, quiesced(1));
    let told = group.stands(2, quiesced(1));
    assert!(
        told.starts_with("persist running, go on A, go on B, answer 7 no: the site's control information"),
        "{told}"
    );
    assert!(!told.contains("hand over"), "{told}");
}

#[test]
fn a_number_that_cannot_be_kept_is_asked_for_again_with_the_next_beat() {
    let mut group = Group::new(2, Phase::Running);
    group.disk_fails = true;
    group.joined(1, GOOD);
    group.joined(2, GOOD);
    let told = group.wants(Command::Cut { name: None });
    assert_eq!(told, "answer 7 no: the site's control information could not be kept");
    group.disk_fails = false;
    let told = group.later(250);
    assert!(told.starts_with("open 1 A"), "{told}");
}

#[test]
fn a_lane_that_falls_out_of_order_under_the_last_cut_keeps_all_of_them_here() {
    let mut group = Group::new(2, Phase::Running);
    group.joined(1, LaneStanding { written: false, ..GOOD });
    group.joined(2, LaneStanding { written: false, ..GOOD });
    group.wants(Command::Turn);
    group.tell(Input::Ready { lane: lane(1), ready: true });
    group.tell(Input::Ready { lane: lane(2), ready: true });
    group.stands(1, LaneStanding { in_order: false, ..quiesced(0) });
    let told = group.stands(2, quiesced(0));
    assert!(
        told.contains("go on A, go on B, answer 7 no: 1 of the group's pairs are not copied in order now"),
        "{told}"
    );
}
