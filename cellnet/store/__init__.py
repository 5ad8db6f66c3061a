"""The store: objects in a folder or in S3, the one place where cellnet touches storage."""
