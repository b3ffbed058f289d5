"""Makes the notebook of examples/pretrain_fit.py, and can run it.

    python tools/notebook.py OUTPUT.ipynb             writes it
    python tools/notebook.py --execute OUTPUT.ipynb   runs all its cells first, for `make docs`

Each comment of the example's `main` becomes text, and the lines below it a cell of code. Needs
`pip install ".[docs]"`.
"""

import argparse
import ast
import os
import pathlib

import jupytext
import nbformat

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "pretrain_fit.py"
QUICK = {"epochs": 1, "width": 4, "image_size_px": 16}  # what an execution is cut down to


def cells(source: str) -> str:
    """The example as a script in jupytext's percent format: its comments become text.

    Args:
        source: text of an example with one function, `main`, whose arguments argparse reads.
    """
    tree = ast.parse(source)
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    constants = [node for node in tree.body if isinstance(node, ast.Assign)]
    title = ast.get_docstring(tree).splitlines()[0]
    head = [ast.unparse(node) for node in [*imports, *constants]]
    parse = next(i for i, node in enumerate(main.body) if "parse_args" in ast.unparse(node))
    settings = [ast.unparse(node) for node in main.body[: parse + 1]]
    settings[-1] = settings[-1].replace("parse_args(argv)", "parse_args([])")
    lines = source.splitlines()
    body = lines[main.body[parse].end_lineno : main.end_lineno]
    parts = [
        f"# %% [markdown]\n# # {title}",
        "# %% [markdown]\n# In Colab, upload the checkout and run `%pip install .` in it first.",
        "# %%\n" + "\n".join(head),
        "# %% [markdown]\n# Settings: change them in the line of `args`.",
        "# %%\n" + "\n".join(settings),
    ]
    for block in "\n".join(line[4:] for line in body).strip().split("\n\n"):
        text = [line for line in block.splitlines() if line.startswith("#")]
        code = [line for line in block.splitlines() if not line.startswith("#")]
        if text:
            parts.append("# %% [markdown]\n" + "\n".join(text))
        parts.append("# %%\n" + "\n".join(code))
    return "\n\n".join(parts) + "\n"


def main():
    """Writes the notebook."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", help="file to write")
    parser.add_argument("--execute", action="store_true", help="run all cells, cut down")
    args = parser.parse_args()
    notebook = jupytext.reads(cells(EXAMPLE.read_text()), fmt="py:percent")
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    output = pathlib.Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    if args.execute:
        from nbclient import NotebookClient

        settings = next(c for c in notebook.cells if "parse_args([])" in c.source)
        flags = [f"--{name}={value}" for name, value in QUICK.items()]
        settings.source = settings.source.replace("parse_args([])", f"parse_args({flags})")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        resources = {"metadata": {"path": str(output.parent)}}
        NotebookClient(notebook, timeout=600, resources=resources).execute()
    nbformat.write(notebook, output)
    print(output)


if __name__ == "__main__":
    main()
