"""Errors with an address: what a user function or a connector raises is told with the pipeline and the step."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from streamflow.engine.observer import Observer
from streamflow.errors import (
    ConfigurationError,
    ConnectorError,
    DriftError,
    StateError,
    StepError,
    StreamflowError,
    located,
)
from streamflow.policies import ErrorPolicy, Fail


class Guard:
    """The error policy of one step, with what an error report needs."""

    def __init__(self, pipeline: str, policy: ErrorPolicy, observer: Observer) -> None:
        self.pipeline = pipeline
        self.policy = policy
        self.observer = observer
        self.may_absorb = not isinstance(policy, Fail)

    def failure(self, error: BaseException, step: str, element: Any) -> StepError:
        """Describe what was raised. A StopIteration that Python wrapped on its way is unwrapped again."""
        if isinstance(error, StepError):
            return error
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
            error = error.__cause__
        return StepError(pipeline=self.pipeline, step=step, cause=error, element=element)

    def absorbs(self, failure: StepError) -> bool:
        """Whether to go on without the element.

        An interrupt or exit raised in a step is never absorbed, nor is a state that cannot be saved, or branches that
        drift apart: it is not the element's fault, and going on without it would lose what came before.
        """
        fatal = isinstance(failure.cause, KeyboardInterrupt | SystemExit | StateError | DriftError)
        absorbed = not fatal and self.policy.absorbs(failure)
        self.observer.failed(failure, absorbed)
        return absorbed

    def decide(self, error: BaseException, step: str, element: Any) -> None:
        """Return if the policy absorbs the error, else raise it as a `StepError`."""
        failure = self.failure(error, step, element)
        if not self.absorbs(failure):
            raise failure from failure.cause


def reraise(error: BaseException, pipeline: str, step: str) -> NoReturn:
    """Raise an error of a connector with the place where it happened; what is not ours becomes a `ConnectorError`."""
    if isinstance(error, ConnectorError):
        error.pipeline = error.pipeline or pipeline
        error.step = error.step or step
    task = asyncio.current_task()
    asked_for = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
    # A cancellation that we did not ask for would end this task without a word, and the others would wait for ever.
    if isinstance(error, ConfigurationError) and not str(error).startswith("pipeline "):
        raise type(error)(located(str(error), pipeline, step)) from error.__cause__
    if isinstance(error, StreamflowError) or asked_for:
        raise error
    raise ConnectorError(f"{type(error).__name__}: {error}", pipeline=pipeline, step=step) from error
