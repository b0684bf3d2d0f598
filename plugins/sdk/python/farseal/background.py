"""What strategies that open the whole volume have in common: chunks in their turn, those around recent reads first and after them those
that the strategy prefers, a rate, and an operator who may pause, resume and change it.

Everything is bounded. What falls out of a bound is opened again in its turn, which costs little: the host skips blocks that are open."""

import re
from bisect import bisect_left

from . import later, number
from .form import MOST

# Chunks around recent reads that wait; the oldest fall out.
MOST_NEAR = 16
# Chunks opened out of order that are remembered; the furthest fall out.
MOST_AHEAD = 2048
# Chunks that a strategy prefers and that wait; the last fall out.
MOST_PREFERRED = 1024
# Chunks that one answer may open.
MOST_OPENING = 16
# The host clamps wake-ups that are closer than this.
NEAREST_WAKE = 1000


class Pace:
    """How fast it goes: blocks opened by one decision, 1 to 65536, chunks being opened at any time, 1 to 16, and blocks a second at
    most, 0 for as fast as it goes."""

    def __init__(self, chunk, at_once, rate=0):
        self.chunk, self.at_once, self.rate = chunk, at_once, rate


class Background:
    """How far it is. Kept between calls."""

    def __init__(self):
        self.chunks, self.paused, self.rate, self.ended = _Chunks(), False, None, False

    @staticmethod
    def read(kept):
        """What JSON kept of it."""
        background = Background()
        background.chunks = _Chunks.read(kept["sweep"])
        background.paused = kept["paused"] is True
        background.rate = None if kept["rate"] is None else number(kept["rate"])
        background.ended = kept["finished"] is True
        return background

    def kept(self):
        return {"sweep": self.chunks.kept(), "paused": self.paused, "rate": self.rate, "finished": self.ended}

    def begin(self, pace, volume_blocks):
        """The beginning, or a restart: what was being opened then is opened again."""
        self.chunks.begin(pace.chunk, volume_blocks)
        self.ended = False

    def swept(self, extent):
        """An `open` is done."""
        self.chunks.swept(extent)

    def accessed(self, extent):
        """The surroundings of this read come next."""
        self.chunks.accessed(extent)

    def prefer(self, extents):
        """These come before the rest, in this order; at most 1024 chunks of them."""
        self.chunks.prefer(extents)

    def go_on(self, pace, cx, decisions):
        """Opens as much as may be open at once, as fast as the rate lets it."""
        if self.paused or self.ended:
            return
        rate = pace.rate if self.rate is None else self.rate
        while True:
            what, *rest = self.chunks.next(cx.now, rate, pace.at_once)
            if what == "open":
                decisions.open(*rest)
                continue
            if what == "wait":
                decisions.wake_at(*rest, "the rate")
            elif what == "finished":
                self._finish(cx, decisions)
            return

    def obey(self, text, decisions):
        """An operator's `pause`, `resume`, `rate N` (blocks a second) or `rate off`."""
        wish = " ".join(text.split())
        rate = re.fullmatch(r"rate \+?([0-9]{1,20})", wish, re.ASCII)
        if wish in ("pause", "resume"):
            self.paused = wish == "pause"
        elif wish == "rate off":
            self.rate = 0
        elif rate and int(rate[1]) <= MOST:
            self.rate = int(rate[1])
        else:
            decisions.alert("not understood; there are: pause, resume, rate N (blocks a second), rate off")

    def _finish(self, cx, decisions):
        self.ended = True
        if cx.progress.failed > 0:
            decisions.alert(f"{cx.progress.failed} blocks failed verification and cannot be read")
        decisions.finished("every block was gone through")


class _Chunks:
    """Numbers are chunks, counted from the volume's start."""

    def __init__(self, size=0, volume_blocks=0):
        self.size, self.volume_blocks = size, volume_blocks
        # All chunks before the frontier are opened or being opened; near are around recent reads, the newest last; preferred by the
        # strategy, the next one last; ahead are opened or being opened, behind the frontier, ascending.
        self.frontier, self.opening, self.near, self.preferred, self.ahead = 0, [], [], [], []
        # With a rate: when the next chunk may be opened.
        self.not_before = 0

    @staticmethod
    def read(kept):
        chunks = _Chunks(number(kept["chunk"]), number(kept["volume_blocks"]))
        chunks.frontier, chunks.not_before = number(kept["frontier"]), number(kept["not_before"])
        chunks.opening = [number(chunk) for chunk in kept["opening"]][:MOST_OPENING]
        chunks.near = [number(chunk) for chunk in kept["near"]][-MOST_NEAR:]
        chunks.preferred = [number(chunk) for chunk in kept.get("preferred", [])][-MOST_PREFERRED:]
        chunks.ahead = [number(chunk) for chunk in kept["ahead"]][:MOST_AHEAD]
        return chunks

    def kept(self):
        return {
            "chunk": self.size,
            "volume_blocks": self.volume_blocks,
            "frontier": self.frontier,
            "opening": self.opening,
            "near": self.near,
            **({"preferred": self.preferred} if self.preferred else {}),
            "ahead": self.ahead,
            "not_before": self.not_before,
        }

    def begin(self, size, volume_blocks):
        if (self.size, self.volume_blocks) != (size, volume_blocks):
            self.__init__(size, volume_blocks)
        interrupted, self.opening = self.opening, []
        self.ahead = [chunk for chunk in self.ahead if chunk not in interrupted]
        self.frontier = min([self.frontier, *interrupted])

    def swept(self, extent):
        if self.size > 0:
            chunk = extent.first // self.size
            self.opening = [opening for opening in self.opening if opening != chunk]

    def accessed(self, extent):
        """The chunk of a read comes next, and the one after it behind that."""
        if self.size == 0:
            return
        chunk = (extent.first + max(extent.blocks, 1) - 1) // self.size
        for near in (chunk + 1, chunk):
            self.near = [other for other in self.near if other != near]
            if not self._is_taken(near):
                self.near.append(near)
        self.near = self.near[-MOST_NEAR:]

    def prefer(self, extents):
        if self.size == 0:
            return
        # In the order in which they came in.
        wanted = {}
        for extent in extents:
            end = min(_upwards(extent.first + extent.blocks, self.size), self._count())
            for chunk in range(extent.first // self.size, end):
                if len(wanted) == MOST_PREFERRED:
                    break
                if not self._is_taken(chunk):
                    wanted[chunk] = True
        self.preferred = list(reversed(wanted))

    def next(self, now, rate, at_once):
        """`open` and its extent and why, `wait` and until when, `finished`, or `swept`, which is waited for."""
        self._drop_taken(self.near)
        self._drop_taken(self.preferred)
        self._pass_over_ahead()
        chunk, why = self._soonest()
        if chunk is None:
            return ("swept",) if self.opening else ("finished",)
        if len(self.opening) >= at_once:
            return ("swept",)
        if rate > 0:
            pace = self.size * 1000 // rate
            # Never further ahead than one pace, even if the clock stepped back; kept, or the wait would begin anew each time.
            self.not_before = min(self.not_before, later(now, pace))
            if now < self.not_before:
                return "wait", max(self.not_before, later(now, NEAREST_WAKE))
            # What the last second left unused is caught up, as nobody is woken more often.
            self.not_before = later(max(self.not_before, now - NEAREST_WAKE), pace)
        self._take(chunk)
        first = chunk * self.size
        return "open", first, min(self.size, self.volume_blocks - first), why

    def _soonest(self):
        if self.near:
            return self.near[-1], "close to a recent read"
        if self.preferred:
            return self.preferred[-1], "written last of what is not open"
        return (self.frontier, "next in order") if self.frontier < self._count() else (None, None)

    def _take(self, chunk):
        self.near = [near for near in self.near if near != chunk]
        self.opening.append(chunk)
        if chunk == self.frontier:
            self.frontier += 1
            return
        place = bisect_left(self.ahead, chunk)
        if self.ahead[place : place + 1] != [chunk]:
            self.ahead.insert(place, chunk)
        del self.ahead[MOST_AHEAD:]

    def _pass_over_ahead(self):
        passed = 0
        while passed < len(self.ahead) and self.ahead[passed] <= self.frontier:
            self.frontier = max(self.frontier, self.ahead[passed] + 1)
            passed += 1
        del self.ahead[:passed]

    def _drop_taken(self, waiting):
        while waiting and self._is_taken(waiting[-1]):
            waiting.pop()

    def _is_taken(self, chunk):
        """Opened, being opened, or behind the volume's end."""
        if chunk < self.frontier or chunk >= self._count() or chunk in self.opening:
            return True
        place = bisect_left(self.ahead, chunk)
        return self.ahead[place : place + 1] == [chunk]

    def _count(self):
        return _upwards(self.volume_blocks, self.size) if self.size > 0 else 0


def _upwards(one, other):
    return -(-one // other)
