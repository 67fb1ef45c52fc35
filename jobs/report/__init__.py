"""The HTML reports: one of a training run, one of a batch job."""
