"""The report of a training job: curves, charts, pictures, and the page they make."""
