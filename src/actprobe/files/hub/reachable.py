"""What the plan says about sources on the hub that pending targets need and that cannot be had."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from actprobe.base.errors import ActprobeError, ConfigError, Unreachable
from actprobe.files.hub import asking
from actprobe.files.hub.asking import Line, Refused
from actprobe.files.hub.names import of_client
from actprobe.files.hub.place import Place

log = logging.getLogger(__name__)


def noted(place: Mapping[str, str], error: ActprobeError) -> dict[str, str]:
    """A place of the hub with the reason why it cannot be read now."""
    kind = "refused" if isinstance(error, ConfigError) else "unreachable"
    return {**place, kind: str(error)}


def require_reachable(args: Iterable[Any], acts: bool) -> None:
    """Stop a plan whose pending targets need what the hub refuses, or does not give now.

    args: those of the pending targets. Files that are there need no hub, so only what is pending
    counts; of each repository whose files have to be fetched (`lacks`) one is asked for. What the
    hub refuses for good stops every plan; what cannot be had just now stops a run (`acts`), while a
    dry run goes on and says so. Raises ConfigError or Unreachable.
    """
    places = [p for each in args for p in _places(each)]
    refused = dict.fromkeys(p.refused for p in places if p.refused)
    unreachable = dict.fromkeys(p.unreachable for p in places if p.unreachable)
    lacking = {p.repo: (p.revision, p.lacks) for p in places if p.lacks}
    line = Line(patient=False)
    for repo, (revision, file) in lacking.items():
        try:
            _try(line, repo, revision, file)
        except Refused as e:
            refused[str(e)] = None
        except Unreachable as e:
            unreachable[str(e)] = None
    if refused:
        raise ConfigError(_listed("these cannot be had from the hub", list(refused)))
    if unreachable:
        text = _listed("these are not here, and cannot be had from the hub now", list(unreachable))
        if acts:
            raise Unreachable(text)
        log.warning("%s\n(a run would end here)", text)


def _places(args: Any) -> Iterator[Place]:
    """The places of the hub in the args of a target."""
    loose = isinstance(args, Mapping)
    for p in args.values() if loose else vars(args).values():
        if isinstance(p, Place):
            yield p
        elif isinstance(p, Mapping) and "repo" in p:  # until every stage has its types
            why = {k: p.get(k) for k in ("lacks", "refused", "unreachable")}
            yield Place(repo=p["repo"], revision=p["revision"], cache_dir="", **why)


def _try(line: Line, repo: str, commit: str, name: str) -> None:
    """Ask for the head of a file: the hub lists what it may still refuse to give."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def question() -> Any:
        called, kind = of_client(repo)
        url = hf_hub_url(called, name, repo_type=kind, revision=commit)
        return get_hf_file_metadata(url, timeout=asking.ANSWER)

    line.ask(f"hub:{repo}/{name} at {commit[:8]}", repo, question)


def _listed(what: str, reasons: list[str]) -> str:
    more = [f"… and {len(reasons) - 5} more"] if len(reasons) > 5 else []
    return f"{what}:\n  " + "\n  ".join([*reasons[:5], *more])
