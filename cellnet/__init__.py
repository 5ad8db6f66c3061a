"""cellnet: names the lineage of cells and counts them in phase-contrast and brightfield frames."""
