"""The verbs, one file each: parse, call one method of JobPool, have the answer rendered."""
