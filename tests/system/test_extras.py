"""What an extra installs is missing: one line that names the extra, before anything is computed."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import yaml

from helpers.bench import TOY
from helpers.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# What is imported by a name that is not its distribution's.
OPTIONAL = {
    "cv2": "opencv-contrib-python-headless", "pycocotools": "pycocotools",
    "pyarrow": "pyarrow", "skimage": "scikit-image", "tensorboard": "tensorboard",
    "mlflow": "mlflow-skinny", "wandb": "wandb", "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript", "transformers": "transformers",
}  # fmt: skip
BLOCKED = """
import json, sys
blocked, *commands = json.loads(sys.argv[1])
from ssl_bench.cli.main import main
for module in blocked:
    sys.modules[module] = None  # its import fails as where it is not installed
for words in commands:
    sys.argv = ["bench", *words]
    try:
        main()
    except SystemExit as stopped:
        print("code", stopped.code, file=sys.stderr)
"""


def answers(blocked, *commands, cwd) -> list[str]:
    """What each command says on stderr at its end, and its exit code, without some modules."""
    texts = json.dumps([blocked, *([*map(str, words)] for words in commands)])
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, texts], capture_output=True, text=True, cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = done.stderr.splitlines()
    return [f"{lines[i - 1]} {line}" for i, line in enumerate(lines) if line.startswith("code ")]


def test_a_missing_extra_is_one_line_that_names_it(tmp_path):
    small = ("--encoder", "random", "--data", "scenes:train=6,test=4", "--workers", 0)
    opencv = {
        "detect": ("detect", *small),
        "inpaint": ("inpainting", *small),
        "inpaint ": ("inpaint", "a.png", "--out", "filled"),
    }
    made, *found = answers(["cv2"], ("pretrain", "random", *TOY), *opencv.values(), cwd=tmp_path)
    assert made.endswith("code 0"), made
    for name, line in zip(map(str.strip, opencv), found, strict=True):
        assert line == (
            f"bench: cv2 is missing: this needs the extra {name}: "
            f"pip install 'ssl-bench[{name}]' code 2"
        )
    rpn = ("detect", *small, "--proposals", "rpn")  # COCO's precision is computed last
    (line,) = answers(["pycocotools"], rpn, cwd=tmp_path)
    assert "needs the extra detect" in line
    assert line.endswith("code 2")


def _bare_imports(node: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Imports of optional packages, each with the extra that it stands in, or an empty name."""
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        inside += tuple(
            ast.literal_eval(call.args[0]) for call in calls
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "extra"
        )  # fmt: skip
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    for module in modules:
        if (top := module.partition(".")[0]) in OPTIONAL:
            yield top, inside[-1] if inside else ""
    for child in ast.iter_child_nodes(node):
        yield from _bare_imports(child, inside)


def test_every_import_of_an_optional_package_stands_in_its_extra():
    found = set[tuple[str, str]]()
    for package in ("ssl_bench", "pretext", "eval"):
        for file in (ROOT / package).rglob("*.py"):
            found |= {*_bare_imports(ast.parse(file.read_text()))}
    assert {module for module, _ in found} >= {"cv2", "pyarrow", "pycocotools", "skimage"}
    for module, name in found:
        assert any(need.startswith(OPTIONAL[module]) for need in EXTRAS.get(name, [])), (
            module,
            name,
        )


def test_the_base_has_none_of_the_optional_packages():
    base = " ".join(PROJECT["dependencies"])
    assert not [name for name in OPTIONAL.values() if name in base]


def test_ruff_is_the_same_before_a_commit_and_in_make_check():
    pins = dict(line.split("==") for line in _pins())
    assert f"rev: v{pins['ruff']}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def test_every_extra_is_pinned():
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in _pins()}
    installed = ("dev", "docs", "detect", "hf", "inpaint")  # by make
    needs = {need.partition(">=")[0] for name in installed for need in EXTRAS[name]}
    assert {need for need in needs if "[" not in need} <= pinned


def _pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_citation_and_the_workflow_say_what_the_project_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited.keys() >= {"cff-version", "message", "title", "authors", "type"}
    assert (cited["cff-version"], cited["version"]) == ("1.2.0", PROJECT["version"])
    assert cited["license"] == PROJECT["license"] == "MIT"
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["check"]
    assert job["steps"][-1] == {"run": "make check"}
    pythons = {
        f"Programming Language :: Python :: {v}" for v in job["strategy"]["matrix"]["python"]
    }
    assert pythons <= {*PROJECT["classifiers"]}
