def show(records, settings, runs): return str(len(records))
