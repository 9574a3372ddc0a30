"""postmeter: quotas, DKIM signatures, link tracking and the truth about delivery for an existing Postfix."""

__version__ = "0.1.0"
