"""The routes of /v1 and the page, and what surrounds every request."""
