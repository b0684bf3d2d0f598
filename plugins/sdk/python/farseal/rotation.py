"""Rotation policies in Python: one function that is told what happened and answers with decisions, and the part that
every policy needs and that is easy to get wrong."""

from wit_world import exports
from wit_world.exports import rotation as wit

from . import Plugin, between, guarded, later, log, meta_of, number, settings_of, span_text, state_of, state_text
from .form import check, check_action, check_plugin

# How long a rotation may stay without an answer and without a key on its way before it is asked for again.
PATIENCE = 600_000
# The wait after a first refusal; doubled by each that follows.
FIRST_RETRY = 60_000
# The longest wait after a refusal.
LAST_RETRY = 3_600_000
# The host clamps wake-ups that are closer than this.
NEAREST_WAKE = 1_000
# How much of a request's text goes into the reason.
LONGEST_QUOTE = 200


class Policy(Plugin):
    """A rotation policy: `step` changes its state and decides."""

    def step(self, state, event, cx, decisions):
        raise NotImplementedError

    def migrate(self, from_schema, own):
        """The state that an older version of this plugin kept under another schema."""
        raise ValueError(f"there is no way from schema {from_schema}")


class Cx:
    """All that a policy can know: the context of the contract, the settings, and the keys that matter."""

    def __init__(self, ctx, settings):
        self.now, self.pair, self.entropy, self.settings = ctx.now, ctx.pair, ctx.entropy, settings
        self.keys, self.limits, self.link_up = ctx.keys, ctx.limits, ctx.link_up
        # The key that seals: the active one, or the newest suspect one while nothing has replaced it.
        self.sealing = self._in_state(wit.KeyState.ACTIVE) or self._in_state(wit.KeyState.SUSPECT)
        # A key that is drawn and on its way.
        self.delivering = self._in_state(wit.KeyState.DELIVERING)
        # No two rotations begin closer together than the one; at the other age the host changes the key whatever the policy says.
        self.floor, self.ceiling = self.limits.min_interval, self.limits.max_age

    def _in_state(self, state):
        return next((key for key in self.keys if key.state == state), None)


class Decisions:
    """The answer in the making. Decisions are carried out in the order made; each has an id of its own."""

    def __init__(self, next_id):
        self.next, self.made = next_id, []

    def rotate(self, reason):
        """Ask for a new key. The reason is shown to the operator. Returns the id under which the outcome comes back."""
        return self.make("", wit.Action_Rotate(wit.Rotate(wit.How.AS_CONFIGURED, reason)))

    def wake_at(self, at, why):
        """Have `Event_Timer` sent at this time, instead of any time asked for before."""
        self.make(why, wit.Action_WakeAt(at))

    def watch_bytes(self, count, why):
        """Have `Event_Usage` sent once, when the active key has sealed this much; replaces the mark set before."""
        self.make(why, wit.Action_Watch(wit.Watch(count, None)))

    def alert(self, text):
        """Tell the operator."""
        self.make("", wit.Action_Alert(text))

    def make(self, why, action):
        check(why, "why", str)
        check_action(action, wit.Action.__args__)
        made = self.next
        self.next += 1
        self.made.append(wit.Decision(made, why, action))
        return made


class Asking:
    """One rotation at a time. `want(reason)` when a key is due; what becomes of it is looked after here. `born` is when the key in
    force came into force, never ahead of now."""

    def __init__(self):
        self._forget(0, 0)
        self.suspect = None

    @staticmethod
    def read(kept):
        """What JSON kept of it."""
        asking = Asking()
        asking.epoch, asking.born = number(kept["epoch"]), number(kept["born"])
        asking.wanted = None if kept.get("want") is None else str(kept["want"])
        asking.asked = _numbers(kept.get("asked"), ("id", "at"))
        asking.suspect = None if kept.get("suspect") is None else number(kept["suspect"])
        asking.retry = _numbers(kept.get("retry"), ("at", "refusals"))
        return asking

    def kept(self):
        every = {"epoch": self.epoch, "born": self.born, "want": self.wanted, "asked": self.asked}
        every |= {"suspect": self.suspect, "retry": self.retry}
        return {key: value for key, value in every.items() if value is not None}

    def observe(self, event, cx):
        """Call first in every step. `True` when a key has come into force since the last step."""
        is_new = self.observe_holding(event, cx)
        if isinstance(event, wit.Event_Requested):
            self.want(f"requested: {event.value[:LONGEST_QUOTE]}")
        return is_new

    def observe_holding(self, event, cx):
        """As `observe`, for a policy that holds requests back: it keeps what was asked for, calls `want` when that is to be heeded,
        and forgets it when this says `True`. A suspicion waits for nothing."""
        # A number that no key has, or has any more, must not stand before that of the key in force.
        known = [key.epoch for key in cx.keys]
        if self.suspect not in known:
            self.suspect = None
        if isinstance(event, wit.Event_Suspect) and event.value in known:
            self._suspicion(event.value)
        if isinstance(event, wit.Event_Decided):
            self._answered(event.value, cx)
        is_new = self._look_at_keys(cx)
        if self.is_suspect:
            self.want(f"the key of epoch {self.epoch} may be known to others")
            # It does not wait for the end of what an earlier wish waits for, where the host's floor allows a key.
            named = isinstance(event, wit.Event_Suspect) and event.value == self.epoch
            if named and later(self.born, cx.floor) <= cx.now:
                self.retry = None
        return is_new

    @property
    def is_suspect(self):
        """May the key in force be known to others?"""
        return self.suspect == self.epoch

    def want(self, reason):
        """A new key is wanted. The first reason stands until there is one."""
        if self.wanted is None:
            self.wanted = reason

    def ask(self, cx, decisions):
        """Asks for what is wanted, unless that was done and may still come, or a refusal was too short ago."""
        if self.asked and not cx.delivering and between(self.asked["at"], cx.now) >= PATIENCE:
            log("warn", "no answer and no key", decision=self.asked["id"])
            self.asked = None
        too_soon = self.retry and cx.now < self.retry["at"]
        if self.wanted is not None and not self.asked and not cx.delivering and not too_soon:
            self.asked = {"id": decisions.rotate(self.wanted), "at": cx.now}

    def wake_at(self, due, cx):
        """When to be woken: when asking needs it, otherwise at `due`, and never so near that the host would clamp it."""
        if cx.delivering:
            return later(cx.now, LAST_RETRY)
        if self.asked:
            due = later(self.asked["at"], PATIENCE)
        elif self.retry and self.wanted is not None:
            due = self.retry["at"]
        return later(cx.now, PATIENCE) if due < later(cx.now, NEAREST_WAKE) else due

    def _look_at_keys(self, cx):
        """Also where a clock that stepped back is noticed: what lies ahead of now is counted from now on."""
        key = cx.sealing
        if key is None:
            self.born = cx.now
            return False
        is_new = key.epoch != self.epoch
        if is_new:
            self._forget(key.epoch, min(key.since, cx.now))
        if key.state == wit.KeyState.SUSPECT:
            self._suspicion(key.epoch)
        if cx.now < self.born:
            log("info", "the clock stepped back", by=span_text(self.born - cx.now))
            self.born = cx.now
        if self.asked:
            self.asked["at"] = min(self.asked["at"], cx.now)
        if self.retry:
            self.retry["at"] = min(self.retry["at"], later(cx.now, max(LAST_RETRY, cx.floor)))
        return is_new

    def _answered(self, decided, cx):
        ours = self.asked and self.asked["id"] == decided.id
        if not ours or not isinstance(decided.outcome, wit.OutcomeOfDecision_Refused):
            return
        log("info", f"refused: {decided.outcome.value}", decision=decided.id)
        refusals = self.retry["refusals"] if self.retry else 0
        wait = min(FIRST_RETRY << min(refusals, 6), LAST_RETRY)
        floor = later(self.born, cx.floor)
        self.retry = {"at": floor if floor > cx.now else later(cx.now, wait), "refusals": min(refusals + 1, 4_294_967_295)}
        self.asked = None

    def _suspicion(self, epoch):
        self.suspect = epoch if self.suspect is None else max(self.suspect, epoch)

    def _forget(self, epoch, born):
        self.epoch, self.born = epoch, born
        self.wanted, self.asked, self.retry = None, None, None


def exported(policy):
    """The classes `Meta` and `Rotation` that world `rotation-policy` exports."""
    check_plugin(policy, Policy, "self, state, event, cx, decisions")

    def answer(own, next_id, event, ctx):
        decisions = Decisions(next_id)
        policy.step(own, event, Cx(ctx, settings_of(policy, ctx.config)), decisions)
        return wit.Outcome(state_text(policy, decisions.next, own), decisions.made)

    class Rotation(exports.Rotation):
        @guarded
        def init(self, ctx):
            return answer(policy.first(), 1, wit.Event_Started(), ctx)

        @guarded
        def step(self, state, event, ctx):
            settings_of(policy, ctx.config)
            own, next_id = state_of(policy, state)
            return answer(own, next_id, event, ctx)

        @guarded
        def migrate(self, from_schema, state):
            same = from_schema == policy.STATE_SCHEMA
            read = policy.read if same else lambda own: policy.migrate(from_schema, own)
            own, next_id = state_of(policy, state, from_schema, read)
            return state_text(policy, next_id, own)

    return meta_of(policy), Rotation


def _numbers(kept, names):
    return None if kept is None else {name: number(kept[name]) for name in names}
