"""On paper: the two large examples on four machines. Time, memory, disk, and what binds.

    python benchmarks/scaling/paper.py

Takes the plan of each example and the cost model of `actprobe plan` (actprobe.experiment.costs), with
the rates of each machine below in place of its own. Measured: the CPU rates of (a), and the probes'
seconds on one of its cores, which stand for any core. All else is from data sheets, GPUs at 40 % of
their peak. Rows of the benchmark's datasets are their published means. Downloads are left out.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from actprobe import config as configuration
from actprobe.cache.plan import Plan
from actprobe.experiment import costs, shapes
from actprobe.experiment import targets as experiment
from actprobe.models import fixture

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "config" / "examples"
GB, HOUR = 1e9, 3600


@dataclass(frozen=True)
class Machine:
    """memory: GB of a node (of the GPU, where there is one, and of the node); flops: float32 and
    bfloat16 operations in a second of one core, or of the GPU; read: GB of weights in a second."""

    name: str
    nodes: int
    cores: int
    memory: float
    gpu_memory: float
    flops: tuple[float, float]
    read: float

    def rates(self) -> dict[str, float]:
        return dict(zip(("float32", "bfloat16"), self.flops, strict=True))


MACHINES = [
    Machine("(a) 2 cores, 24 GiB", 1, 2, 25.8, 0, (1.0e11, 3.0e10), 1.0),
    Machine("(b) laptop, 36 GB shared with its GPU", 1, 11, 36, 36, (7e12, 8e12), 4.0),
    Machine("(c) one GPU of 80 GB, 16 cores", 1, 16, 256, 80, (2.5e13, 4.0e14), 3.0),
    Machine("(d) 16 nodes, each a GPU of 80 GB and 32 cores", 16, 32, 256, 80, (2.5e13, 4.0e14), 1.0),
    Machine("(e) one node with three GPUs of 80 GB", 1, 32, 256, 240, (2.5e13, 4.0e14), 3.0),
]  # fmt: skip
# What the cost model reads of the two models' config.json.
MODELS = {
    "gemma-2-9b": {
        "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336,
        "num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 256, "vocab_size": 256000, "dtype": "bfloat16",
    },
    "llama": {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
        "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "vocab_size": 128256, "dtype": "bfloat16",
    },
}  # fmt: skip


def plan_for(machine: Machine, raw: dict) -> Plan:
    """The example's plan with the devices, threads and shards of a machine, in an empty cache."""
    device = "cuda" if machine.gpu_memory else "cpu"
    for kind in ("models", "saes"):
        for entry in raw.get(kind, {}).values():
            entry["device"] = device
    for name, model in raw["models"].items():
        Path(name).mkdir(exist_ok=True)
        (Path(name) / "config.json").write_text(json.dumps(MODELS[name]))
        (Path(name) / "model.safetensors").touch()
        model |= {"dtype": "bfloat16", "source": name, "revision": None}
    raw["threads"] = dict.fromkeys(("activations", "saes", "probes"), machine.cores)
    if machine.nodes > 1:
        raw["shards"] = dict.fromkeys(("activations", "probes"), machine.nodes)
    raw["max_memory"] = round(machine.memory * GB / 2)
    return experiment.plan(configuration.resolve(raw))


def hours(plan: Plan, machine: Machine) -> dict[str, float]:
    """Stage -> hours from its first job's start to its last one's end; jobs go to the freest node."""
    loads: dict[str, list[float]] = {}
    estimator = costs.Estimator(plan)
    found = [(b.stage, estimator.cost(b)) for b in plan.batches]
    for stage, c in sorted(found, key=lambda f: -f[1].cpu_seconds):
        nodes = loads.setdefault(stage, [0.0] * machine.nodes)
        nodes[nodes.index(min(nodes))] += c.cpu_seconds / (1 if c.gpu else machine.cores)
    return {stage: max(nodes) / HOUR for stage, nodes in loads.items()}


def weights(plan: Plan) -> float:
    """Bytes of the layers that the sites need, in the model's precision."""
    used = [t.args["site"] for t in plan.targets.values() if t.stage == "activations"]
    layers = 1 + max(int(s.partition(".")[2] or 0) for s in used)
    ((name, settings),) = plan.config["models"].items()
    return shapes.model(plan.config, name).weights(layers, settings["dtype"])[0]


def row(machine: Machine, raw: dict) -> str:
    """One line of the table of an example."""
    costs._READ = machine.read * GB
    setattr(costs, "_CUDA" if machine.gpu_memory else "_CPU", machine.rates())
    plan = plan_for(machine, raw)
    held, room = weights(plan), (machine.gpu_memory or machine.memory) * GB
    disk = sum(c.disk_bytes for c in costs.estimates(plan).values()) / GB
    time = hours(plan, machine)
    of = {"extract": time["activations"], "encode": time.get("latents", 0.0)}
    of["probe"] = time.get("probes", 0.0)
    told = [f"{h:,.0f} h" if h >= 2 else f"{60 * h:.0f} min" if h else "-" for h in of.values()]
    binds = max(of, key=of.__getitem__)
    if 1.1 * held > room:
        told[0], binds = "does not fit", "memory"
    cells = [machine.name, *told, f"{held / GB:.0f}", f"{disk:.1f}", binds]
    return "| " + " | ".join(cells) + " |"


def fetched(plan: Plan) -> str:
    """What lies on the disk besides: whole files of SAEs (both matrices) and of the model."""
    ((name, _),) = plan.config["models"].items()
    model = shapes.model(plan.config, name)
    saes = sum(
        8.0 * s.d * s.latents
        for b in plan.of("latents")
        for s in [shapes.sae(plan.config, b.loader, b.targets[0].args["sae"])]
    )
    whole = model.weights(model.layers, "bfloat16")[1]
    return f"model files {whole / GB:.0f} GB, SAE files {saes / GB:.0f} GB"


def benchmark_of_peers(plan: Plan) -> str:
    """What the original scripts of SAE-Probes and sae-probes take besides, by their code: batches in
    file order (1.87 times the tokens), SAEs whole, a dataset's latents dense, kept as sparse COO."""
    saes = {b.loader: shapes.sae(plan.config, b.loader, b.targets[0].args["sae"])
            for b in plan.of("latents")}  # fmt: skip
    widest = max(saes.values(), key=lambda s: s.latents)
    rows = sum(r.n for r in shapes.datasets(plan).values())
    whole, dense = 8.0 * widest.d * widest.latents, 4.0 * 5000 * widest.latents
    sparse = sum(20.0 * rows * s.l0 for s in saes.values())
    # Measured at 131k latents and scaled: densify 1,000 rows, rank the latents of a dataset.
    share = sum(s.latents for s in saes.values()) / 2**20
    more = share * (2.35 * rows / 1000 + 11.7 * len(shapes.datasets(plan)))
    return (
        f"memory of the widest SAE {whole / GB:.0f} GB ({1.5 * whole / GB:.0f} while its npz is "
        f"loaded) and {dense / GB:.0f} GB for 5,000 dense rows, twice while they are joined; "
        f"{sparse / GB:.0f} GB of latents on disk; {more / HOUR:.1f} CPU hours to densify and rank"
    )


def contrastive_of_peers(plan: Plan) -> str:
    """The scripts for evaluation awareness: a pass of the whole model for each prompt and layer, all
    tokens of it kept in memory and written."""
    ((name, settings),) = plan.config["models"].items()
    model, estimator = shapes.model(plan.config, name), costs.Estimator(plan)
    tokens = sum(estimator._tokens(t, settings) for t in shapes.datasets(plan))
    layers = len({t.args["site"] for t in plan.targets.values() if t.stage == "activations"})
    flop = 2.0 * layers * tokens * (model.layers * model.active + model.embedding)
    kept = 2.0 * layers * tokens * model.d
    return (
        f"{layers} passes instead of one: {flop / 4e14 / 60:.1f} min of GPU arithmetic beside "
        f"loading; {kept / GB:.1f} GB kept in memory and on disk"
    )


def main() -> None:
    """Print the tables that stand in results.md."""
    peers = {
        "gemma-2-9b-saeprobes.yaml": benchmark_of_peers,
        "llama-70b-contrastive.yaml": contrastive_of_peers,
    }
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)
        fixture.write_data(Path("fixture"))
        for name, of_peers in peers.items():
            print(f"\n{name}\n\n| | extract | encode | probe | weights GB | disk GB | binds |")
            print("|---|---|---|---|---|---|---|")
            for machine in MACHINES:
                print(row(machine, configuration.load_file(EXAMPLES / name)))
            plan = plan_for(MACHINES[2], configuration.load_file(EXAMPLES / name))
            print(f"\nTo be fetched: {fetched(plan)}.\n")
            print(f"The peers' scripts, by their code: {of_peers(plan)}.")


if __name__ == "__main__":
    main()
