"""Errors that stop a run. What goes wrong with one report pair is not an error but a failed `Judgement`."""


class CrimsonError(Exception):
    """Base of every error that this package raises on purpose; its text never holds report text or a key."""


class InputError(CrimsonError, ValueError):
    """What came in cannot be scored; the text names the argument (and the row) and says what to do."""


class InputWarning(UserWarning):
    """What came in was taken otherwise than it stands; the text names the place and holds no report text."""


class JudgeError(CrimsonError, RuntimeError):
    """The judge that was asked for cannot be had or cannot go on; the text says what to do."""


class StoreError(CrimsonError, RuntimeError):
    """The store of judgements cannot be read or written; the text says what to do."""


class DamagedStoreError(StoreError):
    """The store's file is damaged."""
