"""Whether this host is set up as it must be: facts are collected first, judged by plain functions, and told."""
