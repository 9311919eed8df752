"""The tests; shared parts: strategies, conformance, mutants."""
