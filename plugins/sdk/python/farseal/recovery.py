"""Recovery strategies in Python: one function that is told what happened and plans what is opened next."""

from wit_world import exports
from wit_world.exports import recovery as wit

from . import Plugin, guarded, meta_of, number, settings_of, state_of, state_text
from .form import check, check_action


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


class InOrder:
    """The whole volume from its first block on, so many blocks a decision and so many decisions at a time."""

    def __init__(self):
        self._restart(0, 0)

    @staticmethod
    def read(kept):
        """What JSON kept of it."""
        order = InOrder()
        order.chunk, order.blocks, order.next = number(kept["chunk"]), number(kept["blocks"]), number(kept["next"])
        order.opening = [number(first) for first in kept["opening"]][:16]
        order.ended = kept["finished"] is True
        return order

    def kept(self):
        return {
            "chunk": self.chunk,
            "blocks": self.blocks,
            "next": self.next,
            "opening": self.opening,
            "finished": self.ended,
        }

    def begin(self, chunk, blocks):
        """The beginning, or a restart: what was being opened then is opened again."""
        if (self.chunk, self.blocks) != (chunk, blocks):
            self._restart(chunk, blocks)
        self.next = min([self.next, *self.opening])
        self.opening, self.ended = [], False

    def swept(self, extent):
        """An `open` is done."""
        self.opening = [first for first in self.opening if first != extent.first]

    def go_on(self, at_once, cx, decisions):
        """Opens as much as may be open at once."""
        while self.chunk > 0 and self.next < self.blocks and len(self.opening) < at_once:
            blocks = min(self.chunk, self.blocks - self.next)
            decisions.open(self.next, blocks, "next in order")
            self.opening.append(self.next)
            self.next += blocks
        if self.next >= self.blocks and not self.opening and not self.ended:
            self.ended = True
            if cx.progress.failed > 0:
                decisions.alert(f"{cx.progress.failed} blocks failed verification and cannot be read")
            decisions.finished("every block was gone through")

    def _restart(self, chunk, blocks):
        self.chunk, self.blocks, self.next, self.opening, self.ended = chunk, blocks, 0, [], False


def exported(strategy):
    """The classes `Meta` and `Recovery` that world `recovery-strategy` exports."""

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
