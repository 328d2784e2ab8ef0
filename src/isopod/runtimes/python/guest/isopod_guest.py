"""For apps that want to know: hooks around a snapshot. `import isopod_guest` works where isopod
serves the app; an app that also runs elsewhere guards the import.

    @isopod_guest.before_snapshot
    def close_things(): ...

    @isopod_guest.after_restore
    def open_things(): ...
"""

_before = []
_after = []


def before_snapshot(function):
    """Call `function()` once, before the memory image of this app is taken."""
    _before.append(function)
    return function


def after_restore(function):
    """Call `function()` in each new instance that starts from the image, before its requests."""
    _after.append(function)
    return function
