"""What a plugin may not ask: the clock and chance. In a component the one ends the call without a word and the other gives the same
numbers every time; so asking is an error that says where time and chance come from. The build imports this before the plugin."""

import datetime
import os
import random
import time


class NotThere(RuntimeError):
    """Something was asked for that a component does not have."""


def refusing(what):
    """A function that answers every call with the error."""

    def refuse(*_words, **_named):
        raise NotThere(
            f"{what} is not there: a policy gets its time from context.now and its chance from context.entropy "
            "(cx.now and cx.entropy in step)"
        )

    return refuse


CLOCKS = ["time", "monotonic", "perf_counter", "process_time", "thread_time"]


def _without_clock():
    for name in [*CLOCKS, *(f"{name}_ns" for name in CLOCKS), "sleep", "clock_gettime", "clock_gettime_ns"]:
        if hasattr(time, name):
            setattr(time, name, refusing(f"time.{name}()"))
    # Of these only the use without an argument asks the clock.
    for name, given in [("gmtime", 1), ("localtime", 1), ("ctime", 1), ("asctime", 1), ("strftime", 2)]:
        setattr(time, name, _with_words(getattr(time, name), given, f"time.{name}() without a time"))


def _with_words(call, given, what):
    def checked(*words):
        return call(*words) if len(words) >= given and words[given - 1] is not None else refusing(what)()

    return checked


class _Date(datetime.date):
    today = classmethod(refusing("date.today()"))


class _Datetime(datetime.datetime):
    today = classmethod(refusing("datetime.today()"))
    now = classmethod(refusing("datetime.now()"))
    utcnow = classmethod(refusing("datetime.utcnow()"))


def _without_today():
    for name, mine in [("date", _Date), ("datetime", _Datetime)]:
        mine.__name__ = mine.__qualname__ = name
        setattr(datetime, name, mine)


class _Seeded(random.Random):
    """Chance that follows from a seed, which repeats by intention."""

    def __new__(cls, seed=None, *_words):
        return super().__new__(cls, 0) if seed is not None else refusing("random.Random() without a seed")()


def _without_chance():
    for name in random.__all__:
        if getattr(getattr(random, name), "__self__", None) is random._inst:
            setattr(random, name, refusing(f"random.{name}()"))
    _Seeded.__name__ = _Seeded.__qualname__ = "Random"
    random.Random = _Seeded
    os.urandom = random._urandom = refusing("os.urandom()")


_without_clock()
_without_today()
_without_chance()
