"""Configuration: every setting with its default and its meaning, frozen and checked."""
