"""Names of estimators and protocols, as metrics and tables write them."""

HEAD = "uncertainty"
BASELINES = ("variance_stable", "var1shot", "entropy")
_SPLIT, _SPREAD = ("total", "aleatoric", "epistemic", "entropy"), ("total", "variance", "entropy")
PARTS = {"mc_dropout": _SPLIT, "deep_ensemble": _SPLIT, "augmentation": _SPREAD, "heteroscedastic": _SPREAD}
"""Maps of the estimators of several predictions."""
SAMPLED = tuple(f"{estimator}_{part}" for estimator, parts in PARTS.items() for part in parts)
"""The same by their whole names, where an experiment asks for them."""
FLOORS = ("one_minus_p", "one_minus_max", "border_distance", "constant")
BENCHMARK_FLOORS = (*FLOORS, "var1shot")
"""A benchmark's: 4·p·(1 − p) is a baseline in the paper's Table 2, and what any trained competitor has to beat."""
ONE_PASS = ("var1shot", "entropy", "one_minus_p", "one_minus_max", "border_distance")
"""Maps that one pass of any network gives."""
ORACLE = "oracle"
PROTOCOLS = ("reference", "union")
