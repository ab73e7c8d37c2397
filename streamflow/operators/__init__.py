"""Operators: descriptions of steps, one class each, and functions on streams for graphs that are no line."""

from streamflow.operators.aggregators import Aggregator, Count, Mean, Sum, ToList
from streamflow.operators.batch import Batch
from streamflow.operators.buffer import Buffer
from streamflow.operators.combine import Aggregate, Combine
from streamflow.operators.concat import concat
from streamflow.operators.count_window import CountWindow
from streamflow.operators.debounce import Debounce
from streamflow.operators.deduplicate import Deduplicate
from streamflow.operators.delay import Delay
from streamflow.operators.extremes import Max, Min, TopK
from streamflow.operators.fan_out import fan_out
from streamflow.operators.filter import Filter
from streamflow.operators.filter_async import FilterAsync
from streamflow.operators.flat_map import FlatMap, Flatten
from streamflow.operators.flat_map_async import FlatMapAsync
from streamflow.operators.fold import Fold, Reduce
from streamflow.operators.from_aiostream import FromAiostream
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
from streamflow.operators.sample import Sample
from streamflow.operators.session_window import SessionWindow
from streamflow.operators.sliding_window import SlidingWindow
from streamflow.operators.split import split
from streamflow.operators.stateful_map import StatefulMap
from streamflow.operators.take import Skip, Take
from streamflow.operators.take_while import DropWhile, TakeWhile
from streamflow.operators.throttle import Throttle
from streamflow.operators.timeout import Timeout
from streamflow.operators.tumbling_window import TumblingWindow
from streamflow.operators.zip_latest import zip_latest
from streamflow.operators.zip_with import zip_with

__all__ = [
    "Aggregate",
    "Aggregator",
    "Batch",
    "Buffer",
    "Combine",
    "Count",
    "CountWindow",
    "Debounce",
    "Deduplicate",
    "Delay",
    "DropWhile",
    "Filter",
    "FilterAsync",
    "FlatMap",
    "FlatMapAsync",
    "Flatten",
    "Fold",
    "FromAiostream",
    "Inspect",
    "Keyed",
    "Lookup",
    "Map",
    "MapAsync",
    "Max",
    "Mean",
    "Min",
    "PassThrough",
    "Reduce",
    "Sample",
    "SessionWindow",
    "Skip",
    "SlidingWindow",
    "StatefulMap",
    "Sum",
    "Take",
    "TakeWhile",
    "Throttle",
    "Timeout",
    "ToList",
    "TopK",
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
