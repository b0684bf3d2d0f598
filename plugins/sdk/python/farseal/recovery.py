"""Recovery strategies in Python: one function that is told what happened and plans what is opened next."""

from wit_world import exports
from wit_world.exports import recovery as wit

from . import Plugin, guarded, meta_of, settings_of, state_of, state_text
from .background import Background as Background
from .background import Pace as Pace
from .form import check, check_action, check_plugin


class Strategy(Plugin):
    """A recovery strategy: `step` changes its state and plans. `Event_Begin` comes first, and after every restart."""

    def step(self, state, event, cx, decisions):
        raise NotImplementedError


class Cx:
    """All that a strategy can know: the context of the contract, and the settings."""

    def __init__(self, ctx, settings):
        self.now, self.volume, self.entropy, self.settings = ctx.now, ctx.volume, ctx.entropy, settings
        self.volume_blocks, self.progress = ctx.volume_blocks, ctx.progress


class Decisions:
    """The answer in the making: at most 64 decisions, of which at most 16 open."""

    def __init__(self):
        self.made = []

    def open(self, first, blocks, why):
        """Open in the background what is not open yet in this extent of at most 65 536 blocks."""
        self.make(why, wit.Action_Open(wit.Extent(first, blocks)))

    def access(self, rule, why):
        """The rule for accesses to blocks that are not open yet: of `OnAccess`."""
        self.make(why, wit.Action_Access(rule))

    def wake_at(self, at, why):
        """Be called again then; at most one an answer, no sooner than a second from now."""
        self.make(why, wit.Action_WakeAt(at))

    def finished(self, why):
        """Nothing more to open in the background."""
        self.make(why, wit.Action_Finished())

    def alert(self, text):
        """Tell the operator."""
        self.make("", wit.Action_Alert(text))

    def make(self, why, action):
        check(why, "why", str)
        check_action(action, wit.Action.__args__)
        self.made.append(wit.Decision(why, action))


def exported(strategy):
    """The classes `Meta` and `Recovery` that world `recovery-strategy` exports."""
    check_plugin(strategy, Strategy, "self, state, event, cx, decisions")

    def answer(own, ctx, event):
        decisions = Decisions()
        strategy.step(own, event, Cx(ctx, settings_of(strategy, ctx.config)), decisions)
        return wit.Outcome(state_text(strategy, None, own), decisions.made)

    class Recovery(exports.Recovery):
        @guarded
        def init(self, ctx):
            # `Event_Begin` follows, so that nothing is decided here.
            settings_of(strategy, ctx.config)
            return wit.Outcome(state_text(strategy, None, strategy.first()), [])

        @guarded
        def step(self, state, event, ctx):
            settings_of(strategy, ctx.config)
            own, _ = state_of(strategy, state)
            return answer(own, ctx, event)

    return meta_of(strategy), Recovery
