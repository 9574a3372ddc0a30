"""The commands: argument parsing, and the one place where parts are wired into daemons."""
