"""The import graph is a contract: every room may import only what stands below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Top to bottom. A package may import itself and what comes after it.
PACKAGES = ["cluster", "pipelines", "xlmr_core"]
CORE = [
    "interface",
    "graph",
    "tasks",
    "models",
    "pretrained_tokenizers",
    "checkpoint",
    "lora",
    "heads",
    "encoder",
    "attention",
    "batch",
    "linear",
    "memory",
    "metrics",
    "tokenization",
    "config",
    "errors",
]
# Rooms of the drivers, likewise; files beside them, such as the command line, are held to nothing here.
DRIVERS = ["finetune", "evaluate", "examples", "annotate", "page"]
FORBIDDEN = {
    "xlmr_core": {"ray", "pydantic", "yaml", "pyarrow", "transformers", "datasets", "typer", "rich"},
    "pipelines": {"transformers", "sentence_transformers"},
    "pipelines/config.py": {"ray", "torch", "xlmr_core"},
    "pipelines/labelled.py": {"ray", "torch", "xlmr_core", "pyarrow"},
    # The checker shares no code with what it checks.
    "pipelines/annotate/verify.py": {"ray", "torch", "xlmr_core"},
    "pipelines/annotate/recount.py": {"ray", "torch", "xlmr_core", "pipelines"},
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names.add(node.module or "")
    return names


def sources(where: str) -> list[Path]:
    path = ROOT / where
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def test_every_core_module_has_its_place_in_the_order():
    found = {
        path.stem for path in (ROOT / "xlmr_core").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - {"__init__"} == set(CORE)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_downwards(package: str):
    above = set(PACKAGES[: PACKAGES.index(package)])
    for path in sources(package):
        wrong = {name for name in imports(path) if name.split(".")[0] in above}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong} from a package above {package}"


@pytest.mark.parametrize("room", DRIVERS)
def test_rooms_of_the_drivers_import_downwards(room: str):
    above = {f"pipelines.{name}" for name in DRIVERS[: DRIVERS.index(room)]} | {"pipelines.cli"}
    for path in sources(f"pipelines/{room}"):
        wrong = {name for name in imports(path) if ".".join(name.split(".")[:2]) in above}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong} from a room above {room}"


@pytest.mark.parametrize("module", CORE)
def test_core_modules_import_downwards(module: str):
    above = {f"xlmr_core.{name}" for name in CORE[: CORE.index(module)]}
    where = f"xlmr_core/{module}" if (ROOT / "xlmr_core" / module).is_dir() else f"xlmr_core/{module}.py"
    for path in sources(where):
        # `from xlmr_core import X` would run the package's __init__ and hide which room is meant.
        wrong = {name for name in imports(path) if name == "xlmr_core" or ".".join(name.split(".")[:2]) in above}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}, which stands above {module}"


@pytest.mark.parametrize(("where", "banned"), FORBIDDEN.items())
def test_libraries_stay_out_of_rooms_that_do_not_need_them(where: str, banned: set[str]):
    for path in sources(where):
        wrong = {name for name in imports(path) if name.split(".")[0] in banned}
        assert not wrong, f"{path.relative_to(ROOT)} must not import {wrong}"


def test_the_verifier_shares_no_code_with_the_writer():
    own = {"pipelines.annotate.recount"}
    names = imports(ROOT / "pipelines/annotate/verify.py")
    assert {name for name in names if name.startswith("pipelines")} <= own


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("xlmr_core.graph", ["ray", "pyarrow", "pydantic", "transformers"]),
        ("pipelines.config", ["ray", "torch"]),
    ],
)
def test_importing_a_room_does_not_load_heavy_libraries(module: str, absent: list[str]):
    code = f"import sys, {module}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
