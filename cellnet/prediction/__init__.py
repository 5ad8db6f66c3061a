"""Prediction: a published model asked about frames, and what it says as answers, tables and exports."""
