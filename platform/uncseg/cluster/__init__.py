"""Ray and nothing else: sessions, tasks, workers, resources and the nodes of a cluster."""
