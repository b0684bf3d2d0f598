"""What the build makes a component of: the plugin in `plugin.py`, behind what every plugin has around it."""

import farseal.pure  # First: a plugin that writes `from datetime import datetime` is to get this one.
import plugin
from wit_world import exports

KIND = "Rotation" if hasattr(exports, "Rotation") else "Recovery"
BASE = {"Rotation": "Policy", "Recovery": "Strategy"}[KIND]


def exported(name):
    found = getattr(plugin, name, None)
    if not isinstance(found, type):
        raise NameError(
            f"plugin.py exports no {name}: end it with `Meta, {KIND} = exported(Yours())`, where Yours is your class below {BASE}"
        )
    return found


Meta = exported("Meta")
globals()[KIND] = exported(KIND)
