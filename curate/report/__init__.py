def write_report(out, manifest, pool):
    pass
