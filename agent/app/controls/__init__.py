"""Controls: actions requested from the dashboard, the API, a phone or another process, queued in the
store and carried out by the running agent.
"""
