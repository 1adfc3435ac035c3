"""The bar chart of the report: how many times TensorFlow's speed, per workload."""

from pathlib import Path

from peers.measure import REUSED, WRITE

# Of the peers the muted colours, of this library the strong one.
COLOURS = {
    REUSED: "#1f5fa8",
    "OpenCV resize": "#9aa5b1",
    "OpenCV warpAffine": "#c3cad2",
    "ONNX Runtime": "#d9c3a5",
    "torch grid_sample": "#d8a48f",
}


def draw(times: dict[str, dict[str, dict[str, float]]], ours: str, title: str, path: Path) -> None:
    """Write a PNG with one panel a method.

    Parameters
    ----------
    times : dict
        Milliseconds by method, workload and label.
    ours : str
        The label of this library's bar: `measure.REUSED` or `measure.FRESH`.
    title : str
        What is measured, and where.
    path : Path
        Where to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9})
    labels = [ours, *list(COLOURS)[1:]]
    colours = dict(zip(labels, COLOURS.values(), strict=True))
    figure, panels = plt.subplots(
        1, len(times), figsize=(10, 7.2), sharex=True, sharey=True, layout="constrained"
    )
    height = 0.84 / len(labels)
    for panel, (method, rows) in zip(panels, times.items(), strict=True):
        for line, row in enumerate(rows.values()):
            for bar, label in enumerate(labels):
                if label not in row:
                    continue
                ratio = row["TensorFlow"] / row[label]
                at = line + (bar - (len(labels) - 1) / 2) * height
                # From 1, so that what is slower than TensorFlow points to the left.
                panel.barh(at, ratio - 1, height * 0.92, left=1, color=colours[label])
                if label == ours:
                    inside = ratio > 2
                    panel.annotate(
                        f"{ratio:.1f}", (max(ratio, 1), at), xytext=(-3 if inside else 3, -0.5),
                        textcoords="offset points", va="center", ha="right" if inside else "left",
                        fontsize=7.5, fontweight="bold",
                        color="white" if inside else colours[label],
                    )  # fmt: skip
            limit = row["TensorFlow"] / row[WRITE]
            panel.plot([limit, limit], [line - 0.42, line + 0.42], color="#c0392b", linewidth=1.6)
        panel.set_title(method, fontweight="bold")
        panel.axvline(1, color="#333333", linewidth=1)
        panel.set_xscale("log")
        panel.set_yticks(range(len(rows)), list(rows))
        panel.grid(axis="x", which="major", color="#e5e5e5", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.set_xlabel("times TensorFlow's speed (log scale)")
    panels[0].set_ylim(len(times["bilinear"]) - 0.45, -0.55)
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    low, high = panels[0].get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    panels[0].set_xticks(shown, [f"{tick:g}" for tick in shown])
    panels[0].minorticks_off()
    keys = [plt.Rectangle((0, 0), 1, 1, color=colours[label]) for label in labels]
    keys.append(plt.Line2D([], [], color="#c0392b", linewidth=1.6))
    figure.legend(
        keys, [*labels, "write limit"], loc="outside lower center", ncols=6, frameon=False
    )
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)
