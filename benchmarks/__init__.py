"""How fast, how lean and how near to the original: side-by-side measurements, run by ``python -m benchmarks``."""
