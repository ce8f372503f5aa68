"""The command line: main finds the verb, verbs/ has one file for each, render writes what they say."""
