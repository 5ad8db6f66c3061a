"""Training: from the frames of a bank to weights, in plain torch; knows neither Ray nor a registry."""
