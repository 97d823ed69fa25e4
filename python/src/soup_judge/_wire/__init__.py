"""Generated code of the wire. `generate` makes it again."""
