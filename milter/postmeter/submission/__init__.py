"""What may leave and how it is stamped: the milter's room."""
