"""What a long run tells the world about itself: log lines, metrics, health, heartbeat, and its own watch."""
