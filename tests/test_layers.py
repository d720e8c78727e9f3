"""Who may import whom. The two tables say it; what follows them only reads imports and compares."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent


def within(package: str, *names: str) -> set[str]:
    """Modules of a package of vx."""
    return {f"vx.{package}.{name}" for name in names}


VOCABULARY = frozenset(
    {"vx.errors", "vx.jobs", "vx.drawing", "vx.captions", "vx.model", "vx.report", "vx.rights", "vx.spans"}
    | {"vx.timestamps"}
)
"""Anybody may import these; they import nothing of vx but each other."""

LAYERS: dict[str, set[str]] = {
    # What a package or module may import of vx, beside itself and the vocabulary. The longest name that fits counts.
    "vx": set(),
    **{name: set() for name in VOCABULARY},
    "vx.archive": set(),
    "vx.mp4": set(),
    "vx.virtual": set(),
    "vx.disk": set(),
    "vx.media": set(),
    "vx.media.export": {"vx.media"},
    "vx.media.painting": set(),
    "vx.media.packets": {"vx.archive"},
    "vx.media.files": {"vx.disk", "vx.media.packets"},
    "vx.media.encoding": {"vx.media.packets", "vx.media.painting"},
    "vx.media.virtual": {
        *("vx.archive", "vx.mp4", "vx.virtual", "vx.disk"),
        *within("media", "packets", "files", "encoding"),
    },
    "vx.media.snapshots": {"vx.archive", *within("media", "packets", "files", "encoding", "painting")},
    "vx.media.clips": {"vx.archive", *within("media", "packets", "files", "encoding", "painting", "virtual")},
    "vx.media.live": {"vx.disk", *within("media", "packets", "clips", "snapshots")},
    "vx.child": {"vx.media", "vx.archive", "vx.sandbox", "vx.privileges"},
    "vx.sandbox": set(),
    "vx.worker": {"vx.child"},
    "vx.config": {"vx.archive", "vx.access.hashing"},
    "vx.access": {"vx.config"},
    "vx.access.hashing": set(),
    "vx.estimate": {"vx.archive", "vx.session"},
    "vx.survey": {"vx.estimate", "vx.config", "vx.session", "vx.disk", "vx.threads"},
    "vx.session": {"vx.worker", "vx.config", "vx.virtual", "vx.disk", "vx.logs", "vx.metrics", "vx.threads"},
    "vx.threads": set(),
    "vx.firstlook": {"vx.archive", "vx.config", "vx.threads"},
    "vx.download": {"vx.threads"},
    "vx.leased": {"vx.download", "vx.virtual"},
    "vx.rpc": {"vx.access", "vx.archive", "vx.session", "vx.download", "vx.leased", "vx.config", "vx.threads"},
    "vx.rpc.generated": set(),
    "vx.privileges": set(),
    "vx.logs": set(),
    "vx.metrics": set(),
    "vx.scrape": set(),
    "vx.systemd": set(),
    "vx.app": {
        "vx.rpc",
        "vx.access",
        "vx.archive",
        "vx.privileges",
        "vx.sandbox",
        "vx.session",
        "vx.download",
        "vx.worker",
        "vx.config",
        "vx.disk",
        "vx.firstlook",
        "vx.metrics",
        "vx.scrape",
        "vx.survey",
        "vx.systemd",
        "vx.threads",
    },
    # A client of its own, which is never in the server's process; `vx serve` hands over to vx.daemon. What else it
    # has of the server is for who runs one: passwords, the audit.
    "vx.cli": {"vx.rpc.generated", "vx.config", "vx.logs", "vx.daemon", "vx.access.hashing", "vx.session.audit"},
    "vx.daemon": {"vx.app", "vx.config", "vx.logs"},
    "vx.__main__": {"vx.cli", "vx.daemon"},
}

FOREIGN: dict[str, set[str]] = {
    # A library, and the only parts of vx that see it.
    "h2": {"vx.rpc"},
    "hpack": {"vx.rpc"},
    "hyperframe": {"vx.rpc"},
    "grpclib": {"vx.rpc", "vx.cli"},
    "betterproto": {"vx.rpc", "vx.cli"},
    "asyncio": {"vx.cli"},
    "av": {"vx.media"},
    "PIL": {"vx.media"},
    "reportlab": {"vx.media.snapshots"},
    "font_roboto": {"vx.media.painting"},
    "pyzipper": {"vx.media.files"},
    "numpy": {"vx.media", "vx.mp4"},
    "click": {"vx.cli"},
    "rich": {"vx.cli"},
    "argon2": {"vx.access.hashing"},
    "cryptography": {"vx.cli"},
}

PURE = VOCABULARY | {
    *within("config", "addresses", "rules", "schema", "reading", "conflicts", "mistakes"),
    "vx.rpc.places",
    "vx.session.lifecycle",
    "vx.session.turns",
    "vx.session.budget",
    "vx.session.roster",
    "vx.session.prospect",
    "vx.session.tally",
    "vx.metrics",
    "vx.access.hashing",
    "vx.access.lockout",
    "vx.access.networks",
    *within("media.packets", "plan", "nal"),
    *within("media.painting", "geometry", "layout"),
    "vx.media.files.subtitles",
    "vx.media.encoding.recipe",
    *within("media.virtual", "files", "fragments", "limits", "joining", "cues"),
    "vx.media.live.times",
    "vx.archive.pattern",
    *within("mp4", "boxes", "tables", "description", "movie", "fragments", "recording", "build", "stored"),
}
"""Decisions apart from I/O: these don't import trio."""

IN_CHILD_ONLY = "vx.media"
"""The server imports it in no module's body: the worker's child does so in a function."""

NOT_IN_SERVER = {"av", "PIL", "reportlab", "numpy", "argon2", "cryptography", IN_CHILD_ONLY}
"""None of these is loaded in the server's process."""


class Import(NamedTuple):
    line: int
    name: str
    """`a.b` of `import a.b`; `a.b.c` of `from a.b import c`, whether c is a module or not."""
    in_body: bool
    """It is carried out when the module is imported."""


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def find_modules() -> dict[str, Path]:
    modules = {}
    for path in (ROOT / "vx").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def find_imports(tree: ast.AST, package: str, *, in_body: bool = True) -> Iterator[Import]:
    """All imports below `tree`, in functions too; `package` is what relative ones start from."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, in_body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (Import(node.lineno, f"{start}.{alias.name}", in_body) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from find_imports(ast.Module(node.body, []), package, in_body=False)
            yield from find_imports(ast.Module(node.orelse, []), package, in_body=in_body)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from find_imports(node, package, in_body=in_body and not is_function)


def layer_of(module: str) -> str:
    return max((name for name in LAYERS if is_within(module, name)), key=len)


def find_faults(module: str, source: str, *, is_package: bool = False) -> list[str]:
    package = module if is_package else module.rpartition(".")[0]
    layer = layer_of(module)
    allowed = LAYERS[layer] | VOCABULARY if layer not in VOCABULARY else VOCABULARY
    faults = []
    for line, name, in_body in find_imports(ast.parse(source), package):
        where = f"{module}:{line} imports {name}"
        if is_within(name, "vx"):
            if not any(is_within(name, other) for other in (allowed | {layer})):
                faults.append(f"{where}: {layer} may import {sorted(allowed) or 'nothing of vx'}")
            if in_body and not is_within(layer, IN_CHILD_ONLY) and is_within(name, IN_CHILD_ONLY):
                faults.append(f"{where} in its body: only the worker's child may load it, in a function")
        library = name.partition(".")[0]
        if library in FOREIGN and not any(is_within(module, part) for part in FOREIGN[library]):
            faults.append(f"{where}: only {sorted(FOREIGN[library])} may")
        if library == "trio" and module in PURE:
            faults.append(f"{where}: it is pure")
    return faults


def test_imports_keep_to_the_layers() -> None:
    modules = find_modules()
    assert {"vx.errors", "vx.jobs", "vx.timestamps", "vx.rpc.generated.axxonsoft.bl.mmexport"} <= modules.keys()
    faults = [
        fault
        for module, path in sorted(modules.items())
        for fault in find_faults(module, path.read_text("utf-8"), is_package=path.name == "__init__.py")
    ]
    assert not faults, "\n".join(faults)


def test_the_map_of_each_package_has_every_module() -> None:
    modules = {name: path for name, path in find_modules().items() if not is_within(name, "vx.rpc.generated")}
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    assert {"vx", "vx.session", "vx.media", "vx.media.live"} <= packages
    for package in packages:
        parts = [name.rpartition(".")[2] for name in modules if name.rpartition(".")[0] == package]
        text = ast.get_docstring(ast.parse(modules[package].read_text("utf-8"))) or ""
        assert sorted(re.findall(r"^    (?:vx\.)?(\w+) ", text, re.MULTILINE)) == sorted(parts), package


def test_every_module_has_a_layer() -> None:
    general = {"vx", "vx.media"}
    strangers = [module for module in find_modules() if layer_of(module) in general and module not in general]
    assert not strangers, f"say in LAYERS what these may import: {strangers}"


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("vx.session.registry", "from vx.rpc import codec", "vx.session may import"),
        ("vx.session.registry", "from ..rpc import codec", "vx.session may import"),
        ("vx.session.store", "def f():\n    import vx.media.copy", "vx.session may import"),
        ("vx.archive.find", "from vx import media", "vx.archive may import"),
        ("vx.errors", "import vx.config", "vx.errors may import"),
        ("vx.cli.client", "from vx.rpc.codec import Codec", "vx.cli may import"),
        ("vx.child", "from vx.media import copy", "in its body"),
        ("vx.media.packets.plan", "from vx.media import files", "vx.media.packets may import"),
        ("vx.media.clips.clip", "from vx.media.live import camera", "vx.media.clips may import"),
        ("vx.media.painting.fonts", "def f():\n    import reportlab", "['vx.media.snapshots'] may"),
        ("vx.session.registry", "import betterproto", "['vx.cli', 'vx.rpc'] may"),
        ("vx.archive.find", "def f():\n    import av.container", "['vx.media'] may"),
        ("vx.mediator", "from PIL import Image", "['vx.media'] may"),
        ("vx.session.lifecycle", "import trio", "it is pure"),
        ("vx.media.packets.plan", "if True:\n    from trio import sleep", "it is pure"),
    ],
)
def test_a_fault_is_found(module: str, source: str, fault: str) -> None:
    assert fault in "".join(find_faults(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("vx.session.registry", "from vx.worker import open_worker\nfrom . import lifecycle\nimport trio"),
        ("vx.child", "def child():\n    from vx.media.export import run"),
        ("vx.child", "if TYPE_CHECKING:\n    from vx.media.export import run"),
        ("vx.media.clips.copy", "import av\nfrom vx.archive.find import find\nfrom vx.media.packets.plan import plan"),
        ("vx.media.export", "from vx.media.clips.clip import export_clip"),
        ("vx.rpc.server", "import h2.events\nfrom vx.errors import VxError\nfrom vx.rpc.generated import axxonsoft"),
    ],
)
def test_what_is_allowed_is_no_fault(module: str, source: str) -> None:
    assert find_faults(module, source) == []


def test_the_server_never_loads_media_code() -> None:
    in_server = (
        *("vx.access", "vx.app", "vx.config", "vx.download", "vx.leased"),
        *("vx.rpc", "vx.session", "vx.worker"),
    )
    names = sorted(name for name in find_modules() if any(is_within(name, part) for part in in_server))
    assert any(is_within(name, "vx.rpc") for name in names)
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert loaded >= set(names)
    assert not loaded & NOT_IN_SERVER
