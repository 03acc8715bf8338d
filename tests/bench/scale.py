def report(python): return 0
