"""JSON documents: what commands print with --json. One declaration of each gives its keys, its JSON
schema and how it is filled.

An interface: keys are added, never renamed. Amounts, values and prices are text, so that no reader
rounds them. Declarations are classes where fields are read by a path (`Of`), else tables.
"""
