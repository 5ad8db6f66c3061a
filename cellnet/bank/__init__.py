"""The bank: deduplicated frames in a folder or a bucket, their labels, and the split of every group."""
