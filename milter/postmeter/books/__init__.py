"""All that is not on the road of a message: metrics page, spools into the journal."""
