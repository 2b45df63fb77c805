"""How fast Penstock is beside what people would use instead; `python benchmarks/performance` runs all of it."""
