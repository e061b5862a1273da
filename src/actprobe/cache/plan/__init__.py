"""The plan: which targets are there, missing or stale, and which jobs make what is needed.

Planning compares wanted keys with the cache: what is stale is a file that does not exist under its
new key. The walk goes from the wanted targets down and stops at what is there. Pending targets are
joined into batches, one per thing that is expensive to load, whose outputs are exactly the pending
files. A plan is made once, by the main process, and handed to the job processes as a JSON file.
"""

from actprobe.cache.plan.batching import Batch, batches
from actprobe.cache.plan.cache import (
    DAMAGED,
    ELSEWHERE,
    FINISHED,
    IN_PLACE,
    MISSING,
    STALE,
    THERE,
    Cache,
    State,
    explain,
)
from actprobe.cache.plan.frozen import freeze, thaw
from actprobe.cache.plan.making import Plan, make, pending, take_over
from actprobe.cache.plan.records import Nothing, Record, plain
from actprobe.cache.plan.targets import SourceArgs, Target, only, target

__all__ = [
    "DAMAGED",
    "ELSEWHERE",
    "FINISHED",
    "IN_PLACE",
    "MISSING",
    "STALE",
    "THERE",
    "Batch",
    "Cache",
    "Nothing",
    "Plan",
    "Record",
    "SourceArgs",
    "State",
    "Target",
    "batches",
    "explain",
    "freeze",
    "make",
    "only",
    "pending",
    "plain",
    "take_over",
    "target",
    "thaw",
]
