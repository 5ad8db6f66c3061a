"""Networks: the table of architectures, and what surrounds them; torch alone."""
