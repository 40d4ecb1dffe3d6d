"""Real servers on loopback, started and stopped by the tests and the benchmarks themselves."""
