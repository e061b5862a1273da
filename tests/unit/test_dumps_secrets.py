"""Credentials stay out of every log, traceback and message (E4)."""

# ruff: noqa: F401, F811
from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest
import requests
from dumps_cases import FOUR, fetch_all, remotes
from wandb_server import SIGNATURE, Fault, server

from actprobe.dumps import secrets

BAD = "chunk_1.pt"


# --- E4: one filter on every handler


@pytest.fixture
def everything_logged():
    """All that any logger says, also through a handler of its own that does not propagate."""
    written = io.StringIO()
    handlers = {
        n: logging.StreamHandler(written) for n in ("", "urllib3", "wandb", "another.library")
    }
    before = {n: (logging.getLogger(n).level, logging.getLogger(n).propagate) for n in handlers}
    for name, handler in handlers.items():
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = not name
    yield written
    for name, handler in handlers.items():
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.setLevel(before[name][0])
        logger.propagate = before[name][1]


def test_e4_a_bad_header_line_logs_no_signature(server, tmp_path, everything_logged):
    artifact, wanted = server.add_artifact("team/project/dump", FOUR), remotes(tmp_path, FOUR)
    server.faults.append(Fault("badhead", BAD, times=3))
    assert fetch_all(server, artifact, wanted) == {}
    said = everything_logged.getvalue()
    assert "Failed to parse headers" in said and "/storage/" in said  # the loggers do say it
    assert SIGNATURE not in said and "sig=" not in said


SIGNED = f"https://bucket.s3.amazonaws.com/a/b.pt?X-Amz-Date=1&X-Amz-Signature={'ab' * 32}&more=1"


@pytest.mark.parametrize(
    "text",
    [
        f"GET {SIGNED} failed",
        'https://host:443 "GET /storage/b.pt?exp=1&sig=SECRETSECRET HTTP/1.1" 206 9',
        "https://storage.googleapis.com/x?GoogleAccessId=me&Expires=1&Signature=SECRETSECRET%3D",
        "https://host/x?sv=1&sp=r&SIG=SECRETSECRET",
        "https://me:SECRETSECRET@proxy:3128/",
        "Authorization: Basic YXBpOlNFQ1JFVFNFQ1JFVA==",
        "{'Authorization': 'Bearer SECRETSECRET'}",
        "api_key=SECRETSECRET, api_key: 'SECRETSECRET'",
        'password = "SECRETSECRET"',
        "token hf_SECRETSECRETSECRETSECRET was refused",
        "key wandb_v1_SECRETSECRETSECRETSECRET",
    ],
)
def test_e4_what_is_redacted(text):
    clean = secrets.redact(text)
    for secret in ("SECRET", "ab" * 32, "U0VD", "YXBp", "hidden"):
        assert secret not in clean
    assert "(redacted)" in clean


@pytest.mark.parametrize(
    "text",
    [
        "team/project/acts:v3: 12 files verified",
        "https://docs.wandb.ai/guides?page=3#top",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "the API key is missing: set WANDB_API_KEY",
        "md5 50919ee0f862d16d8610687c0d005bf2, expected 8fd4db35c235c0d0620bece973125aa4",
    ],
)
def test_what_is_no_secret_stays(text):
    assert secrets.redact(text) == text


def test_e4_keys_of_the_environment_errors_and_arguments(monkeypatch, everything_logged):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    secrets.keep_out_of_logs()
    log = logging.getLogger("another.library")
    log.info("asking %s with %r", SIGNED, {"key": "0123456789" * 4})
    try:
        raise requests.ConnectionError(f"Max retries exceeded with url: {SIGNED}")
    except requests.ConnectionError:
        log.exception("it failed")
    said = everything_logged.getvalue()
    assert "0123456789" * 4 not in said and "ab" * 32 not in said
    assert "ConnectionError: Max retries" in said and "Traceback" in said


def test_e4_uncaught_errors_are_printed_without_secrets():
    code = f"""
import threading
from actprobe.dumps.secrets import keep_out_of_logs
keep_out_of_logs()
def fail(): raise ValueError({SIGNED!r})
t = threading.Thread(target=fail); t.start(); t.join()
fail()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("ValueError: https://bucket") == 2
    assert "ab" * 32 not in done.stderr and "Traceback" in done.stderr
