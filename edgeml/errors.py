"""The one exception that a user is meant to read."""


class EdgemlError(Exception):
    """A failure that is explained by its message alone: the cause, then the fix, in one sentence.

    Raise it wherever the user can do something about it; the command line prints the message
    without a traceback and exits with `exit_code` (1: the work failed or was refused, 2: it could
    not be started because of what was asked or of what is missing).
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
