"""Operators: descriptions of steps, one class each, and functions on streams for graphs that are no line."""

from streamflow.operators.aggregators import Aggregator, Count, Mean, Sum, ToList
from streamflow.operators.batch import Batch
from streamflow.operators.branch import fan_out, merge, split
from streamflow.operators.count_window import CountWindow
from streamflow.operators.filter import Filter
from streamflow.operators.flat_map import FlatMap, Flatten
from streamflow.operators.fold import Fold, Reduce
from streamflow.operators.inspect import Inspect, PassThrough
from streamflow.operators.keyed import Keyed
from streamflow.operators.lookup import Lookup
from streamflow.operators.map import Map
from streamflow.operators.map_async import MapAsync
from streamflow.operators.session_window import SessionWindow
from streamflow.operators.sliding_window import SlidingWindow
from streamflow.operators.take import Skip, Take
from streamflow.operators.throttle import Throttle
from streamflow.operators.tumbling_window import TumblingWindow

__all__ = [
    "Aggregator",
    "Batch",
    "Count",
    "CountWindow",
    "Filter",
    "FlatMap",
    "Flatten",
    "Fold",
    "Inspect",
    "Keyed",
    "Lookup",
    "Map",
    "MapAsync",
    "Mean",
    "PassThrough",
    "Reduce",
    "SessionWindow",
    "Skip",
    "SlidingWindow",
    "Sum",
    "Take",
    "Throttle",
    "ToList",
    "TumblingWindow",
    "fan_out",
    "merge",
    "split",
]
