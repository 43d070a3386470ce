"""What the project promises about speed, measured: one file a promise, `xlmr bench` or `python -m benchmarks`."""
