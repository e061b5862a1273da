"""A run that failed ends with the names of what failed, and why."""

from __future__ import annotations

import logging
import os

import pytest

from actprobe.flow import failures


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Snakemake's logger with the handler on it, and a function that logs an event."""
    monkeypatch.chdir(tmp_path)
    logger, handler = logging.Logger("snakemake"), failures.Failures()
    logger.addHandler(handler)

    def says(event: str, **facts) -> None:
        logger.error("…", extra={"event": event, **facts})

    return handler, says


def job(jobid: int, rule: str, **more) -> dict:
    usual = {"rule_msg": None, "log": [f"{rule}.log"], "indent": False}
    return {"jobid": jobid, "rule_name": rule, **usual, **more}


def test_a_failed_job_is_told_at_once_and_with_its_reason_at_the_end(run, tmp_path, capsys):
    handler, says = run
    (tmp_path / "latents_s.log").write_text(
        "2026-11-21 04:00:00,123 opening\n"
        "2026-11-21 04:00:01,123 latents_s: 1 of 2 targets cannot be made:\n  row 3 has NaN\n"
    )
    said = "SLURM-job '5' failed, SLURM status is: 'FAILED'."
    says("job_error", **job(1, "latents_s", rule_msg=said))
    assert capsys.readouterr().err == f"failed: latents_s: {said}\n"
    assert handler.summary().splitlines() == [
        "1 jobs failed:",
        f"  latents_s: {said}",
        "    latents_s.log:",
        "      latents_s: 1 of 2 targets cannot be made:",
        "        row 3 has NaN",
    ]


def test_a_job_that_succeeds_later_has_not_failed(run):
    handler, says = run
    says("job_error", **job(1, "a"))
    says("job_error", **job(2, "b"))
    says("job_finished", job_id=1)
    assert "  b" in handler.summary() and "  a" not in handler.summary()


def test_a_group_names_its_jobs_and_the_log_of_the_submission(run, tmp_path):
    handler, says = run
    (tmp_path / "slurm.log").write_text("srun: x\nerror: *** JOB 3 CANCELLED ***\n")
    jobs = [job(i, rule, indent=True) for i, rule in enumerate("ab")]
    says("group_error", groupid="g", job_error_info=jobs, aux_logs=["slurm.log"])
    for each in jobs:  # Snakemake logs them once more
        says("job_error", **each)
    told = handler.summary()
    assert told.count("JOB 3 CANCELLED") == 2 and "2 jobs failed" in told


def test_a_traceback_ends_in_its_last_line(run, tmp_path):
    handler, says = run
    (tmp_path / "a.log").write_text(
        "2026-11-21 04:00:00,123 begun\nTraceback (most recent call last):\n  x\nKeyError: 'y'\n"
    )
    says("job_error", **job(1, "a"))
    assert handler.summary().splitlines()[-1].strip() == "KeyError: 'y'"


def test_the_logs_of_a_run_are_told_by_the_clock_of_their_file_system(run, tmp_path, monkeypatch):
    file_time = os.stat(tmp_path).st_mtime
    monkeypatch.setattr(failures.time, "time", lambda: file_time + 3600)  # or 4 ms: coarse stamps
    handler = failures.Failures()
    (tmp_path / "a.log").write_text("2026-11-21 04:00:00,123 begun\n2026-11-21 04:00:01,123 why\n")
    handler.handle(logging.makeLogRecord({"event": "job_error", **job(1, "a")}))
    assert handler.summary().splitlines()[-1].strip() == "why"


def test_logs_of_earlier_runs_say_nothing(run, tmp_path):
    handler, says = run
    (tmp_path / "a.log").write_text("2026-11-21 04:00:00,123 an old story\n")
    os.utime(tmp_path / "a.log", (0, 0))
    refused = "SLURM sbatch failed. The error message was 'no such\npartition'.\n sbatch call:\n x"
    says("job_error", **job(1, "a", rule_msg=refused))
    assert handler.summary().splitlines()[1:] == [
        "  a: SLURM sbatch failed. The error message was 'no such partition'."
    ]
