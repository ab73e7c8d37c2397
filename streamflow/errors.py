"""Every error that streamflow raises, in one tree under `StreamflowError`.

Errors of clients and libraries are mapped to these at the edge where they occur, with the original as ``__cause__``.
"""

from __future__ import annotations

from typing import Any

_SHOWN = 120


class StreamflowError(Exception):
    """The root: ``except StreamflowError`` catches whatever this library raises on purpose."""


class ConfigurationError(StreamflowError, ValueError):
    """A description that cannot work: a bad argument, or a setting in conflict. Raised before anything runs."""


class PlanError(ConfigurationError):
    """A pipeline that is refused before it starts, with the reason and, where there is one, the line to add."""


class GuaranteeError(PlanError):
    """A delivery promise that this pipeline cannot keep."""


class ConnectorError(StreamflowError):
    """A source or sink could not do its work: no server, a stream in conflict, a rejected publish."""

    def __init__(self, message: str, *, pipeline: str | None = None, step: str | None = None) -> None:
        self.message = message
        self.pipeline = pipeline
        self.step = step
        super().__init__(message)

    def __str__(self) -> str:
        return located(self.message, self.pipeline, self.step)


class CodecError(StreamflowError):
    """A payload that does not decode, or a value that does not encode."""


class MissingKeyError(StreamflowError, KeyError):
    """A table has no entry for the key of an element, and there is no default."""

    def __init__(self, key: object) -> None:
        self.key = key
        super().__init__(f"the table has no entry for {shorten(key)}")

    __str__ = Exception.__str__  # KeyError's shows the repr of its argument


class StateError(StreamflowError):
    """Saved state that cannot be read, written, or matched with the pipeline that asks for it."""


class FullError(StateError):
    """A bucket, or the store of its server, has no room for more."""


class FencedError(StateError):
    """Another run has become the owner of the pipeline's checkpoints: this one must not go on."""


class DriftError(StreamflowError):
    """Branches of one source that are put together again are further apart than can be held."""


class ConflictError(StateError):
    """A key was changed by somebody else: nothing was written.

    ``bucket`` and ``key`` say where, ``attempts`` how often it was tried.
    """

    def __init__(self, bucket: str, key: str, attempts: int = 1, detail: str = "") -> None:
        self.bucket = bucket
        self.key = key
        self.attempts = attempts
        self.detail = detail
        super().__init__(bucket, key, attempts, detail)

    def __str__(self) -> str:
        again = f", also in the last of {self.attempts} attempts" if self.attempts > 1 else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"bucket {self.bucket!r}, key {shorten(self.key)} was changed by somebody else{again}{detail}"


class StepError(StreamflowError):
    """A step failed on an element.

    ``pipeline``, ``step`` and ``element`` say where; ``cause`` (also ``__cause__``) is what was raised.
    The element is the input of the fused run that the step belongs to: give a step its own ``on_error=`` to make
    it the step's own input.
    """

    def __init__(self, *, pipeline: str, step: str, cause: BaseException, element: Any = None) -> None:
        self.pipeline = pipeline
        self.step = step
        self.cause = cause
        self.element = element
        self.__cause__ = cause
        super().__init__(pipeline, step, cause)

    def __str__(self) -> str:
        reason = (
            f"{type(self.cause).__name__}: {self.cause}" if str(self.cause) else type(self.cause).__name__
        )
        hints = "".join(f" ({note})" for note in getattr(self.cause, "__notes__", ()))
        on = "" if self.element is None else f" on {shorten(self.element)}"
        return located(f"failed{on}: {reason}{hints}", self.pipeline, self.step)


def located(message: str, pipeline: str | None, step: str | None) -> str:
    """Put the pipeline and the step, as far as they are known, in front of a message."""
    where = [f"pipeline {pipeline!r}"] if pipeline else []
    where += [f"step {step!r}"] if step else []
    return f"{', '.join(where)}: {message}" if where else message


def shorten(value: object) -> str:
    """A ``repr`` that fits a log line and never raises."""
    try:
        text = repr(value)
    except Exception as exc:
        text = f"<{type(value).__name__} whose repr failed: {type(exc).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
