"""The journal: steps, intents with their transitions, and their proposals to external signers."""
