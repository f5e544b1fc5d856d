"""The job: every row is scored in a first pass, what needs all scores is done in a second, and the step is proved."""
