"""The web page of the question service."""
