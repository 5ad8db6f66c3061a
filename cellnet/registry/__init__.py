"""The registry: models, their versions and aliases, as objects in a folder or in S3."""
