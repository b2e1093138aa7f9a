"""A fake provider of models, for the tests, the demo and the benchmarks."""
