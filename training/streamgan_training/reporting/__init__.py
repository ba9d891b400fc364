"""A run's report: one page of HTML from what the run recorded."""
