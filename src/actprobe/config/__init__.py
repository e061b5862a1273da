"""The config: typed models of every section, and what reads them. Every message names the key."""

from actprobe.config.base import Section, Strict, absent, plain
from actprobe.config.general import Config
from actprobe.config.names import matching, nearest, require_known
from actprobe.config.read import load_file, overridden, require_plain, resolve
from actprobe.config.values import parse_size

__all__ = [
    "Config",
    "Section",
    "Strict",
    "absent",
    "load_file",
    "matching",
    "nearest",
    "overridden",
    "parse_size",
    "plain",
    "require_known",
    "require_plain",
    "resolve",
]
