"""The method: network, loss, error memory and trainer. Imports neither Ray nor MLflow."""
