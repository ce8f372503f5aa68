"""The state database: one writer, many readers, and the schema that both keep to."""
