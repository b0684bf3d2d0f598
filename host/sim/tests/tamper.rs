//! Whatever is done to what travels and to what is stored is noticed, by who should notice it, and nothing of it is served.

use farseal_sim::tamper::change::Change;
use farseal_sim::tamper::remote::By;
use farseal_sim::tamper::{Place, Tally, run};

/// Some of each way in each place; `farseal-sim tamper` makes a million.
const COUNT: u64 = 12_000;

fn tally() -> Tally {
    let mut tally = Tally::default();
    for seed in 1..=3 {
        run(seed, COUNT / 3, &mut tally);
    }
    tally
}

#[test]
fn every_tampering_is_noticed_and_nothing_of_it_is_served() {
    let tally = tally();
    assert_eq!(tally.undetected, []);
    assert_eq!(tally.never(), [], "{tally}");
    assert_eq!(tally.blind(), [], "{tally}");
    assert_eq!(tally.count, COUNT);
}

#[test]
fn each_is_noticed_by_who_should_and_the_limits_are_as_they_are_written_down() {
    let tally = tally();
    for (change, place, by) in [
        // Before it is believed at all.
        (Change::StripFlag, Place::Link, By::EncryptBit),
        (Change::StripFlag, Place::StoreAndLoss, By::EncryptBit),
        (Change::StripFlag, Place::Attach, By::EncryptBit),
        (Change::OtherPair, Place::Link, By::ControlInformation),
        (Change::OtherGeneration, Place::Link, By::ControlInformation),
        (Change::Drop, Place::Store, By::Window),
        (Change::FarAhead, Place::Link, By::Window),
        (Change::OtherKeyRenumbered, Place::StoreAndLoss, By::KeyCheck),
        (Change::FlipKey, Place::LinkAndLoss, By::KeyCheck),
        // By a primary that is there.
        (Change::FlipBlock, Place::Link, By::RunningHash),
        (Change::SwapNumbers, Place::Store, By::RunningHash),
        (Change::AsCover, Place::Link, By::RunningHash),
        (Change::RollBack, Place::Store, By::Mark),
        // Without one, by who opens it, and by nobody before.
        (Change::FlipBlock, Place::StoreAndLoss, By::Opening),
        (Change::SwapBlocks, Place::StoreAndLoss, By::Opening),
        (Change::SwapBodies, Place::LinkAndLoss, By::Opening),
        (Change::Relocate, Place::Answer, By::Opening),
        (Change::Replay, Place::Answer, By::Opening),
        (Change::AsTrim, Place::StoreAndLoss, By::Opening),
        // By nobody but who holds a later mark: what is served was written once.
        (Change::RollBack, Place::StoreAndLoss, By::LaterMark),
        (Change::AsCover, Place::StoreAndLoss, By::LaterMark),
        (Change::Repeat, Place::Answer, By::LaterMark),
    ] {
        assert_eq!(tally.by(change, place), [by], "{change:?} at {place:?}");
    }
}
