"""docs/errors.md has every error that is raised on purpose, and no other: ``python -m tests.test_errors_document`` updates it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "errors.md"
OURS = {"ConfigError", "DataError", "CheckpointError", "DamagedError", "WriteError"}
RAISED = {*OURS, "ValueError", "RuntimeError", "FloatingPointError", "ImportError"}
RETURNED = {"_composition", "too_little"}
"""Functions that give the message of an error."""
AREAS = {
    "The command line": (
        "ddpm/command",
        "ddpm/errors",
        "ddpm/files",
        "ddpm/memory",
        "train.py",
        "ddpm/training",
        "ddpm/config",
        "ddpm/build",
    ),
    "Runs and checkpoints": ("ddpm/runs", "ddpm/resuming", "ddpm/checkpoint", "ddpm/exporting", "ddpm/record", "export.py"),
    "Training": ("ddpm/module", "ddpm/learning_rate", "ddpm/motion_losses", "ddpm/networks", "ddpm/normalizer", "callbacks"),
    "Diffusion": ("ddpm/process", "ddpm/seeding"),
    "sample.py, evaluate.py, compare.py": (
        "ddpm/model",
        "ddpm/denoiser",
        "ddpm/guide",
        "ddpm/request",
        "sample.py",
        "evaluate.py",
        "compare.py",
        "inspect_data.py",
        "ddpm/metrics",
        "ddpm/viz",
    ),
    "Data": ("datamodules/", "ddpm/clips", "ddpm/skeleton", "ddpm/bones"),
}
LONGEST = 140


def text(node: ast.expr) -> str:
    """A message with ``…`` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text(node.left) + text(node.right)
    return "…"


def raised(tree: ast.Module) -> Iterator[str]:
    """The messages of errors that a module raises, or makes for others to raise."""
    thrown = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in RETURNED:
            returned = (part.value for part in ast.walk(node) if isinstance(part, ast.Return))
            yield from (text(value) for value in returned if isinstance(value, ast.JoinedStr))
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.args and (node.func.id in OURS or (node.func.id in RAISED and id(node) in thrown)):
            yield text(node.args[0])
        if node.func.id == "refuse":
            for pair in ast.walk(node):
                if isinstance(pair, ast.Tuple) and len(pair.elts) == 2:
                    yield text(pair.elts[1])


def shown(message: str) -> str:
    """A message as it stands in the document: a line, not too long; empty if nothing of it is fixed."""
    line = " ".join(message.split()).replace("|", "\\|")
    line = line if len(line) <= LONGEST else line[:LONGEST].rpartition(" ")[0] + " …"
    return line if re.search(r"[a-z]{3}", line) else ""


def messages() -> dict[str, list[str]]:
    """Area -> the messages of its files, in their order."""
    found: dict[str, list[str]] = {area: [] for area in AREAS}
    files = [path for folder in ("ddpm", "datamodules", "callbacks") for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in [*files, *sorted(ROOT.glob("*.py"))]:
        name = str(path.relative_to(ROOT))
        said = dict.fromkeys(shown(message) for message in raised(ast.parse(path.read_text())))
        area = next((area for area, places in AREAS.items() if name.startswith(places)), "Data")
        found[area] += [line for line in said if line and not any(line in others for others in found.values())]
    return found


def rows() -> dict[str, str]:
    """Message -> cause and remedy, of the document."""
    pairs = re.findall(r"^\| `` (.+) `` \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(pairs) == len(dict(pairs)), "a message has two rows"
    return dict(pairs)


def rewrite() -> None:
    """Bring the rows up to date, new ones with an empty place for cause and remedy."""
    before, head = rows(), DOCUMENT.read_text().partition("\n## ")[0]
    parts = [head]
    for area, lines in messages().items():
        table = "\n".join(f"| `` {line} `` | {before.get(line, '')} |" for line in lines)
        parts.append(f"## {area}\n\n| message | cause, and what to type |\n| --- | --- |\n{table}\n")
    DOCUMENT.write_text("\n".join(parts))


def test_every_error_is_documented_and_no_other() -> None:
    raised_now, documented = {line for lines in messages().values() for line in lines}, rows()
    advice = "run python -m tests.test_errors_document and fill in what is empty"
    assert not raised_now - documented.keys(), advice
    assert not documented.keys() - raised_now, advice
    assert not [line for line, remedy in documented.items() if len(remedy) < 8], advice
    assert len(documented) > 300


if __name__ == "__main__":
    rewrite()
