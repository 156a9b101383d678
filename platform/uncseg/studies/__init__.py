"""Many runs under one parent: sweeps and benchmarks."""
