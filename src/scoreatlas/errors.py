"""The base of every error that is the user's to mend."""


class AtlasError(RuntimeError):
    """Bad input or a damaged file: the message is one line that says what is wrong, where, and what to do."""
