"""Names of a dump's files: which site, which chunk (A8), and what is refused as unexplained."""

from __future__ import annotations

import time

import pytest

from actprobe.base.errors import ConfigError
from actprobe.config import section
from actprobe.dumps import lockfile
from actprobe.dumps.lockfile import LockedFile
from actprobe.dumps.names import by_site, in_order, site_of_name

SITES = {
    "activation_data/blocks--2--hook_resid_pre.pt": "resid_pre.2",
    "blocks.11.hook_mlp_out.npy": "mlp_out.11",
    "x/blocks--3--attn--hook_z.chunk_12.safetensors": "z.3",
    "hook_embed.npy": "embed",
    "z.4_hook.npy": "z.4",
    "resid_post.1/chunk_0.npy": "resid_post.1",
    "run-17/resid_post.1/acts_part-3-of-7.h5": "resid_post.1",
    "blocks.2.hook_resid_pre/blocks.2.hook_resid_pre_003.pt": "resid_pre.2",
    "activations_resid_mid.07.pt": "resid_mid.7",
    "grade_3_essays/resid_post.1.pt": "resid_post.1",
}
UNEXPLAINED = {
    "blocks--2--hook_resid_pre_grad.pt": "grad",
    "blocks.2.hook_resid_pre.grad.pt": "grad",
    "blocks.3.hook_resid_pre.hook_sae_acts_post.pt": "hook_sae_acts_post",
    "blocks.2.hook_resid_pre_grad": "grad",
    "sae_blocks.2.hook_resid_pre.pt": "sae",
    "resid_post.1_mean_centered/chunk_0.npy": "mean_centered",
    "resid_post.1/grad_0.npy": "grad",
    "gradients/blocks.2.hook_resid_pre.pt": "gradients",
    "run/SAE-codes/resid_post.1.pt": "SAE",
    "resid_post.1.npy;rm -rf": "npy;rm -rf",
    "resid_post.1 copy.npy": "copy",
    "old-resid_post.1.npy": "old",
}
NONE = ["mystery_xyz.5.npy", "blocks.2.hook_resid_pre2.pt", "xhook_embed.pt", "hook_embeddings.pt",
        "myresid_post.1.pt", "resid_post.1b.pt", "blocks.3.hook_q.pt"]  # fmt: skip


@pytest.mark.parametrize(("name", "site"), SITES.items())
def test_a_site_is_read_off_a_name_that_is_understood(name, site):
    assert site_of_name("d", name) == site


@pytest.mark.parametrize(("name", "said"), UNEXPLAINED.items())
def test_a8_text_beside_a_hook_name_that_is_not_understood_is_refused(name, said):
    with pytest.raises(ConfigError) as error:
        site_of_name("d", name)
    assert f"and {said!r}" in str(error.value) or f"and '{said}" in str(error.value)
    assert "in dumps.d.sites as `resid_p" in str(error.value)


@pytest.mark.parametrize("name", NONE)
def test_a_name_without_a_site(name):
    with pytest.raises(ConfigError, match="tells no site"):
        site_of_name("d", name)


def test_a_name_with_two_sites():
    with pytest.raises(ConfigError, match=r"several sites \(resid_post\.1, resid_pre\.2\)"):
        site_of_name("d", "resid_post.1/blocks.2.hook_resid_pre.pt")


def test_a8_codes_of_an_sae_are_codes_only_where_the_config_says_so():
    name = "blocks.3.hook_resid_pre.hook_sae_acts_post.pt"
    assert site_of_name("d", name, codes=True) == "resid_pre.3"
    with pytest.raises(ConfigError, match="something else than its codes"):
        site_of_name("d", "blocks.3.hook_resid_pre_grad.pt", codes=True)


def test_a_name_made_to_be_slow():
    begun = time.process_time()
    with pytest.raises(ConfigError):
        site_of_name("d", "_." * 400 + "resid_post.1" + "-_" * 400 + "!")
    assert time.process_time() - begun < 2


def files(*names: str, source: str = "s") -> list[LockedFile]:
    return [LockedFile(n, 1, "md5", f"{i:032x}", source) for i, n in enumerate(names)]


def sites(*names: str, **of: list[str]) -> dict[str, list[str]]:
    sites = {k.replace("__", "."): v for k, v in of.items()}
    source = {"artifacts": ["team/project/acts"]}
    given = {"d": {"source": source, "lock": "d.json", "sites": sites}}
    entry = section("dumps", given)["d"]
    return {s: [f.path for f in found] for s, found in by_site("d", entry, files(*names)).items()}


@pytest.mark.parametrize(
    "names",
    [
        ("blocks.2.hook_resid_pre.pt", "blocks--2--hook_resid_pre.pt"),
        ("resid_post.1.pt", "resid_post.01.pt"),
        ("resid_post.1.pt", "resid_post.1.npy"),
        ("resid_post.1_acts.pt", "resid_post.1_data.pt"),
        ("a/resid_post.1.pt", "b/resid_post.1.pt"),
        ("resid_post.1/part_1.pt", "resid_post.1/part_01.pt"),
        ("resid_post.1/part_1.pt", "resid_post.1/shard_2.pt"),
    ],
)
def test_a8_files_of_a_site_differ_in_the_chunk_number_alone(names):
    with pytest.raises(ConfigError, match="something else than the number of a chunk") as error:
        sites(*names)
    assert all(f'"{n}"' in str(error.value) for n in names)
    # What the message says works: the files as they are listed.
    assert sites(*names, resid_post__1=list(reversed(names))) == {
        "resid_post.1": list(reversed(names))
    }


def test_names_that_differ_in_two_numbers():
    with pytest.raises(ConfigError, match=r"differ in several numbers \(0, 1, …\)"):
        sites("epoch_0/resid_post.1/part_1.pt", "epoch_1/resid_post.1/part_2.pt")
    same = [f"resid_post.1/part_{i}_of_3.pt" for i in (3, 1, 2)]
    assert sites(*same) == {"resid_post.1": [same[1], same[2], same[0]]}


def test_patterns_of_a_site_are_taken_as_they_are_listed():
    names = ("b_9.pt", "b_10.pt", "a_1.pt", "a_2.pt")
    assert sites(*names, embed=["b_*", "a_*"]) == {"embed": list(names)}
    with pytest.raises(ConfigError, match=r"sites\.embed: no file matches 'c_\*'"):
        sites(*names, embed=["b_*", "c_*"])
    with pytest.raises(ConfigError, match="something else than the number"):
        sites(*names, embed=["*"])


def test_a_gap_of_a_billion_numbers_is_told_at_once():
    begun = time.process_time()
    with pytest.raises(ConfigError, match="run from 1 to 20260101000000, but 2, 3, 4, 5, 6 are"):
        sites("resid_post.1/part_1.pt", "resid_post.1/part_20260101000000.pt")
    assert time.process_time() - begun < 2


def test_chunks_are_ordered_by_number_and_a_gap_is_an_error():
    def names(*numbers: int) -> list[lockfile.LockedFile]:
        return [lockfile.LockedFile(f"x/part_{n}.pt", 1, "md5", "0" * 32, "s") for n in numbers]

    found = in_order("d", "embed", names(10, 9, 11, 8))
    assert [f.path for f in found] == [f"x/part_{n}.pt" for n in (8, 9, 10, 11)]
    with pytest.raises(ConfigError, match="run from 1 to 5, but 3, 4 are missing"):
        in_order("d", "embed", names(1, 2, 5))


def test_chunks_of_one_name_come_artifact_after_artifact():
    def files(*places: tuple[str, str]) -> list[lockfile.LockedFile]:
        return [lockfile.LockedFile(p, 1, "md5", "0" * 32, f"t/p/{a}:v0") for a, p in places]

    def order(wanted: list[lockfile.LockedFile], *asked: str) -> list[tuple[str, str]]:
        found = in_order("d", "embed", wanted, asked)
        return [(f.source[4:-3], f.path) for f in found]

    same = files(("acts-10", "x.pt"), ("acts-9", "x.pt"), ("acts-11", "x.pt"))
    assert order(same) == [("acts-9", "x.pt"), ("acts-10", "x.pt"), ("acts-11", "x.pt")]
    asked = ["t/p/acts-11:latest", "t/p/acts-9", "t/p/acts-10:v0"]
    assert [a for a, _ in order(same, *asked)] == ["acts-11", "acts-9", "acts-10"]
    several = files(("b", "x_1.pt"), ("b", "x_2.pt"), ("a", "x_2.pt"), ("a", "x_1.pt"))
    assert order(several) == [("a", "x_1.pt"), ("a", "x_2.pt"), ("b", "x_1.pt"), ("b", "x_2.pt")]
    # Names that tell the order themselves keep telling it.
    assert order(files(("b", "x_1.pt"), ("a", "x_2.pt")), "t/p/a:v0") == [
        ("b", "x_1.pt"),
        ("a", "x_2.pt"),
    ]
    with pytest.raises(ConfigError, match=r"x\.pt of t/p/a:v0 occurs twice"):
        in_order("d", "embed", files(("a", "x.pt"), ("a", "x.pt")))
