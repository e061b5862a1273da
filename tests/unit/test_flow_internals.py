"""Snakemake's internals are those that are known, and its modes are told apart as it does it."""

from __future__ import annotations

import asyncio

import pytest
from packaging.specifiers import SpecifierSet
from snakemake import __version__ as installed
from snakemake import cli, io, path_modifier

from actprobe.base.errors import ActprobeError
from actprobe.flow import internals


def test_the_installed_snakemake_is_known():
    internals.require_known()
    least, most = internals.VERSIONS.split(" to ")
    assert SpecifierSet(f">={least},<={most}.999").contains(installed), "add it to VERSIONS"


def test_a_function_that_is_gone_is_named(monkeypatch):
    monkeypatch.delattr(io._IOFile, "remove")
    with pytest.raises(ActprobeError, match=r"does not know Snakemake .*_IOFile\.remove is gone"):
        internals.require_known()


def test_a_parameter_that_is_gone_is_named_with_versions_that_work(monkeypatch):
    monkeypatch.setattr(path_modifier.PathModifier, "replace_prefix", lambda self, where: where)
    with pytest.raises(ActprobeError) as e:
        internals.require_known()
    assert "PathModifier.replace_prefix takes no path" in str(e.value)
    assert 'Versions 9.25 to 9.27 are known to work: pip install "snakemake==9.27.*"' in str(
        e.value
    )


def test_an_option_that_is_gone_is_named(monkeypatch):
    def args_to_api(args, parser):
        return internals.command_line()

    parse = cli.parse_args

    def without(argv):
        parser, args = parse(argv)
        del args.touch
        return parser, args

    monkeypatch.setattr("sys.argv", ["snakemake", "-n", "--workflow-profile", "none"])
    assert args_to_api(None, None)[1].dryrun
    monkeypatch.setattr(cli, "parse_args", without)
    with pytest.raises(ActprobeError, match="the option touch is gone"):
        args_to_api(None, None)


def test_another_program_that_uses_the_api_has_no_command_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["snakemake", "-n"])
    assert internals.command_line() is None


RUN = ["", "texts -F", "--report r.html --report-after-run", "--nolock", "--keep-incomplete"]
LOOK = [
    "-n", "--touch", "--unlock", "--lint", "--list-rules", "--list-target-rules", "--print-compilation",
    "--dag", "--rulegraph", "--filegraph", "--d3dag", "--summary", "--detailed-summary",
    "--list-untracked", "--list-changes code", "--list-input-changes", "--list-params-changes",
    "--delete-all-output", "--delete-temp-output", "--report r.html", "--containerize",
    "--archive a.tgz", "--cleanup-metadata x", "--cleanup-shadow", "--generate-unit-tests x",
    "--list-conda-envs", "--conda-create-envs-only", "--conda-cleanup-envs",
    "--container-cleanup-images",
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "runs"), [*((o, True) for o in RUN), *((o, False) for o in LOOK)]
)
def test_what_runs_jobs_and_what_only_looks(options, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    api = cli.SnakemakeApi
    parser, args = cli.parse_args(["--cores", "1", "--workflow-profile", "none", *options.split()])
    before = dict(vars(args))
    assert internals.runs_jobs(parser, args) is runs
    assert cli.SnakemakeApi is api and vars(args) == before
    assert not list(tmp_path.iterdir()), "nothing was done"


def test_every_option_that_lists_or_draws_is_tried_here():
    groups = {g.title: g for g in cli.get_argument_parser()._action_groups}
    tried = {word.lstrip("-").replace("-", "_") for o in [*RUN, *LOOK] for word in o.split()}
    missed = {a.dest for a in groups["UTILITIES"]._group_actions} - tried
    assert missed == {"version", "export_cwl", "skip_script_cleanup", "drop_metadata"}, (
        "a new option: say above whether it runs jobs"
    )


def test_files_that_are_kept_are_not_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(io._IOFile, "remove", io._IOFile.remove)  # put back afterwards
    cached, other = tmp_path / "cached", tmp_path / "other"
    for path in (cached, other):
        path.touch()
    internals.keep({str(cached)})
    for path in (cached, other):
        file = io._IOFile(str(path), rule=None)
        asyncio.run(file.remove())
    assert cached.exists() and not other.exists()
