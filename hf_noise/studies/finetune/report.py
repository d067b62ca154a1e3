from hf_noise.reports.record import RunRecord
def show(records, settings, runs):
    out=[]
    for r in records:
        if r.task!="text_classification": continue
        m=r.metrics
        out.append(f"{r.name:45s} acc {m['test_accuracy']['value']:.4f} nll {m['test_nll']['value']:.3f} mem {m.get('memorised',{}).get('value',float('nan')):.3f} T {m.get('transition_mean_absolute_error',{}).get('value',float('nan')):.3f} {r.wall_seconds:.0f}s")
    return "\n".join(out)
