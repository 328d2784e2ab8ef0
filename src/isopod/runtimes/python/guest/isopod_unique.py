"""What two processes must not have in common: random generators, names, UUIDs.

`renew` gives each generator that was found in the image a new state, also one that the app seeded
itself: to tell a wanted sequence from a secret one is not possible here, and a number that two
instances share may be a session's name.
"""

import sys
import time

_generators = []  # (label, object)


def classes():
    """(label, type) of what to look for, of modules that the app has loaded."""

    def of(module, name):
        return getattr(sys.modules.get(module), name, None)

    bits = "numpy.random.bit_generator"
    found = (
        ("", of("random", "SystemRandom")),  # the host's randomness: nothing to renew
        ("random", of("_random", "Random")),
        ("numpy", of(bits, "BitGenerator")),
        ("numpy state", of("numpy.random.mtrand", "RandomState")),
        ("numpy seeds", of(bits, "SeedSequence")),
    )
    return [(label, kind) for label, kind in found if kind]


def remember(label, thing):
    """Renew `thing` in each instance. Raises when that does not work."""
    if label == "numpy state":
        # The second value of a pair of normal ones; its bit generator is found by itself.
        state = thing.get_state(legacy=False)
        state.update(has_gauss=0, gauss=0.0)
        thing.set_state(state)
        return
    _renew(label, thing)
    _generators.append((label, thing))


def _renew(label, thing):
    if label == "random":
        try:
            thing.seed()
        except TypeError:  # a subclass whose seed wants something
            super(type(thing), thing).seed()
    elif label == "numpy":
        # Also the sequence that it spawns others from.
        thing.__setstate__(type(thing)().__getstate__())
    else:
        thing.__setstate_cython__(type(thing)().__reduce_cython__()[2])


def renew():
    for label, thing in _generators:
        _renew(label, thing)
    forget()


def forget():
    """Caches that make two processes look like one."""
    uuid = sys.modules.get("uuid")
    if uuid:
        uuid._node = None
        for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
            if hasattr(uuid, name):
                setattr(uuid, name, None)
        if hasattr(uuid, "_last_counter_v7"):
            uuid._last_counter_v7 = 0
    tempfile = sys.modules.get("tempfile")
    if tempfile:
        tempfile._name_sequence = None
    logging = sys.modules.get("logging")
    if logging and hasattr(logging, "_startTime"):
        logging._startTime = time.time_ns()
