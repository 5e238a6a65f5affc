"""What a person is told: progress while a run goes on, a summary when it ends.

It reads outcomes and never changes them.
"""
