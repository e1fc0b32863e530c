"""The two ways a command can end badly."""


class RequestError(Exception):
    """The request is wrong: the message names the field, file or flag and says what to do. Exit code 2."""


class WorkError(Exception):
    """The request was fine and the work failed; running the same command again resumes it. Exit code 1."""
