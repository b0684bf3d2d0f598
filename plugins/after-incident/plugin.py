"""Rotation policy `after-incident`: keys change at a set age, and for some time after one may have become known to others much
more often. At once when it may be known, or when somebody asks."""

from farseal import between, later, number, span, span_text, wrong
from farseal.rotation import Asking, Policy, exported
from wit_world.exports.rotation import Event_Suspect


class AfterIncident(Policy):
    NAME = "after-incident"
    SUMMARY = "Changes keys at a set age, and more often for some time after an incident."
    STATE_SCHEMA = 1
    SETTINGS = {
        "interval": span("30d", "The age at which a key changes in quiet times."),
        "alarm-interval": span("1h", "The age at which a key changes after an incident."),
        "alarm": span("7d", "How long after an incident keys change more often."),
    }

    def check(self, settings):
        if settings["alarm-interval"] > settings["interval"]:
            return [wrong("alarm-interval", "more than the interval", 'for example "1h"')]
        return []

    def first(self):
        return {"asking": Asking(), "alarm": None}

    def read(self, own):
        alarm = own["alarm"]
        return {"asking": Asking.read(own["asking"]), "alarm": None if alarm is None else number(alarm)}

    def step(self, state, event, cx, decisions):
        asking, settings = state["asking"], cx.settings
        asking.observe(event, cx)
        longest = later(cx.now, settings["alarm"])
        if isinstance(event, Event_Suspect):
            if state["alarm"] is None:
                decisions.alert(f"keys change every {span_text(settings['alarm-interval'])} from now on")
            state["alarm"] = longest
        if state["alarm"] is not None:
            # A clock that stepped back makes no alarm longer than it may be.
            state["alarm"] = min(state["alarm"], longest)
            if cx.now >= state["alarm"]:
                state["alarm"] = None
                decisions.alert(f"the alarm is over: keys change every {span_text(settings['interval'])} again")

        interval = settings["interval"] if state["alarm"] is None else settings["alarm-interval"]
        due = later(asking.born, interval)
        if cx.now >= due:
            asking.want(f"the key is {span_text(between(asking.born, cx.now))} old")
        asking.ask(cx, decisions)
        if state["alarm"] is not None:
            due = min(due, state["alarm"])
        decisions.wake_at(asking.wake_at(due, cx), "the next look")


Meta, Rotation = exported(AfterIncident())
