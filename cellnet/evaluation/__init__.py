"""Evaluation: metrics, the scoring of frames, evaluations beside each other, searches, and what to label next."""
