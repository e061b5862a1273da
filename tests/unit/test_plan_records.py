"""Records: what a frozen plan says of specs and args, and what jobs make of it."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actprobe.arrays.targets import ArrayArgs, ArraySpec
from actprobe.base.errors import ActprobeError
from actprobe.cache import plan
from actprobe.cache.plan.records import Record, build, name_of, plain, type_of


@dataclass(frozen=True, kw_only=True)
class Inner(Record):
    a: int
    b: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outer(Record):
    one: Inner
    must: str | None
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] | None = None
    either: str | Inner | None = None
    pairs: tuple[tuple[str, int], ...] = ()
    free: Any = None


inner = st.builds(Inner, a=st.integers(), b=st.none() | st.floats(allow_nan=False))


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(
    st.builds(
        Outer,
        one=inner,
        must=st.none() | st.text(),
        many=st.lists(inner, max_size=3).map(tuple),
        named=st.none() | st.dictionaries(st.text(), inner, max_size=3),
        either=st.none() | st.text() | inner,
        pairs=st.lists(st.tuples(st.text(), st.integers()), max_size=2).map(tuple),
        free=st.none() | st.integers() | st.dictionaries(st.text(), st.integers(), max_size=2),
    )
)
def test_a_record_comes_back_from_its_json(record):
    assert build(Outer, plain(record)) == record


def test_numbers_stay_as_they_were_written():
    """1 and 1.0 are different JSON, and so would the keys be."""
    assert type(build(Inner, {"a": 1, "b": 1}).b) is int


def test_an_option_that_is_off_is_not_in_the_key():
    assert plain(Inner(a=1)) == {"a": 1}


@pytest.mark.parametrize(
    "name", ["os:system", "actprobe.base.keys:spec_key", "actprobe.base.keys:Nothing"]
)
def test_a_plan_names_records_of_this_package_alone(name):
    with pytest.raises(ActprobeError, match="no type of this version"):
        type_of(name)


def test_a_thawed_target_is_the_one_that_was_frozen(tmp_path):
    spec = ArraySpec(content="c", format="csv", id="id", texts="t", columns=("a", "b"))
    args = ArrayArgs(source="s", model="s", texts="texts.parquet", file="f.csv")
    t = plan.target("cache", "arrays", 3, "s/d", spec, loader="s", item="d", args=args)
    assert type_of(name_of(ArraySpec)) is ArraySpec
    assert t.record["columns"] == ["a", "b"] and t.record["version"] == 3
    path = plan.freeze(plan.make({}, [t], [t.path]), tmp_path)
    (thawed,) = plan.thaw(path).batches[0].targets
    assert thawed == t and thawed.record == t.record


@dataclass(frozen=True, kw_only=True)
class Unsaid(Record):
    """A field that may be None and has no default, and one whose default is not None."""

    id: str | None
    size: int | None = 3


def test_what_was_none_is_none_again():
    for record in (Unsaid(id=None), Unsaid(id="x", size=None), Unsaid(id=None, size=None)):
        assert build(Unsaid, plain(record)) == record
