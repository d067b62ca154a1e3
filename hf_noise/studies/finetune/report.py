"""x"""


def show(records, settings, runs):
    out = []
    for r in records:
        if r.task != "text_classification":
            continue
        m = r.metrics
        nan = {"value": float("nan")}
        out.append(
            f"{r.name:45s} acc {m['test_accuracy']['value']:.4f} nll {m['test_nll']['value']:.3f} "
            f"mem {m.get('memorised', nan)['value']:.3f} "
            f"T {m.get('transition_mean_absolute_error', nan)['value']:.3f} {r.wall_seconds:.0f}s"
        )
    return "\n".join(out)
