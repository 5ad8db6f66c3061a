"""Images: files as they come, pixels, tiles, scale, and wells in names."""
