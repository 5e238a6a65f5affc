"""What a person or a program is told: progress while a run goes on, its summary and failures, numbers for Prometheus,
the findings of a check, pages of results beside their sources.

It reads outcomes, and for the pages images, and never changes them.
"""
