"""What was done to the runs, as a table after the tests.

A test notes its faults by `record_property("fault", (name, tried, survived, lost steps))`; any
other counts as one fault of its own name, which it survives if it passes. What it notes by
`record_property("seen", text)` is printed above the table.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))


def faults_of(report):
    noted = [value for key, value in report.user_properties if key == "fault"]
    if noted:
        return noted
    name = report.nodeid.rpartition("::")[2].partition("[")[0]
    return [(name.removeprefix("test_").replace("_", " "), 1, int(report.passed), 0)]


def pytest_terminal_summary(terminalreporter, config):
    if not any("chaos" in arg for arg in config.args):
        return
    rows, seen = {}, []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call":
                seen += [value for key, value in report.user_properties if key == "seen"]
                for name, *numbers in faults_of(report):
                    rows[name] = [a + b for a, b in zip(rows.get(name, [0, 0, 0]), numbers)]
    terminalreporter.section("faults")
    for line in seen:
        terminalreporter.write_line(line)
    heads = ("tried", "survived", "lost steps")
    width = max(map(len, ("fault", *rows)))
    terminalreporter.write_line("  ".join(("fault".ljust(width), *heads)))
    for name, numbers in rows.items():
        cells = (str(n).rjust(len(head)) for n, head in zip(numbers, heads))
        terminalreporter.write_line("  ".join((name.ljust(width), *cells)))
