"""The config: typed models of every section, and what reads them. Every message names the key."""

from actprobe.config.base import Needs, OneOf, Section, Strict, absent, descriptions, plain
from actprobe.config.faults import faults
from actprobe.config.general import Config
from actprobe.config.names import matching, nearest, require_known
from actprobe.config.read import load_file, overridden, require_plain, resolve, section
from actprobe.config.values import parse_size

__all__ = [
    "Config",
    "Needs",
    "OneOf",
    "Section",
    "Strict",
    "absent",
    "descriptions",
    "faults",
    "load_file",
    "matching",
    "nearest",
    "overridden",
    "parse_size",
    "plain",
    "require_known",
    "require_plain",
    "resolve",
    "section",
]
