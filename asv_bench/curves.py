"""Draw the record for the documentation: a table of the commits, and curves as SVG.

The page needs no script and no network. What is drawn depends on the files of the record alone.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape

from asv_bench.records import CALL, INSTRUCTIONS, TIME, TWIN, Record

# From which growth or fall on a count is marked; the gate's.
STEP = 0.03
WIDTH, HEIGHT = 230, 70
# A curve that does not move is flat in its panel, and noise does not fill it.
RATIOS, MIB = (0.9, 1.1), (0.0, 4.0)
STYLE = """<style>
.record {display: grid; grid-template-columns: repeat(auto-fill, minmax(13em, 1fr)); gap: 1em}
.record figure {margin: 0}
.record figcaption {font-size: 0.8em; line-height: 1.4; margin: 0; text-align: left}
.record svg {width: 100%; height: auto; overflow: visible; fill: none; stroke-width: 1.6}
.record text {fill: currentColor; font-size: 10px}
.record rect {stroke: currentColor; stroke-width: 0.5; opacity: 0.4}
.line0 {stroke: #3b7dd8; color: #3b7dd8} .line1 {stroke: #9aa5b1; color: #9aa5b1}
.line2 {stroke: #d8a048; color: #d8a048} .line3 {stroke: #8e5bb5; color: #8e5bb5}
.commits td:nth-child(3) {white-space: nowrap}
.up {fill: #c0392b} .down {fill: #2e8b57}
</style>"""
Line = list[float | None]


@dataclass(frozen=True)
class Panel:
    """The lines of one case, each with the name and the colour that its place has in the key."""

    title: str
    names: list[str]
    lines: list[Line | None]
    text: Callable[[float], str]  # of the latest values
    relative: bool = True  # to each line's first value: two instruction sets are far apart
    steps: bool = False


def page(records: list[Record]) -> str:
    """Return the table and all curves, as the inside of a page."""
    return "\n".join([STYLE, table(records), *sections(records)])


def lines(records: list[Record], benchmark: str) -> dict[tuple[str, str], dict[str, Line]]:
    """Return the values of a benchmark, one a record, by conditions and case."""
    found: dict[tuple[str, str], dict[str, Line]] = {}
    for index, record in enumerate(records):
        for conditions, values in record.results(benchmark).items():
            for case, value in values.items():
                missing: Line = [None] * len(records)
                found.setdefault(conditions, {}).setdefault(case, missing)[index] = value
    return found


def changes(values: Line) -> Iterator[tuple[int, float]]:
    """Yield where a value differs from the one before, and by what part of it."""
    before = None
    for index, value in enumerate(values):
        if value is not None:
            if before is not None and value != before:
                yield index, value / before - 1
            before = value


def table(records: list[Record]) -> str:
    """Return a row for each commit: its instructions beside those of the commit before."""
    changed: list[list[float]] = [[] for _ in records]
    for cases in lines(records, INSTRUCTIONS).values():
        for values in cases.values():
            for index, part in changes(values):
                changed[index].append(part)
    titles = ("", "commit", "date", "subject", f"changed over {STEP:.0%}", "from", "to")
    head = "".join(f"<th>{title}</th>" for title in titles)
    rows = []
    for number, (record, parts) in enumerate(zip(records, changed, strict=True), 1):
        cells = [str(number), f"<code>{record.commit[:8]}</code>", record.date[:10]]
        cells += [escape(record.subject)]
        if record.skipped:
            cells[-1] += f"<br><em>skipped: {escape(record.skipped)}</em>"
        cells += [str(sum(abs(part) > STEP for part in parts) or "")]
        cells += [f"{pick(parts):+z.1%}" if parts else "" for pick in (min, max)]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    body = "\n".join([f"<thead><tr>{head}</tr></thead>", "<tbody>", *rows, "</tbody>"])
    return f'<table class="table commits">{body}</table>'


def sections(records: list[Record]) -> Iterator[str]:
    """Yield the headings and the curves of instructions, memory and time."""
    counts = lines(records, INSTRUCTIONS)
    isas = unique(case.partition("/")[0] for cases in counts.values() for case in cases)
    keys = [(isa, conditions) for isa in isas for conditions in counts]
    names = [f"{isa}, {toolchain}" for isa, (_, toolchain) in keys]
    yield heading("Instructions", names)
    for kind in unique(case.partition("/")[2] for cases in counts.values() for case in cases):
        drawn = [counts[conditions].get(f"{isa}/{kind}") for isa, conditions in keys]
        yield figure(Panel(kind, names, drawn, short, steps=True), records)
    yield "</div>"

    calls, twins = lines(records, CALL), lines(records, TWIN)
    names = [toolchain for _, toolchain in calls]
    yield heading("Peak memory of a call, beyond its arguments and its result", names)
    for case in unique(case for cases in calls.values() for case in cases):
        drawn = [
            beyond(calls[conditions][case], twins[conditions][case]) if case in cases else None
            for conditions, cases in calls.items()
        ]
        yield figure(Panel(case, names, drawn, "{:z.1f} MiB".format, relative=False), records)
    yield "</div>"

    times = lines(records, TIME)
    names = [f"{machine}, {toolchain}" for machine, toolchain in times]
    yield heading("Processor time of one thread", names)
    for case in unique(case for cases in times.values() for case in cases):
        drawn = [cases.get(case) for cases in times.values()]
        yield figure(Panel(case, names, drawn, seconds), records)
    yield "</div>"


def unique(names: Iterable[str]) -> list[str]:
    """Return each name once, in their order."""
    return list(dict.fromkeys(names))


def beyond(calls: Line, twins: Line) -> Line:
    """Return what calls needed over their twins, in MiB."""
    return [
        None if call is None or twin is None else (call - twin) / 2**20
        for call, twin in zip(calls, twins, strict=True)
    ]


def heading(text: str, names: list[str]) -> str:
    """Return a heading with the key to the colours, and open the grid of figures."""
    key = " ".join(
        f'<span class="line{number}">&#9632;</span> {escape(name)}'
        for number, name in enumerate(names)
    )
    return f'<h3>{escape(text)}</h3>\n<p>{key}</p>\n<div class="record">'


def figure(panel: Panel, records: list[Record]) -> str:
    """Return one panel with the latest values below it."""
    existing = [(i, line) for i, line in enumerate(panel.lines) if line is not None]
    scaled = {i: scale(line, panel.relative) for i, line in existing}
    every = [value for line in scaled.values() for value in line if value is not None]
    least = RATIOS if panel.relative else MIB
    low, high = min(*every, *least), max(*every, *least)
    drawn: list[str] = []
    latest = []
    for i, line in existing:
        at = {
            index: ((index + 0.5) * WIDTH / len(records), (high - value) / (high - low) * HEIGHT)
            for index, value in enumerate(scaled[i])
            if value is not None
        }
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in at.values())
        drawn.insert(0, f'<polyline class="line{i}" points="{points}"/>')
        for index, part in changes(line) if panel.steps else ():
            if abs(part) > STEP:
                drawn.append(
                    mark(at[index], f"{panel.names[i]}: {part:+.1%}", part, records[index])
                )
        latest.append(f'<span class="line{i}">&#9632;</span> {panel.text(last(line))}')
    axis = [f"{value:.0%}" if panel.relative else f"{value:.1f}" for value in (high, low)]
    return (
        f'<figure><svg viewBox="-36 -5 {WIDTH + 40} {HEIGHT + 22}"><title>{panel.title}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}"/><g text-anchor="end">'
        f'<text x="-3" y="8">{axis[0]}</text><text x="-3" y="{HEIGHT}">{axis[1]}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 12}">{len(records)}</text></g>'
        f'<text y="{HEIGHT + 12}">1</text>{"".join(drawn)}</svg>'
        f"<figcaption><code>{panel.title}</code><br>{', '.join(latest)}</figcaption></figure>\n"
    )


def scale(line: Line, relative: bool) -> Line:
    """Return a line over its first value, or as it is."""
    first = next(value for value in line if value is not None) if relative else 1.0
    return [None if value is None else value / first for value in line]


def mark(at: tuple[float, float], text: str, part: float, record: Record) -> str:
    """Return a dot whose tip says which commit stepped, and by how much."""
    says = escape(f"{text}: {record.commit[:8]} {record.subject}")
    kind = "up" if part > 0 else "down"
    circle = f'<circle class="{kind}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3">'
    return f"{circle}<title>{says}</title></circle>"


def last(line: Line) -> float:
    """Return the latest value of a line."""
    return next(value for value in reversed(line) if value is not None)


def short(count: float) -> str:
    """Return a count in three digits."""
    unit, name = (1e6, "M") if count >= 1e6 else (1e3, "k")
    return f"{count / unit:.3g} {name}"


def seconds(value: float) -> str:
    """Return a time in three digits."""
    unit, name = (1e-3, "ms") if value >= 1e-3 else (1e-6, "µs")
    return f"{value / unit:.3g} {name}"
