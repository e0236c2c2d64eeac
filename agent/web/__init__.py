"""Dashboard, API and assistant server over the documents of the commands. No key is loaded here;
controls are queued for the run.
"""
