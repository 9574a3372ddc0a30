"""What became of the mail, for people: figures of whole days as text, CSV, JSON, or one page of HTML.

Reads what `store.figures` added up; knows nothing of events, logs or how a report is asked for.
"""
