"""How lines of a log are shown; `--since` has a file of its own."""

from isopod.cli.logs import shown

LINE = {"at": 0.0, "stream": "stdout"}


def test_an_app_gives_a_terminal_colours_and_no_commands():
    message = "\x1b[31mred\x1b]52;c;cm0gLXJmIC8=\x07\x1b[2J\x9b5A\tend\r"
    text = shown({**LINE, "message": message}, colour=True)
    assert text.endswith("\x1b[31mred\\x1b]52;c;cm0gLXJmIC8=\\x07\\x1b[2J\\x9b5A\tend\x1b[0m")


def test_elsewhere_a_message_is_what_the_app_printed():
    assert shown({**LINE, "message": "\x1b[2J\r"}, colour=False).endswith(" \x1b[2J\r")
