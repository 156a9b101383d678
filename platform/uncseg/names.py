"""Names of estimators and protocols, as metrics and tables write them."""

HEAD = "uncertainty"
BASELINES = ("variance_stable", "var1shot")
FLOORS = ("one_minus_p", "one_minus_max", "border_distance", "constant")
ORACLE = "oracle"
PROTOCOLS = ("reference", "union")
