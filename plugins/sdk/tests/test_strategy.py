"""Recovery strategies in Python: what an author's mistake is told as, and the background's order, rate and wishes:
`python3 -m unittest plugins/sdk/tests/test_strategy.py`, once `cargo xtask plugins` has built a strategy in Python."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import farseal_testing

farseal_testing.world("recovery-strategy")

from componentize_py_types import Err
from farseal.recovery import Background, Pace, Strategy, exported
from wit_world.exports import recovery as wit
from wit_world.imports import types

BLOCKS = 10_000
PACE = Pace(1024, 2)


class Tried(Strategy):
    NAME = "tried"
    VERSION = "1.0.0"
    SUMMARY = "Does what the test wants."

    def __init__(self, deed):
        self.deed = deed

    def first(self):
        return {"background": Background()}

    def read(self, own):
        return {"background": Background.read(own["background"])}

    def step(self, state, event, cx, decisions):
        self.deed(state["background"], event, cx, decisions)


def in_turn(background, event, cx, decisions):
    match event:
        case wit.Event_Begin():
            background.begin(PACE, cx.volume_blocks)
        case wit.Event_Swept(swept):
            background.swept(swept.extent)
        case wit.Event_Accessed(reads):
            for read in reads:
                background.accessed(read)
        case wit.Event_Ext():
            background.prefer([wit.Extent(5120, 1024), wit.Extent(0, 1024)])
        case wit.Event_Requested(text):
            background.obey(text, decisions)
    background.go_on(PACE, cx, decisions)


def shown(action):
    value = getattr(action, "value", "")
    name = type(action).__name__.removeprefix("Action_")
    return f"{name} {getattr(value, 'first', value)}".strip()


def decided(*events):
    """What is decided at each of these events in turn, with what is kept read back in between: `Open 0`, `WakeAt 1500`."""
    recovery = exported(Tried(in_turn))[1]()
    state, told = recovery.init(farseal_testing.strategy_context()).state, []
    for now, event in events:
        answer = recovery.step(state, event, farseal_testing.strategy_context(now=now, volume_blocks=BLOCKS))
        state = answer.state
        told.append([shown(decision.action) for decision in answer.decisions])
    return told


def swept(first):
    return wit.Event_Swept(wit.Swept(wit.Extent(first, 1024), 1024, 0))


class Order(unittest.TestCase):
    def test_reads_come_first_then_what_is_preferred_and_after_a_restart_what_was_being_opened_has_its_turn_again(self):
        told = decided(
            (0, wit.Event_Begin()),
            (1, wit.Event_Accessed([wit.Extent(7000, 8)])),
            (2, swept(0)),
            (3, wit.Event_Ext(types.Extension("test", "{}"))),
            (4, swept(1024)),
            (5, swept(6144)),
            (6, wit.Event_Begin()),
            (7, swept(2048)),
            (8, swept(3072)),
            (9, swept(4096)),
            (10, swept(5120)),
        )
        before = [["Open 0", "Open 1024"], [], ["Open 6144"], [], ["Open 7168"], ["Open 5120"]]
        after = [["Open 2048", "Open 3072"], ["Open 4096"], ["Open 5120"], ["Open 7168"], ["Open 8192"]]
        self.assertEqual(told, before + after)

    def test_an_operator_sets_the_rate_stops_it_and_lets_it_go_on(self):
        told = decided(
            (10_000, wit.Event_Requested("rate 1024")),
            (10_000, wit.Event_Begin()),
            (11_000, wit.Event_Timer()),
            (11_500, wit.Event_Requested("pause")),
            (19_000, swept(0)),
            (20_000, wit.Event_Requested("resume")),
            (20_000, wit.Event_Requested("faster")),
        )
        refused = "Alert not understood; there are: pause, resume, rate N (blocks a second), rate off"
        # Before it begins there is nothing to open.
        self.assertEqual(told, [["Finished"], ["Open 0", "Open 1024"], [], [], [], ["Open 2048"], [refused]])

    def test_a_value_that_the_contract_has_not_is_named_with_its_place(self):
        for deed, said in [
            (lambda decisions: decisions.open(-1, 8, "x"), "first is -1; it must be a whole number from 0"),
            (lambda decisions: decisions.open(0, 1.5, "x"), "blocks is 1.5; it must be a whole number"),
            (lambda decisions: decisions.access("open", "x"), "Access is 'open'; it must be OnAccess"),
            (lambda decisions: decisions.wake_at(1 << 64, "x"), "WakeAt is 18446744073709551616"),
            (lambda decisions: decisions.make("x", "open"), "the action is 'open'; it must be an Action_.. of the contract"),
        ]:
            recovery = exported(Tried(lambda background, event, cx, decisions: deed(decisions)))[1]()
            state = recovery.init(farseal_testing.strategy_context()).state
            with self.assertRaises(Err) as raised:
                recovery.step(state, wit.Event_Begin(), farseal_testing.strategy_context())
            self.assertIn(said, raised.exception.value.value)


if __name__ == "__main__":
    unittest.main()
