"""Specs and args of SAEs, dumps and top contexts come back from a frozen plan as they were."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actprobe.cache.plan.records import build, plain
from actprobe.contexts.targets import ContextArgs, ContextSpec
from actprobe.dumps.records import AssembleArgs, AssembleSpec, FetchArgs
from actprobe.sae.records import (
    ConvertArgs,
    ConvertSpec,
    FilesIdentity,
    HubIdentity,
    LatentArgs,
    LatentSpec,
    MadeIdentity,
    TrainArgs,
    Training,
    TrainSpec,
)

KINDS = (
    FetchArgs, AssembleSpec, AssembleArgs, ContextSpec, ContextArgs, LatentSpec, LatentArgs,
    ConvertSpec, ConvertArgs, TrainArgs, TrainSpec,
)  # fmt: skip
FINITE = st.floats(allow_nan=False, allow_infinity=False)
FILES = st.builds(
    FilesIdentity, named=st.none() | st.dictionaries(st.text(), FINITE | st.booleans(), min_size=1)
)
PUBLISHED = FILES | st.builds(HubIdentity)
NUMBERS = ("epochs", "learning_rate", "aux_weight", "holdout")
GIVEN = {
    LatentSpec: {"sae": PUBLISHED | st.builds(MadeIdentity)},
    ConvertSpec: {"source": PUBLISHED},
    TrainSpec: {"train": st.builds(Training, **dict.fromkeys(NUMBERS, FINITE))},
}


@pytest.mark.parametrize("kind", KINDS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(data=st.data())
def test_a_record_comes_back(kind, data):
    record = data.draw(st.builds(kind, **GIVEN.get(kind, {})))
    assert build(kind, json.loads(json.dumps(plain(record)))) == record
