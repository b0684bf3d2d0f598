"""What an author is told of a mistake in Python, by the SDK alone: `python3 -m unittest plugins/sdk/tests/test_python.py`, once
`cargo xtask plugins` has built a policy in Python."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import farseal_testing

farseal_testing.world("rotation-policy")

from componentize_py_types import Err
from farseal import span
from farseal.rotation import Decisions, Policy, exported
from wit_world.exports import rotation as wit
from wit_world.imports import types


class Mistaken(Policy):
    NAME = "mistaken"
    VERSION = "1.0.0"
    SUMMARY = "Does what the test wants."
    STATE_SCHEMA = 1
    SETTINGS = {"every": span("1d", "How often.")}

    def __init__(self, deed):
        self.deed = deed

    def first(self):
        return {}

    def read(self, own):
        return {"seen": own["seen"]}

    def step(self, state, event, cx, decisions):
        self.deed(state, cx)


def told(deed, state=None):
    """The error of a call in which the policy does that."""
    _, rotation = exported(Mistaken(deed))
    rotation = rotation()
    context = farseal_testing.policy_context()
    try:
        if state is None:
            rotation.init(context)
        else:
            rotation.step(state, wit.Event_Started(), context)
    except Err as error:
        return error.value
    return None


class Mistakes(unittest.TestCase):
    def test_a_setting_that_was_never_declared_is_named_with_those_there_are_and_the_line(self):
        error = told(lambda state, cx: cx.settings["evry"])
        self.assertIsInstance(error, types.PluginError_Internal)
        self.assertIn("there is no setting 'evry' (did you mean every?); there are: every", error.value)
        self.assertIn("test_python.py:", error.value)

    def test_a_misspelt_field_is_named_with_the_near_one_and_the_authors_line_first(self):
        error = told(lambda state, cx: cx.sealing.bytesealed)
        self.assertRegex(error.value, r"'bytesealed'.* \(did you mean bytes_sealed\?\); it has blocks_sealed, bytes_sealed, epoch")
        self.assertRegex(error.value, r" at [^ ]*test_python\.py:\d+ in <lambda>, called at [^ ]*test_python\.py:\d+ in step; within ")

    def test_where_the_sdk_complains_the_authors_line_is_first(self):
        error = told(lambda state, cx: Decisions(1).wake_at(-1, "long ago"))
        self.assertRegex(error.value, r" at [^ ]*test_python\.py:\d+ in <lambda>.*; within [^ ]*form\.py:\d+ in ")

    def test_a_policy_that_lacks_something_is_refused_before_it_is_built(self):
        for lacking, said in [
            (type("Late", (Policy,), {"NAME": "late", "SUMMARY": "x", "stepp": Mistaken.step}), "Late has no step (did you mean stepp?)"),
            (type("Late", (Policy,), {"NAME": "late", "SUMARY": "x", "step": Mistaken.step}), "Late has no SUMMARY (did you mean SUMARY?)"),
            (type("Late", (Policy,), {"step": Mistaken.step}), 'Late has no NAME: write `NAME = ".."` in it'),
            (type("Late", (), {}), "it must be of a class below Policy"),
        ]:
            with self.assertRaises(TypeError) as raised:
                exported(lacking())
            self.assertIn(said, str(raised.exception))

    def test_what_json_cannot_keep_is_named(self):
        error = told(lambda state, cx: state.update(seen={1, 2}))
        self.assertIn("{1, 2} cannot be kept as JSON; texts, numbers, lists, dicts and what has kept() can", error.value)

    def test_a_field_that_a_state_lacks_is_named(self):
        error = told(lambda state, cx: None, '{"v":1,"next":1,"own":{}}')
        self.assertEqual(error, types.PluginError_InvalidState("missing field `seen`"))


if __name__ == "__main__":
    unittest.main()
