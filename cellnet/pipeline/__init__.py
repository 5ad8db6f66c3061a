"""One pipeline: its steps, which are commands, and what each came to, so that a run goes on where one was cut."""
