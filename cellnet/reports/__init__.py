"""Reports: pages, plots, plate maps and overlays, and the folder of a job of predictions."""
