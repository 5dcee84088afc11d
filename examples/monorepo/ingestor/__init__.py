"""The worker of the question service."""
