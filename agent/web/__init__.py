"""The dashboard: server-rendered pages over the documents of the commands. Reads only."""
