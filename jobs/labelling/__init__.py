"""Labels from a person: a page that shows images one by one, and a list of what they were called."""
