//! The window, its moments, and what an operator asks for.

use proptest::prelude::*;

use super::*;

fn moment(sequence: u64, at: u64) -> Moment {
    let place = sequence * 100;
    Moment { sequence: Sequence(sequence), at: WallTime(at), made: WallTime(at), from: place, end: place }
}

fn name(text: &str) -> CutName {
    CutName::new(text).unwrap()
}

const HOUR: Terms = Terms { span: Millis(3_600_000), size: None };

#[test]
fn the_oldest_point_follows_the_time_and_never_passes_the_newest() {
    let mut points = Points::beginning(moment(0, 0));
    (1..=10).for_each(|at| points.note(moment(at * 10, at * 600_000)));
    let room = |_: &Moment| ByteLen(0);
    assert_eq!(points.due(&HOUR, WallTime(3_600_000 - 1), room), None);
    let (to, why) = points.due(&HOUR, WallTime(3_600_000 + 1_250_000), room).unwrap();
    assert_eq!((to.sequence, why), (Sequence(20), None), "what was offered an hour ago");
    points.advance(&to, why, WallTime(0));
    assert_eq!((points.oldest(), points.moments().len()), (Sequence(20), 9));
    let (to, _) = points.due(&HOUR, WallTime(u64::MAX), room).unwrap();
    assert_eq!(to.sequence, Sequence(100), "all of them are too old, and the newest stays");
}

#[test]
fn what_is_offered_is_noted_now_and_then_and_more_often_where_much_comes() {
    let points = Points::beginning(moment(100, 10_000));
    for (offered, now, room, wanted) in [
        (100, 10_000_000, u64::MAX, false),
        (101, 10_000, 0, false),
        (101, 13_500, 0, false),
        (101, 13_600, 0, true),
        (101, 10_000, (32 << 20) - 1, false),
        (101, 10_000, 32 << 20, true),
    ] {
        let found = points.wants_moment(&HOUR, Sequence(offered), WallTime(now), |_| ByteLen(room));
        assert_eq!(found, wanted, "{offered} at {now} with {room}");
    }
}

#[test]
fn without_room_the_oldest_give_way_first_and_it_is_said() {
    let mut points = Points::beginning(moment(0, 0));
    (1..=10).for_each(|at| points.note(moment(at * 10, at)));
    let first = points.gives_way(|moment| moment.from >= 3000).unwrap();
    assert_eq!(first.sequence, Sequence(30));
    assert_eq!(points.gives_way(|_| false).unwrap().sequence, Sequence(100), "whatever frees nothing by itself");
    points.advance(&first, Some(Why::NoRoom), WallTime(11));
    assert_eq!(points.shortened(), Some(Shortened { why: Why::NoRoom, at: WallTime(11) }));
    points.advance(&moment(100, 10), Some(Why::NoRoom), WallTime(12));
    assert_eq!(points.gives_way(|_| true), None, "never the newest");
    let terms = Terms { size: Some(ByteLen(500)), ..HOUR };
    let mut points = Points::beginning(moment(0, 0));
    (1..=10).for_each(|at| points.note(moment(at * 10, at)));
    let (to, why) = points.due(&terms, WallTime(12), |moment| ByteLen(10_000 - moment.from / 10 * 10)).unwrap();
    assert_eq!((to.sequence, why), (Sequence(100), Some(Why::Size)));
}

#[test]
fn every_wrong_point_is_told_apart_and_the_nearest_are_named() {
    let mut points = Points::beginning(moment(100, 1000));
    (1..=5).for_each(|at| points.note(moment(100 + at * 20, 1000 + at * 100)));
    points.pin(Pin { name: name("kept"), sequence: Sequence(40), at: WallTime(5) });
    let cut = |text: &str, sequence: Option<u64>| NamedCut {
        name: name(text),
        cut: CutNumber(1),
        sequence: sequence.map(Sequence),
        wall: WallTime(0),
    };
    let cuts = [cut("early", Some(50)), cut("monday", Some(120)), cut("missed", None), cut("monday", Some(150))];
    let holes = [Hole { after: Sequence(160), until: Sequence(170) }];
    let known = Known {
        points: &points,
        window: true,
        holes: &holes,
        cuts: &cuts,
        begins: Sequence(30),
        newest: Sequence(200),
        made: WallTime(1500),
    };
    let said = |asked: Asked| match known.find(&asked) {
        Ok(found) => format!("{found:?}"),
        Err(error) => error.to_string(),
    };
    let named = |text| said(Asked::Named(name(text)));
    let record = |sequence| said(Asked::Sequence(Sequence(sequence)));
    let all = [
        said(Asked::Newest),
        record(200),
        record(201),
        record(160),
        record(161),
        record(169),
        record(170),
        record(100),
        record(99),
        record(40),
        record(29),
        named("monday"),
        named("kept"),
        named("early"),
        named("missed"),
        named("nobody"),
        said(Asked::Time(WallTime(999))),
        said(Asked::Time(WallTime(1150))),
        said(Asked::Time(WallTime(1500))),
    ];
    insta::assert_snapshot!(all.join("\n"));
    let cut = |text| known.cut(&name(text)).map(|(cut, sequence)| (cut.0, sequence.0));
    assert_eq!((cut("monday"), cut("kept").is_err()), (Ok((1, 150)), true), "a pin is no cut of the group");
    let without = Known { window: false, ..known };
    assert!(without.find(&Asked::Sequence(Sequence(150))).is_err());
    assert_eq!(without.find(&Asked::Sequence(Sequence(40))), Ok(Found::Point(Sequence(40))), "pinned");
}

#[test]
fn a_name_is_pinned_once_and_pins_are_bounded() {
    let mut points = Points::beginning(moment(1, 1));
    for at in 0..PINS_MAX {
        let name = name(&format!("p{at}"));
        points.may_pin(&name).unwrap();
        points.pin(Pin { name, sequence: Sequence(1), at: WallTime(1) });
    }
    assert_eq!(points.may_pin(&name("p0")), Err(PinError::Taken(name("p0"))));
    assert_eq!(points.may_pin(&name("more")), Err(PinError::TooMany));
    assert!(points.unpin(&name("p0")) && !points.unpin(&name("p0")));
    points.may_pin(&name("more")).unwrap();
}

proptest! {
    #[test]
    fn moments_and_holes_are_bounded_and_stay_in_order(steps in proptest::collection::vec(1..50_u64, 1..3000)) {
        let (mut points, mut holes, mut at) = (Points::beginning(moment(0, 0)), Vec::new(), 0);
        for step in steps.iter().cycle().take(MOMENTS_MAX + HOLES_MAX + 500) {
            at += step;
            points.note(moment(at, at));
            add_hole(&mut holes, Hole { after: Sequence(at), until: Sequence(at + step) });
        }
        prop_assert!(points.moments().len() <= MOMENTS_MAX && holes.len() <= HOLES_MAX);
        prop_assert!(points.moments().iter().zip(points.moments().iter().skip(1)).all(|(a, b)| a.sequence < b.sequence));
        prop_assert_eq!(points.moments().back().unwrap().sequence, Sequence(at));
        prop_assert_eq!(points.moments().front().unwrap().sequence, Sequence(0));
    }
}
