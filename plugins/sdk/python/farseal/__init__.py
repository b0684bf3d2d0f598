"""What an author of a plugin in Python imports, whatever its kind: settings, state, time, log lines. The twin of
`plugins/sdk/src` in Rust and of `plugins/sdk/js` in JavaScript: the same calls give the same answers in all three."""

import json
import re

from componentize_py_types import Err
from wit_world.imports import log as host_log
from wit_world.imports import types

from .form import MOST, check, meant

# Times and spans are whole numbers of milliseconds, sizes of bytes.

# Far more decisions than any policy makes: behind it there would soon be no number left.
LAST_ID = MOST >> 1
# Lists within lists that are read: each takes some of the stack, of which a plugin has little.
DEEPEST = 100

# Largest first, as they are written.
SPANS = [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
SIZES = [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)]

LEVELS = {
    "trace": host_log.Level.TRACE,
    "debug": host_log.Level.DEBUG,
    "info": host_log.Level.INFO,
    "warn": host_log.Level.WARN,
    "error": host_log.Level.ERROR,
}
# The longest text of a mistake that is told, and of the value in it.
LONGEST_MISTAKE = 2000
LONGEST_VALUE = 400


def later(instant, span):
    """Later by the span; the last instant there is when that overflows."""
    return min(instant + span, MOST)


def between(earlier, instant):
    """From the earlier to the later; zero when `earlier` is the later one, as after a clock that stepped back."""
    return max(instant - earlier, 0)


def span_text(millis):
    """`1h30m` of milliseconds. Without weeks: "90d" says more than "12w6d"."""
    return _with_units(millis, SPANS[1:], "0s")


def size_text(count):
    """`1GiB512MiB` of bytes."""
    return _with_units(count, SIZES, "0B")


def log(level, message, **fields):
    """A line for the operator at level `debug`, `info`, `warn` or `error`, with any fields that print."""
    if level not in LEVELS:
        raise ValueError(f"the level of log is {level!r}; it must be one of {', '.join(LEVELS)}")
    host_log.emit(LEVELS[level], str(message), [host_log.Field(key, str(value)) for key, value in fields.items()])


class Setting:
    """A setting: its schema, its default as JSON, and how it is read. `None` from `read` is a complaint."""

    def __init__(self, schema, default, about, read, what, example):
        self.schema = {**schema, "description": about, "default": default}
        self.default, self.read, self.what, self.example = default, read, what, example


def span(default, about):
    """A span of time such as `"1h30m"`."""
    schema = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w))+$"}
    example = '"250ms", "15m", "1h30m", "90d"'
    return Setting(schema, default, about, lambda value: _from_units(value, SPANS), "a span of time", example)


def size(default, about):
    """A size such as `"64GiB"`."""
    schema = {"type": "string", "pattern": "^([0-9]+(B|KiB|MiB|GiB|TiB|PiB))+$"}
    return Setting(
        schema, default, about, lambda value: _from_units(value, SIZES), "a size", '"512MiB", "64GiB"'
    )


def whole(default, about, least=0, most=4_294_967_295):
    """A whole number from `least` to `most`."""

    def read(value):
        return value if type(value) is int and least <= value <= most else None

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Setting(schema, default, about, read, f"a whole number from {least} to {most}", str(default))


def text(default, about):
    """A text."""
    return Setting(
        {"type": "string"}, default, about, lambda value: value if isinstance(value, str) else None, "a text", '"text"'
    )


def wrong(name, message, help):
    """A complaint about a setting, for checks that go beyond one of them."""
    return types.Diagnostic(f"/{name}", message, help)


class Plugin:
    """What every plugin says of itself, whatever its kind."""

    NAME = ""
    VERSION = "0.1.0"
    SUMMARY = ""
    # Version of the state that it keeps; 0 when it keeps none.
    STATE_SCHEMA = 0
    # Names of extensions that it understands; the host sends no others.
    UNDERSTANDS = []
    SETTINGS = {}

    def check(self, settings):
        """What is wrong beyond one setting alone; made with `wrong`."""
        return []

    def first(self):
        """The state of a plugin that has seen nothing."""
        return {}

    def read(self, own):
        """The state, of what JSON kept of it. Raises where that is somebody else's."""
        return own


def meta_of(plugin):
    """The class that exports the interface `meta`."""
    from wit_world import exports
    from wit_world.exports import meta as wit

    class Meta(exports.Meta):
        def describe(self):
            schema = {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "additionalProperties": False,
                "properties": {name: setting.schema for name, setting in plugin.SETTINGS.items()},
            }
            return wit.About(
                plugin.NAME, plugin.VERSION, plugin.SUMMARY, plugin.STATE_SCHEMA, compact(schema), plugin.UNDERSTANDS
            )

        def check_config(self, config):
            try:
                return _checked(plugin, config)[1]
            except Exception as mistake:
                # The contract has no error to answer with: what goes wrong is logged before it ends the call.
                log("error", "a mistake", panic=_told(mistake))
                raise

    return Meta


def settings_of(plugin, config):
    """The settings of a call, or the error that ends it."""
    settings, complaints = _checked(plugin, config)
    if complaints:
        raise Err(types.PluginError_InvalidConfig(complaints))
    return settings


def state_text(plugin, next_id, own):
    """The text that the host keeps: `{"v":1,"next":7,"own":{..}}`."""
    numbered = {} if next_id is None else {"next": next_id}
    return compact({"v": plugin.STATE_SCHEMA, **numbered, "own": own})


def state_of(plugin, state, schema=None, read=None):
    """What `state_text` wrote, with the author's part read by `plugin.read`, and the next decision's id."""
    schema = plugin.STATE_SCHEMA if schema is None else schema
    try:
        kept = _parsed(state)
        if kept["v"] != schema:
            raise ValueError(f"state of schema {kept['v']}; this plugin keeps {schema}")
        next_id = number(kept.get("next", 1))
        if not 1 <= next_id <= LAST_ID:
            raise ValueError(f"{next_id} is no decision's number")
        return (read or plugin.read)(kept["own"]), next_id
    except KeyError as missing:
        raise Err(types.PluginError_InvalidState(f"missing field `{missing.args[0]}`")) from None
    except Exception as mistake:
        raise Err(types.PluginError_InvalidState(str(mistake))) from None


def number(value):
    """A number of 64 bits that `state_text` wrote."""
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"{value} is no number of 64 bits")
    return value


def compact(value):
    """JSON without blanks. What has `kept()` is written as what that returns."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_kept)


def _kept(own):
    if not hasattr(own, "kept"):
        shown = repr(own)[:LONGEST_VALUE]
        raise TypeError(f"{shown} cannot be kept as JSON; texts, numbers, lists, dicts and what has kept() can")
    return own.kept()


def guarded(call):
    """The call's errors as the contract has them. What else is raised is a mistake of the plugin's: told, not lost."""

    def guard(*words):
        try:
            return call(*words)
        except Err:
            raise
        except Exception as mistake:
            raise Err(types.PluginError_Internal(_told(mistake))) from None

    return guard


def _told(mistake):
    """What went wrong, and in which line: the author's own first, and what of the SDK was called there last. The module `traceback`
    would look for the sources, and there are no files."""
    own, ours, place = [], [], mistake.__traceback__
    sdk = _told.__code__.co_filename.removesuffix("__init__.py")
    while place is not None:
        code = place.tb_frame.f_code
        # Where the build mounts the plugin and the SDK.
        file = code.co_filename.removeprefix("/0/").removeprefix("/1/")
        side = ours if code.co_filename.startswith(sdk) else own
        side.insert(0, f"{file}:{place.tb_lineno} in {code.co_name}")
        place = place.tb_next
    within = f"; within {', called at '.join(ours)}" if own and ours else ""
    places = ", called at ".join(own or ours)
    return f"{repr(mistake)[:LONGEST_VALUE]}{_meant(mistake)} at {places}{within}"[:LONGEST_MISTAKE]


def _meant(mistake):
    """After a name that is not there: the near one, and those that are."""
    # What a module has is too much to be told.
    if not isinstance(mistake, AttributeError) or mistake.name is None or isinstance(mistake.obj, type(json)):
        return ""
    known = [name for name in dir(mistake.obj) if not name.startswith("_")]
    return f"{meant(mistake.name, known)}; it has {', '.join(known) or 'none'}"[:LONGEST_VALUE]


def _parsed(text):
    """JSON of a text; an error where it goes too deep."""
    if text.count("[") + text.count("{") > DEEPEST:
        depth = 0
        for bracket in re.finditer(r"[\[{\]}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
            depth += 1 if bracket[0] in "[{" else -1
            if depth > DEEPEST:
                raise ValueError(f"lists within lists, more than {DEEPEST}")
    return json.loads(text)


def _checked(plugin, config):
    settings, complaints = _read_settings(plugin.SETTINGS, config)
    if not complaints:
        complaints = plugin.check(settings)
        if not isinstance(complaints, list):
            raise TypeError(f"check returns {complaints!r}; it must be a list of what `wrong` makes, empty when nothing is")
        for at, one in enumerate(complaints):
            check(one, f"what check returns[{at}]", types.Diagnostic)
    return settings, complaints


def _read_settings(declared, config):
    """The settings that the operator wrote, or every complaint about them."""
    try:
        given = _parsed(config)
    except Exception as mistake:
        return {}, [types.Diagnostic("", f"not JSON: {mistake}", None)]
    if not isinstance(given, dict):
        return {}, [types.Diagnostic("", "the settings must be a JSON object", None)]
    settings, complaints = _Settings(), []
    for name, setting in declared.items():
        value = given.get(name, setting.default)
        settings[name] = setting.read(value)
        if settings[name] is None:
            complaints.append(wrong(name, f"{compact(value)} is not {setting.what}", f"for example {setting.example}"))
    help = f"there are: {', '.join(declared)}" if declared else "there are no settings"
    for name in sorted(given.keys() - declared.keys()):
        pointer = name.replace("~", "~0").replace("/", "~1")
        complaints.append(wrong(pointer, f'there is no setting "{name}"', help))
    return settings, complaints


class _Settings(dict):
    """Settings by name. One that was never declared is an error that says which there are."""

    def __missing__(self, name):
        raise KeyError(f"there is no setting {name!r}{meant(name, self)}; there are: {', '.join(self) or 'none'}")


def _from_units(value, units):
    """Numbers with units, one after the other without gaps, each unit smaller than the one before."""
    if not isinstance(value, str) or not re.fullmatch("([0-9]+[A-Za-z]+)+", value) or len(value) > 200:
        return None
    total = 0
    for digits, unit in re.findall("([0-9]+)([A-Za-z]+)", value):
        place = next((place for place, (known, _) in enumerate(units) if known == unit), None)
        if place is None:
            return None
        total += int(digits) * units[place][1]
        units = units[place + 1 :]
    return total if total <= MOST else None


def _with_units(value, units, zero):
    written = ""
    for unit, worth in units:
        if value >= worth:
            written += f"{value // worth}{unit}"
            value %= worth
    return written or zero
