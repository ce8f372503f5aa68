"""Measures jobpool and its peers side by side, in one run on the same work: ``make bench``; README.md is the page."""
