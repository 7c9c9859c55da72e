"""No reference file is forgotten: each is read by a parity test."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def file_patterns(source):
    """Return a pattern for the name in each call of the fixture ``golden``; {} stands for any."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "golden":
            (name,) = node.args
            parts = name.values if isinstance(name, ast.JoinedStr) else [name]
            yield "".join(
                re.escape(part.value) if isinstance(part, ast.Constant) else r"\w+"
                for part in parts
            )


def unread(names, sources):
    patterns = {pattern for source in sources for pattern in file_patterns(source)}
    return {name for name in names if not any(re.fullmatch(p, name) for p in patterns)}


def test_every_reference_file_is_read_by_a_parity_test(golden_folder):
    names = {path.name for path in golden_folder.iterdir()}
    assert len(names) > 10
    sources = [path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py")]
    assert unread(names, sources) == set()


def test_a_file_no_test_reads_is_found():
    read = "def test(golden):\n    golden('a.npz')\n    golden(f'arch_{name}.json')\n"
    mentioned = "'''Not c.npz.'''\nname = 'c.npz'\nopen('c.npz')\n"
    names = {"a.npz", "arch_w32.json", "arch_.json", "c.npz"}
    assert unread(names, [read, mentioned]) == {"arch_.json", "c.npz"}
