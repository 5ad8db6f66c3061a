"""The Ray jobs, one module a verb; each is `python -m pipelines.VERB`."""
