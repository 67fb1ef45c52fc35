"""The catalogue of hostile inputs: what is sent, how it is made, and what it becomes."""
