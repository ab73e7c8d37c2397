"""Operators: descriptions of steps, one class each, and functions on streams for graphs that are no line."""

from streamflow.operators.aggregators import Aggregator, Count, Mean, Sum, ToList
from streamflow.operators.batch import Batch
from streamflow.operators.concat import concat
from streamflow.operators.fan_out import fan_out
from streamflow.operators.filter import Filter
from streamflow.operators.flat_map import FlatMap, Flatten
from streamflow.operators.fold import Fold, Reduce
from streamflow.operators.inspect import Inspect, PassThrough
from streamflow.operators.join import join
from streamflow.operators.keyed import Keyed
from streamflow.operators.lookup import Lookup
from streamflow.operators.map import Map
from streamflow.operators.map_async import MapAsync
from streamflow.operators.merge import merge
from streamflow.operators.partition import partition
from streamflow.operators.round_robin import round_robin
from streamflow.operators.route import route
from streamflow.operators.sliding_window import SlidingWindow
from streamflow.operators.split import split
from streamflow.operators.take import Skip, Take
from streamflow.operators.throttle import Throttle
from streamflow.operators.tumbling_window import TumblingWindow
from streamflow.operators.zip_latest import zip_latest
from streamflow.operators.zip_with import zip_with

__all__ = [
    "Aggregator",
    "Batch",
    "Count",
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
    "Skip",
    "SlidingWindow",
    "Sum",
    "Take",
    "Throttle",
    "ToList",
    "TumblingWindow",
    "concat",
    "fan_out",
    "join",
    "merge",
    "partition",
    "round_robin",
    "route",
    "split",
    "zip_latest",
    "zip_with",
]
