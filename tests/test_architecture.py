"""The layers: who may import whom, read off the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    {
        "ddpm.errors",
        "ddpm.startup",
        "ddpm.seeding",
        "ddpm.skeleton",
        "ddpm.resampling",
        "ddpm.learning_rate",
        "ddpm.process",
        "ddpm.networks",
        "ddpm.metrics",
    }
    | {f"ddpm.process.{name}" for name in ("schedules", "prediction", "weighting", "timestep_sampling")}
    | {"ddpm.process.variance", "ddpm.process.spacing", "ddpm.viz"},
    {"ddpm.command_line", "ddpm.files", "ddpm.memory", "ddpm.networks.blocks", "ddpm.process.gaussian", "ddpm.viz.camera"},
    {"ddpm.clips", "ddpm.metrics.distances", "ddpm.viz.body"},
    {"ddpm.networks.unet", "ddpm.networks.transformer", "ddpm.normalizer", "ddpm.motion_losses", "ddpm.bones"}
    | {f"ddpm.metrics.{name}" for name in ("alignment", "geometric", "physics", "memorisation", "neighbours")},
    {"ddpm.metrics.features", "ddpm.metrics.degraded", "ddpm.metrics.reference"},
    {"ddpm.metrics.comparison", "ddpm.metrics.classifier"},
    {"ddpm.metrics.suite"},
    {"ddpm.metrics.verdict"},
    {"ddpm.metrics.text", "ddpm.metrics.sampler_table"},
    {"ddpm.process.diffusion"},
    {"ddpm.process.samplers", "ddpm.process.noise_levels", "ddpm.process.condition"}
    | {"ddpm.process.constraints", "ddpm.process.windows"},
    {"ddpm.denoiser", "ddpm.guide"},
    {"ddpm.model"},
    {"ddpm.config", "ddpm.exporting", "ddpm.editing", "ddpm.viz.render", "ddpm.viz.plots"},
    {
        "ddpm.build",
        "ddpm.request",
        "ddpm.viz.figure",
        "ddpm.viz.evaluation_plots",
        "ddpm.viz.bvh_out",
        "ddpm.viz.gltf",
        "ddpm.viz.viewer",
    },
    {"ddpm.viz.report", "ddpm.checkpoint", "ddpm.command"},
    {"ddpm.checkpoint_io", "ddpm.module"},
    {"ddpm.runs", "ddpm.resuming", "ddpm.cli", "ddpm.viz.sweep_page"},
    {"ddpm.fine_tuning", "ddpm.record", "ddpm.limits"},
    {"ddpm.training", "ddpm.sweep"},
]
"""Lowest first; a module imports only from lower layers."""

LAZY = {
    "ddpm.clips": {"ddpm.viz", "datamodules.readers.arrays"},
    "ddpm.model": {"ddpm.exporting"},
}
"""What lies above and is imported inside functions, so that clips save and load themselves, and a model exports itself."""

ONLY = {
    "matplotlib": {"ddpm.viz.plots", "ddpm.viz.figure"},
    "hydra": {"ddpm.command", "ddpm.command_line", "ddpm.sweep", "train", "inspect_data"},
    "omegaconf": {"ddpm.command", "ddpm.sweep", "train", "sample", "compare", "evaluate", "export", "inspect_data"},
    "yaml": {"datamodules.joints", "ddpm.command"},
    "pytorch_lightning": {
        "ddpm.module",
        "ddpm.checkpoint_io",
        "ddpm.resuming",
        "ddpm.runs",
        "ddpm.limits",
        "ddpm.training",
    }
    | {"train", "datamodules.pose"},
}
"""Libraries that only these modules know; every callback may know Lightning."""


def modules() -> dict[str, ast.Module]:
    """Dotted name -> source of everything that is product."""
    files = [p for d in ("ddpm", "datamodules", "callbacks") for p in (ROOT / d).rglob("*.py")] + list(ROOT.glob("*.py"))
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files}
    return {name: ast.parse(path.read_text()) for name, path in names.items()}


def imports(tree: ast.Module) -> set[str]:
    """Dotted names of everything that a module imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(str(node.module))
    return found


def ours(found: set[str]) -> set[str]:
    return {i for i in found if i.split(".")[0] in ("ddpm", "datamodules", "callbacks")}


def inside_functions(tree: ast.Module) -> set[str]:
    """What a module imports in functions only."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lazy = set().union(*(imports(ast.Module(node.body, [])) for node in functions))
    outside = ast.parse(ast.unparse(tree))
    for node in ast.walk(outside):
        if isinstance(node, ast.FunctionDef):
            node.body = [ast.Pass()]
    return lazy - imports(outside)


MODULES = modules()


def test_every_module_of_the_core_has_a_layer() -> None:
    layered = set().union(*LAYERS)
    assert {name for name in MODULES if name.startswith("ddpm.")} == layered


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_the_core_imports_downwards_only(number: int) -> None:
    below = set().union(*LAYERS[:number])
    for name in LAYERS[number]:
        own, lazy = ours(imports(MODULES[name])), LAZY.get(name, set())
        assert own - lazy <= below, f"{name} imports {own - lazy - below}"
        assert lazy <= ours(inside_functions(MODULES[name])), f"{name} does not need {lazy}, or loads it at once"


@pytest.mark.parametrize(
    ("loaded", "absent"),
    [
        ("ddpm", ["torch", "pytorch_lightning", "datamodules", "callbacks"]),
        ("ddpm.clips", ["pytorch_lightning", "datamodules", "callbacks"]),
        ("ddpm; ddpm.load('pretrained').sample(1, steps=2)", ["pytorch_lightning", "lightning_fabric", "torch._dynamo"]),
        ("sample, export", ["pytorch_lightning", "lightning_fabric", "callbacks", "matplotlib"]),
    ],
)
def test_nothing_is_loaded_until_it_is_asked_for(loaded: str, absent: list[str]) -> None:
    script = f"import sys, {loaded}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_no_two_files_have_one_name() -> None:
    names = [name.rpartition(".")[2] for name in MODULES]
    names += [path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__"]
    assert not {name for name in names if names.count(name) > 1}


@pytest.mark.parametrize("door", [path.name for path in ROOT.glob("*.py")])
def test_a_command_composes_calls_and_prints(door: str) -> None:
    assert len((ROOT / door).read_text().splitlines()) <= 150, "move what others could use into ddpm/ or datamodules/"


def test_data_knows_no_diffusion() -> None:
    for name, tree in MODULES.items():
        if name.startswith("datamodules"):
            own = {i for i in imports(tree) if i.startswith(("ddpm", "callbacks"))}
            allowed = {
                "ddpm.skeleton",
                "ddpm.seeding",
                "ddpm.clips",
                "ddpm.errors",
                "ddpm.files",
                "ddpm.memory",
                "ddpm.resampling",
            }
            assert own <= allowed, f"{name} imports {own - allowed}"


def test_callbacks_know_the_module_what_measures_and_what_draws() -> None:
    for name, tree in MODULES.items():
        if name.startswith("callbacks"):
            own = {
                i
                for i in imports(tree)
                if i.startswith(("ddpm", "datamodules")) and not i.startswith(("ddpm.metrics", "ddpm.viz"))
            }
            known = {"ddpm.module", "ddpm.model", "ddpm.skeleton", "ddpm.clips", "ddpm.errors", "ddpm.files", "ddpm.checkpoint"}
            assert own <= known, f"{name} imports {own}"


def test_nobody_imports_a_script() -> None:
    for name, tree in MODULES.items():
        assert not imports(tree) & {"train", "sample", "compare", "evaluate", "export", "inspect_data"}, name


@pytest.mark.parametrize("library", ONLY)
def test_libraries_stay_where_they_belong(library: str) -> None:
    users = {name for name, tree in MODULES.items() if any(i.split(".")[0] == library for i in imports(tree))}
    if library == "pytorch_lightning":
        users = {name for name in users if not name.startswith("callbacks.")}
    assert users == ONLY[library]


def test_no_forbidden_habits() -> None:
    for name, tree in MODULES.items():
        assert not name.endswith("utils"), name
        for node in ast.walk(tree):
            where = f"{name}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.Assert), f"{where}: assert is for tests"
            if isinstance(node, ast.FunctionDef):
                assert node.args.kwarg is None, f"{where}: **{node.args.kwarg} swallows misspelt arguments"
                defaults = [*node.args.defaults, *node.args.kw_defaults]
                assert not any(isinstance(d, ast.List | ast.Dict | ast.Set) for d in defaults), f"{where}: mutable default"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{where}: bare except"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "eval", "exec"), f"{where}: {node.func.id}"


def test_public_names_are_typed_and_documented() -> None:
    for name, tree in MODULES.items():
        assert ast.get_docstring(tree), name
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in [*tree.body, *(member for c in classes for member in c.body)]:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                untyped = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
                assert not untyped and node.returns is not None, f"{name}.{node.name}: untyped {untyped or 'result'}"


def test_float64_is_computed_on_the_cpu() -> None:
    """Apple's GPUs have none: what samples or trains converts a tensor there only after ``.cpu()``."""
    here = [
        name
        for name in MODULES
        if name.startswith(("ddpm.process.", "ddpm.networks.")) and not name.endswith(("schedules", "gaussian", "diffusion"))
    ]
    for name in (*sorted(here), "ddpm.motion_losses", "ddpm.module", "ddpm.bones"):
        for node in ast.walk(MODULES[name]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "double":
                assert ast.unparse(node.func.value).endswith(".cpu()"), f"{name}:{node.lineno}"


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style(command: list[str]) -> None:
    ruff = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert ruff.returncode == 0, ruff.stdout + ruff.stderr


@pytest.mark.slow
def test_types() -> None:
    """pyright fetches itself when it first runs, which not every machine allows."""
    pyright = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable], cwd=ROOT, capture_output=True, text=True
    )
    assert pyright.returncode == 0, pyright.stdout
