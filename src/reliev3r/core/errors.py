"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Bad input, told in one line that names the file and the remedy.

    The command line prints the message without a traceback and exits with code 2.
    """


class TrainingStopped(UserError):
    """Training cannot go on (for instance a non-finite loss); what was saved before is intact."""
