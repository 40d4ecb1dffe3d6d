"""Real servers on loopback, which the tests and the benchmarks start and stop."""
