"""The two ways a command can end badly."""

_STORES = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure")


class RequestError(Exception):
    """The request is wrong: the message names the field, file or flag and says what to do. Exit code 2."""


class WorkError(Exception):
    """The request was fine and the work failed; running the same command again resumes it. Exit code 1."""


def of_a_store(error: BaseException) -> bool:
    """Whether an error is one of the libraries' that fsspec speaks to stores with, which are no OSError."""
    return type(error).__module__.split(".")[0] in _STORES
