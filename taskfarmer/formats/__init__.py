"""File formats of a farm: values, and how each is written on a line or in a document."""
