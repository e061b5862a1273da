"""The plan in words: per stage and loader what is there, missing or stale, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from actprobe.cache.plan import DAMAGED, ELSEWHERE, FINISHED, IN_PLACE, MISSING, STALE, THERE, Plan
from actprobe.experiment import costs

_MOST_LOADERS = 12
_ORDER = (THERE, MISSING, STALE, DAMAGED, FINISHED, ELSEWHERE)


def summary(plan: Plan) -> list[dict[str, Any]]:
    """One row per stage and loader: counts of states, how many are needed now, and the reasons."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, t in plan.targets.items():
        groups[t.stage, t.loader].append(path)
    rows = []
    for (stage, loader), paths in groups.items():
        counts = Counter(plan.states[p].status for p in paths)
        needed = [p for p in paths if p in plan.pending]
        reasons = Counter(_reason(plan, p) for p in needed)
        rows.append(
            {
                "stage": stage,
                "loader": loader,
                **{word: counts.get(word, 0) for word in _ORDER},
                "to_make": sum(plan.pending[p].status not in IN_PLACE for p in needed),
                "reasons": [
                    {"count": n, "why": why, "example": _example(plan, needed, why)}
                    for why, n in reasons.most_common(6)
                ],
            }
        )
    return rows


def _reason(plan: Plan, path: str) -> str:
    state = plan.pending[path]
    if state.status == FINISHED:
        return "finished by an interrupted run, only to be put in place"
    if state.status == ELSEWHERE:
        return "there under another name, only to be linked"
    return f"{state.status}: {state.why}" if state.why else state.status


def _example(plan: Plan, paths: list[str], why: str) -> str:
    return next(plan.targets[p].name for p in paths if _reason(plan, p) == why)


def _folded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with stages of very many loaders told in one row each."""
    by_stage: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for r in rows:
        by_stage[r["stage"]].append(r)
    folded = []
    for stage, members in by_stage.items():
        if len(members) <= _MOST_LOADERS:
            folded += members
            continue
        reasons: dict[str, dict[str, Any]] = {}
        for x in (x for r in members for x in r["reasons"]):
            known = reasons.setdefault(x["why"], {**x, "count": 0})
            known["count"] += x["count"]
        total = {w: sum(r[w] for r in members) for w in (*_ORDER, "to_make")}
        most = sorted(reasons.values(), key=lambda x: -x["count"])[:6]
        folded.append(
            {"stage": stage, "loader": f"({len(members)} loaders)", **total, "reasons": most}
        )
    return folded


def table(plan: Plan) -> str:
    """The summary as text for a terminal."""
    rows = _folded(summary(plan))
    if not plan.pending:
        n = sum(r[THERE] for r in rows)
        return f"plan: all {n} cached files are there, nothing to compute"
    placed = sum(s.status in IN_PLACE for s in plan.pending.values())
    n_jobs = sum(
        any(plan.pending[p].status not in IN_PLACE for p in b.outputs) for b in plan.batches
    )
    lines = [f"plan: {len(plan.pending) - placed} cached files to make in {n_jobs} jobs"]
    if placed:
        lines[0] += f", {placed} to put in place"
    head = ("stage", "loader", "there", "missing", "stale", "damaged", "to make")
    cells = [
        (r["stage"], r["loader"], *(str(r[w]) for w in (THERE, MISSING, STALE, DAMAGED)),
         str(r["to_make"]))
        for r in rows
    ]  # fmt: skip
    widths = [max(len(c[i]) for c in [head, *cells]) for i in range(len(head))]
    for i, cell in enumerate([head, *cells]):
        left = "  ".join(c.ljust(w) for c, w in zip(cell[:2], widths[:2], strict=True))
        right = "  ".join(c.rjust(w) for c, w in zip(cell[2:], widths[2:], strict=True))
        lines.append(f"  {left}  {right}")
        if i:
            lines += [
                f"      {x['count']} × {x['why']}  (e.g. {x['example']})"
                for x in rows[i - 1]["reasons"]
                if x["why"] != MISSING or len(rows[i - 1]["reasons"]) > 1
            ]
    idle = sum(r[MISSING] + r[STALE] for r in rows) - sum(
        plan.pending[p].status in (MISSING, STALE) for p in plan.pending
    )
    bad = sum(s.status == THERE and bool(s.why) for s in plan.states.values())
    if bad:
        lines.append(f"  {bad} of those there stand for skipped inputs (see the report)")
    if idle:
        lines.append(f"  {idle} more are not there and not needed by anything that is to be made")
    return "\n".join(lines)


def estimate(plan: Plan) -> list[dict[str, Any]]:
    """Per stage of the pending jobs: disk in bytes, and those of kept models and scores among them,
    CPU (or GPU) seconds, most memory of a job."""
    of_rule = costs.estimates(plan)
    stages: dict[str, list[costs.Cost]] = defaultdict(list)
    for b in plan.batches:
        stages[b.stage].append(of_rule[b.rule])
    return [
        {
            "stage": stage,
            "jobs": len(found),
            "disk_bytes": sum(c.disk_bytes for c in found),
            "kept_bytes": sum(c.kept_bytes for c in found),
            "cpu_seconds": round(sum(c.cpu_seconds for c in found), 1),
            "mem_mb": max(c.mem_mb for c in found),
            "gpus": max(c.gpu for c in found),
        }
        for stage, found in stages.items()
    ]


def estimate_table(plan: Plan) -> str:
    """The estimate as text; within a factor of two or three."""
    lines = ["estimate (within a factor of two or three):"]
    found = estimate(plan)
    for e in found:
        what = f"hours on {e['gpus']} GPU" if e["gpus"] else "CPU hours"
        lines.append(
            f"  {e['stage']:<16} {e['jobs']:>4} jobs  {e['disk_bytes'] / 1e9:10,.2f} GB on disk  "
            f"{e['cpu_seconds'] / 3600:10,.2f} {what:<14}  {e['mem_mb']:>8,} MB a job"
        )
    if kept := sum(e["kept_bytes"] for e in found):
        lines.append(f"  {kept / 1e9:,.2f} GB of it are models and scores of kept fits (`keep`)")
    return "\n".join(lines)
