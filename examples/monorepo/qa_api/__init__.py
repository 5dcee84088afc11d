"""The API of the question service."""
