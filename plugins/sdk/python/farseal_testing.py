"""For tests of a plugin in plain Python (`python3 -m unittest`, 3.11 or later), without a component: call `world` before the plugin
is imported. What the plugin logs is kept in `logged`."""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DAY = 86_400_000
# Lines that were logged: (level, message, fields).
logged = []

sys.dont_write_bytecode = True


def world(name):
    """Makes the contract's types importable, which `cargo xtask plugins` writes for each world."""
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    bindings = target / "tools/python/bindings" / name
    if not bindings.is_dir():
        raise FileNotFoundError(f"{bindings}: run cargo xtask plugins for this plugin once")
    sys.path.insert(0, str(bindings))
    from wit_world.imports import log

    log.emit = lambda *line: logged.append(line)


def policy_context(settings={}, **differs):
    """What a policy is told on an ordinary pair, but for what differs; settings as the operator writes them."""
    from wit_world.exports import rotation as wit

    ordinary = {
        "now": 0,
        "pair": "pair",
        "entropy": 7919,
        "config": json.dumps(settings),
        "keys": [wit.KeyInfo(1, wit.KeyState.ACTIVE, 0, 0, 0, 0)],
        "limits": wit.HostLimits(DAY // 24, 180 * DAY, 1 << 40),
        "link_up": True,
    }
    return wit.Context(**{**ordinary, **differs})


def strategy_context(settings={}, **differs):
    """The same of a recovery strategy, over a volume of 10 000 blocks."""
    from wit_world.exports import recovery as wit

    ordinary = {
        "now": 0,
        "volume": "volume",
        "config": json.dumps(settings),
        "volume_blocks": 10_000,
        "progress": wit.Progress(10_000, 0, 0),
        "entropy": 7919,
    }
    return wit.Context(**{**ordinary, **differs})
