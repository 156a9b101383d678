"""Names of estimators and protocols, as metrics and tables write them."""

HEAD = "uncertainty"
BASELINES = ("variance_stable", "var1shot", "entropy")
SPLIT = ("total", "aleatoric", "epistemic", "entropy")
SAMPLED = (
    *(
        f"{name}_{part}"
        for name in ("mc_dropout", "ensemble")
        for part in ("total", "aleatoric", "epistemic", "entropy")
    ),
    *(f"{name}_{part}" for name in ("augmentation", "heteroscedastic") for part in ("total", "variance", "entropy")),
)
"""Of several predictions of a case, where an experiment asks for them."""
FLOORS = ("one_minus_p", "one_minus_max", "border_distance", "constant")
ORACLE = "oracle"
PROTOCOLS = ("reference", "union")
