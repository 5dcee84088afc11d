"""What all services share: settings and logging."""
