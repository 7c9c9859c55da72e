"""Errors a user can cause, and the exit code each one ends with."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of ``hrnet``; the table in README.md is checked against this."""

    OK = 0
    BUG = 1
    USAGE = 2
    INPUT = 3
    WEIGHTS = 4
    CONFIG = 5
    DEVICE = 6
    TRAINING = 7
    OUTPUT = 8
    INTERRUPTED = 130


class HrnetError(Exception):
    """A problem the user can act on: printed as one ``error:`` and one ``hint:`` line.

    Args:
        message: What is the matter: the value, the place and what was expected.
        hint: What to do next: a command to run or a key to change; empty when the message says it.
    """

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HrnetError):
    """Options that contradict each other, found before anything heavy loads."""

    exit_code = ExitCode.USAGE


class InputError(HrnetError):
    """A photo, folder, list or boxes file that cannot be used."""

    exit_code = ExitCode.INPUT


class NoSplitError(InputError):
    """A data set without the part asked for; a training goes without one to measure on."""


class WeightsError(HrnetError):
    """Weights that are unknown, unreachable, damaged or do not fit the network."""

    exit_code = ExitCode.WEIGHTS


class ConfigError(HrnetError):
    """A TOML file (keypoint schema, connections, weights list) that says something wrong."""

    exit_code = ExitCode.CONFIG


class DeviceError(HrnetError):
    """A compute device that is absent, or out of memory."""

    exit_code = ExitCode.DEVICE


class TrainingError(HrnetError):
    """A training run that cannot go on."""

    exit_code = ExitCode.TRAINING


class OutputError(HrnetError):
    """Output that cannot be written, or that would overwrite what is there."""

    exit_code = ExitCode.OUTPUT


class TargetError(OutputError):
    """The output of one source that this run must leave alone; it may go on with other sources."""
