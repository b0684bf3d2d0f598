//! Key records in the slots of other records: whatever order pieces come in, the record that stands is the one that was carried, bit for bit, or none.

use farseal_core::carriage::{Carriage, CarriageNumber, Mask, Nth, Pieces, SLOT_BYTES, Said, Slot};
use farseal_core::limits::CARRIAGE_BYTES_MAX;
use proptest::prelude::*;

const ONE: CarriageNumber = CarriageNumber(1);

fn mask() -> Mask {
    Mask::new(&[1; 32], &[2; 32])
}

fn carriage(number: CarriageNumber, record: &[u8]) -> Carriage {
    let carried = Carriage::new(number, record.to_vec());
    carried.unwrap_or_else(|error| panic!("{error}"))
}

/// Every piece with the place of its slot, from `first` on.
fn slots(carriage: &Carriage, first: u64) -> Vec<(Nth, Slot)> {
    let all = (first..).zip(0..carriage.pieces());
    all.filter_map(|(at, index)| Some((Nth(at), carriage.piece(&mask(), Nth(at), index)?))).collect()
}

fn take_all(pieces: &mut Pieces, slots: &[(Nth, Slot)]) -> Vec<Said> {
    let said = slots.iter().map(|(at, slot)| pieces.take(&mask(), *at, *slot));
    said.filter(|said| *said != Said::Nothing).collect()
}

proptest! {
    #[test]
    fn a_record_stands_bit_for_bit_whatever_order_its_pieces_come_in(
        record in prop::collection::vec(any::<u8>(), 1..5_000),
        order in any::<u64>(),
        twice in any::<bool>(),
    ) {
        let carried = carriage(ONE, &record);
        let mut all = slots(&carried, 40);
        all.sort_by_key(|(at, _)| at.0.wrapping_mul(order | 1));
        let mut pieces = Pieces::default();
        prop_assert_eq!(take_all(&mut pieces, &all), [Said::Whole(record.clone())]);
        if twice {
            prop_assert_eq!(take_all(&mut pieces, &all), []);
        }
        let at = Nth(9_999);
        prop_assert_eq!(pieces.take(&mask(), at, carried.stands(&mask(), at)), Said::Stands(record));
    }

    #[test]
    fn no_slot_that_a_peer_makes_up_is_more_than_a_piece(slots in prop::collection::vec(any::<[u8; SLOT_BYTES]>(), 0..200)) {
        let mut pieces = Pieces::default();
        for (at, slot) in (1..).zip(slots) {
            prop_assert_eq!(pieces.take(&mask(), Nth(at), slot), Said::Nothing);
        }
    }
}

#[test]
fn a_record_without_one_of_its_pieces_does_not_stand() {
    let carried = carriage(ONE, &[7; 500]);
    let all = slots(&carried, 1);
    for left_out in 0..all.len() {
        let mut pieces = Pieces::default();
        let some: Vec<_> = all.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, slot)| *slot).collect();
        assert_eq!(take_all(&mut pieces, &some), []);
        let at = Nth(900);
        assert_eq!(pieces.take(&mask(), at, carried.stands(&mask(), at)), Said::Missing, "without piece {left_out}");
    }
}

#[test]
fn a_late_piece_of_the_carriage_before_does_not_disturb_the_one_that_took_its_place() {
    let (old, new) = (carriage(ONE, &[1; 300]), carriage(CarriageNumber(2), &[2; 300]));
    let (old_slots, new_slots) = (slots(&old, 1), slots(&new, 100));
    let mut pieces = Pieces::default();
    for some in [&old_slots[..5], &new_slots[..5], &old_slots[5..]] {
        assert_eq!(take_all(&mut pieces, some), []);
    }
    assert_eq!(take_all(&mut pieces, &new_slots[5..]), [Said::Whole(vec![2; 300])]);
    let at = Nth(900);
    assert_eq!(pieces.take(&mask(), at, old.stands(&mask(), at)), Said::Missing);
    assert_eq!(pieces.take(&mask(), at, new.stands(&mask(), at)), Said::Stands(vec![2; 300]));
    assert_eq!(pieces.take(&mask(), at, new.stands(&mask(), at)), Said::Missing, "it stands once");
}

#[test]
fn slots_of_another_connection_or_out_of_their_turn_say_nothing() {
    let carried = carriage(ONE, &[3; 100]);
    let other = Mask::new(&[2; 32], &[1; 32]);
    let mut pieces = Pieces::default();
    for (at, slot) in slots(&carried, 1) {
        assert_eq!(pieces.take(&other, at, slot), Said::Nothing);
        assert_eq!(pieces.take(&mask(), Nth(at.0 + 1), slot), Said::Nothing);
    }
    let at = Nth(50);
    assert_eq!(pieces.take(&mask(), at, carried.stands(&mask(), at)), Said::Missing);
}

/// Each bit is set in half of all slots: 8 000 tosses stay within five standard deviations.
#[test]
fn pieces_of_a_record_of_zeroes_look_like_chance() {
    let record = vec![0; CARRIAGE_BYTES_MAX];
    let carried = carriage(ONE, &record);
    let all: Vec<_> = (0..3).flat_map(|round| slots(&carried, 1 + round * 5_000)).collect();
    let tosses = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let within = f64::from(tosses).sqrt() * 2.5;
    for bit in 0..SLOT_BYTES * 8 {
        let set = all.iter().filter(|(_, slot)| slot[bit / 8] >> (bit % 8) & 1 == 1).count();
        let off = f64::from(u32::try_from(set).unwrap_or(u32::MAX)) - f64::from(tosses) / 2.0;
        assert!(off.abs() < within, "bit {bit}: {set} of {tosses}");
    }
}

#[test]
fn a_record_longer_than_the_limit_is_not_carried() {
    assert!(Carriage::new(ONE, vec![0; CARRIAGE_BYTES_MAX]).is_ok());
    let refused = Carriage::new(ONE, vec![0; CARRIAGE_BYTES_MAX + 1]).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|error| error.contains("65537 bytes")));
}
