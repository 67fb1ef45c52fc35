"""The HTML reports: of a training run, and of a batch job."""
