"""The only place that knows everything: it puts the daemon together, starts it, and stops it in stages."""
