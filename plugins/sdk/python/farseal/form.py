"""The contract's forms: what a plugin returns is checked before it crosses the border, where a wrong value ends the call without a
word."""

from dataclasses import fields, is_dataclass

MOST = (1 << 64) - 1
# Of a wrong value, so much is quoted.
LONGEST_VALUE = 80


def check(value, place, wanted=object):
    """Raises where a value, or one within it, has not the contract's form; `place` names it, `wanted` is its type where that is one."""
    if wanted is int or isinstance(value, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        _demand(whole and 0 <= value <= MOST, value, place, f"a whole number from 0 to {MOST}")
    elif wanted is str:
        _demand(isinstance(value, str), value, place, "a text")
    elif isinstance(wanted, type):
        _demand(isinstance(value, wanted), value, place, wanted.__name__)
    if is_dataclass(value):
        for field in fields(value):
            # An optional number has a type that is no class.
            number = isinstance(getattr(value, field.name), int) and not isinstance(field.type, type)
            inner = place if field.name == "value" else f"{place}.{field.name}"
            check(getattr(value, field.name), inner, int if number else field.type)


def check_action(action, actions):
    """The same of a decision's action, which is one of the contract's."""
    _demand(isinstance(action, actions), action, "the action", "an Action_.. of the contract")
    check(action, type(action).__name__.removeprefix("Action_"))


def check_plugin(plugin, base, words):
    """Raises where a plugin's class lacks what no plugin can be without: `step` with these arguments, and a name and a summary."""
    made = type(plugin)
    if not isinstance(plugin, base):
        raise TypeError(f"exported is given {repr(plugin)[:LONGEST_VALUE]}; it must be of a class below {base.__name__}")
    own = [name for name in vars(made) if not name.startswith("_")]
    if made.step is base.step:
        raise TypeError(f"{made.__name__} has no step{meant('step', own)}: write `def step({words}):` in it")
    for name in ("NAME", "SUMMARY"):
        if not getattr(plugin, name):
            raise TypeError(f"{made.__name__} has no {name}{meant(name, own)}: write `{name} = \"..\"` in it")


def meant(name, known):
    """The known name that was meant, if one is near."""

    def far(one):
        return _distance(one.replace("_", "").lower(), str(name).replace("_", "").lower())

    nearest = min(known, key=far, default=None)
    return f" (did you mean {nearest}?)" if nearest is not None and far(nearest) <= 2 else ""


def _distance(one, other):
    """How many letters are to be changed, put in or left out."""
    above = range(len(other) + 1)
    for row, letter in enumerate(one, 1):
        here = [row]
        for at, wanted in enumerate(other, 1):
            here.append(min(above[at - 1] + (letter != wanted), above[at] + 1, here[at - 1] + 1))
        above = here
    return above[-1]


def _demand(good, value, place, wanted):
    if not good:
        raise TypeError(f"{place} is {repr(value)[:LONGEST_VALUE]}; it must be {wanted}")
