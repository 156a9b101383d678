"""Metrics on their way to MLflow: spool, syncer, store."""
