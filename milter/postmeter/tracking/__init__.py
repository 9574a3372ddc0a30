"""What was read: links, tokens on the web, clicks."""
