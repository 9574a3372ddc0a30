"""Mail as bytes: pure functions and frozen values, no input or output, no clock."""
