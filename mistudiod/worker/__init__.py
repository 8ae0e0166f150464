"""One job, then exit: the only place that starts torch."""
