"""The one exception that is meant for the user's eyes."""

import unicodedata


class UserError(Exception):
    """Bad input, told in one line that names the file and the remedy.

    The command line prints the message without a traceback and exits with code 2. Names from files may be in it: what
    would break the line, command a terminal or cannot be written is shown by its number.
    """

    def __str__(self) -> str:
        return "".join(_visible(letter) for letter in super().__str__())


class TrainingStopped(UserError):
    """Training cannot go on (for instance a non-finite loss); what was saved before is intact."""


def described(error: Exception) -> str:
    """What went wrong: an error for the user's eyes as it is, any other with its kind."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def first_line(error: Exception) -> str:
    """What an exception says, for an error message of one line; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _visible(letter: str) -> str:
    """Line breaks, other control characters and halves of letters by their escapes."""
    if unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")
