"""Rotation policy `planted`: what authors get wrong in Python, each mistake at the request of its name."""

import datetime
import os
import random
import time
from datetime import datetime as moment

from farseal import log
from farseal.rotation import Policy, exported
from wit_world.exports.rotation import Action_Alert, Action_Rotate, Event_Requested, Rotate

MISTAKES = {
    "time": lambda cx, decisions: time.time(),
    "datetime-now": lambda cx, decisions: datetime.datetime.now(),
    "from-datetime": lambda cx, decisions: moment.now(),
    "random": lambda cx, decisions: random.random(),
    "choice": lambda cx, decisions: random.choice([1, 2]),
    "unseeded": lambda cx, decisions: random.Random(),
    "urandom": lambda cx, decisions: os.urandom(8),
    "beyond-64-bits": lambda cx, decisions: decisions.wake_at(cx.now + (1 << 64), "far away"),
    "negative": lambda cx, decisions: decisions.wake_at(-1, "long ago"),
    "fraction": lambda cx, decisions: decisions.watch_bytes(1.5, "half a byte"),
    "misspelt-key": lambda cx, decisions: cx.sealing.bytesealed,
    "misspelt-setting": lambda cx, decisions: cx.settings["intervall"],
    "no-action": lambda cx, decisions: decisions.make("", "rotate"),
    "no-how": lambda cx, decisions: decisions.make("", Action_Rotate(Rotate("pause", "x"))),
    "no-text": lambda cx, decisions: decisions.make("", Action_Alert(5)),
    "log-level": lambda cx, decisions: log("warning", "x"),
    "raised": lambda cx, decisions: None.x,
}


class Planted(Policy):
    NAME = "planted"
    SUMMARY = "Goes wrong when it is asked to."

    def step(self, state, event, cx, decisions):
        # Chance that follows from what a policy is given is as good as any other.
        assert random.Random(cx.entropy).random() == random.Random(cx.entropy).random()
        assert moment.fromtimestamp(cx.now / 1000, datetime.timezone.utc).year >= 2026
        if isinstance(event, Event_Requested) and event.value in MISTAKES:
            MISTAKES[event.value](cx, decisions)


Meta, Rotation = exported(Planted())
