"""Files beside the database: backups, locks, the kill switch."""
