"""The configuration contract: schema, reader with line numbers, checks."""
