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


def _demand(good, value, place, wanted):
    if not good:
        raise TypeError(f"{place} is {repr(value)[:LONGEST_VALUE]}; it must be {wanted}")
