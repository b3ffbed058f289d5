"""What was done to the runs, as a table after the tests.

A test notes each fault by `record_property("fault", (name, tried, survived, lost_steps))`.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # for tiny.py and others


def pytest_terminal_summary(terminalreporter):
    rows = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", []):
                if key == "fault" and report.when == "call":
                    name, *numbers = value
                    rows[name] = [a + b for a, b in zip(rows.get(name, [0, 0, 0]), numbers)]
    if not rows:
        return
    terminalreporter.section("faults")
    width = max(map(len, rows))
    heads = ("fault", "tried", "survived", "lost steps")
    terminalreporter.write_line("  ".join((heads[0].ljust(width), *heads[1:])))
    for name, numbers in rows.items():
        cells = (str(n).rjust(len(head)) for n, head in zip(numbers, heads[1:]))
        terminalreporter.write_line("  ".join((name.ljust(width), *cells)))
