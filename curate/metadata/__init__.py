"""DataComp's metadata: tables of uid, text, size and scores that lie beside a pool, or are all there is of it."""
