"""What every daemon stands on: logs, signals, notification, forked workers, growing files."""
