"""Checkpoints in a bucket: one atomic batch for each, written by one owner at a time."""

from streamflow.state.checkpoints.opening import open_log

__all__ = ["open_log"]
