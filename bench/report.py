def results_of(*a): return a
def table(r): return ""
def publish(r): pass
